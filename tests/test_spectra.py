"""What the ear hears of a waveform, and the loss that compares it."""

import pytest
import torch

from devil_lib import spectra
from devil_lib.synthesis import drum


@pytest.fixture(scope="module")
def strokes() -> torch.Tensor:
    return torch.stack([drum(name, seed) for name in ("snare", "clap", "tom") for seed in range(3)])


@pytest.mark.parametrize("window", spectra.WINDOWS)
def test_a_full_scale_sine_has_magnitude_one_half(window):
    tone = torch.sin(2 * torch.pi * 1000 / 8000 * torch.arange(4096))[None, None]
    found = spectra.magnitudes(tone, window)
    assert found.shape == (1, window // 2 + 1, 4096 // (window // 4) + 1)
    assert found[0, :, 4:-4].amax(0) == pytest.approx(0.5, abs=1e-3)
    assert found[0, :, 8].argmax() == 1000 * window // 8000


def test_it_is_nothing_for_the_same_sound_and_has_a_gradient_at_silence(strokes):
    assert spectra.spectral_loss(strokes, strokes) == 0.0
    silent = torch.zeros_like(strokes, requires_grad=True)
    spectra.spectral_loss(silent, strokes).backward()
    assert torch.isfinite(silent.grad).all()


def test_a_late_stroke_is_nearer_than_silence_to_the_ear_and_further_by_squares(strokes):
    late = torch.nn.functional.pad(strokes, (8, 0))[..., :4096]  # a millisecond
    silence = torch.zeros_like(strokes)
    assert (late - strokes).square().mean() > (silence - strokes).square().mean()
    assert spectra.spectral_loss(late, strokes) < 0.5 * spectra.spectral_loss(silence, strokes)


def test_where_only_the_kind_is_known_the_right_loudness_is_best():
    claps, others = (torch.stack([drum("clap", seed) for seed in seeds]) for seeds in (range(20), range(20, 40)))
    losses = {gain: spectra.spectral_loss(gain * others, claps).item() for gain in (0.5, 0.7, 1.0)}
    assert min(losses, key=losses.get) == 1.0


def test_log_magnitudes_of_silence_and_of_a_sine():
    layer = spectra.LogMagnitudes(256, 64)
    tone = torch.sin(2 * torch.pi * 1000 / 8000 * torch.arange(4096))[None, None]
    assert layer(torch.zeros(1, 1, 4096)) == pytest.approx(-1.05, abs=0.02)
    assert layer(tone).shape == (1, 1, 129, 65) and layer(tone).max().item() == pytest.approx(1.02, abs=0.02)
