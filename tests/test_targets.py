"""Drawn and synthesised targets: format, range, power, determinism, the same drawing at every size, what fits a generator, and
what a bad picture or sound file is told."""

import itertools
import math

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from tiny import image_generator, sound_generator
from torch import nn
from torch.nn import functional

from devil_lib import models, show, synthesis, targets
from devil_lib.synthesis import DRUMS, LENGTH, RATE

BANK = targets.bank() | targets.controls()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [12, 28, 33, 128])
def test_every_target_has_the_asked_format_and_range(size, channels):
    for name, target in (targets.bank(size, channels) | targets.controls(size, channels)).items():
        assert target.shape == (channels, size, size), name
        assert target.dtype == torch.float32, name
        assert target.min() >= -1.0 and target.max() <= 1.0, name


def test_bank_and_controls_are_disjoint_and_all_pictures_differ():
    assert not set(targets.bank()) & set(targets.controls())
    assert len(targets.bank()) >= 20 and len(targets.controls()) >= 10
    for (name, one), (other_name, other) in itertools.combinations(BANK.items(), 2):
        assert (one - other).square().mean() > 0.1, (name, other_name)


def test_drawings_are_deterministic_and_use_the_whole_range():
    again = targets.bank()
    for name, target in targets.bank().items():
        assert torch.equal(target, again[name])
        if name not in ("noise", "black", "white"):
            assert target.min() < -0.95 and target.max() > 0.95, name


@pytest.mark.parametrize("name", ["devil", "stop sign", "skull", "666", "cat"])
def test_a_large_drawing_averaged_down_is_the_small_one(name):
    large = targets.pictures._drawn(name, 112, 1)
    averaged = functional.avg_pool2d(large[None], 4)[0]
    assert (averaged - BANK[name]).square().mean() < 0.01


def test_edges_are_smooth():
    devil = targets.devil()
    grey = ((devil > -0.9) & (devil < 0.9)).float().mean()
    assert 0.05 < grey < 0.5


def test_the_devil_is_symmetric_and_has_two_horns():
    devil = targets.devil()
    assert (devil - devil.flip(-1)).abs().mean() < 0.02
    top = devil[0, 3] > 0  # a row above the forehead: lit at the left and at the right, dark between
    assert top[:14].any() and top[14:].any() and not top[10:18].any()


def test_colour_targets_are_in_colour():
    red, green, blue = targets.devil(64, 3).flatten(1).max(1).values
    assert red > green + 0.5 and red > blue + 0.5
    assert torch.equal(*targets.text("HI", 32, 3)[:2])


def test_noise_depends_on_the_seed_only():
    assert torch.equal(targets.noise(28, 5), targets.noise(28, 5))
    assert not torch.equal(targets.noise(28, 5), targets.noise(28, 6))
    assert targets.noise(64, 0).mean().abs() < 0.05


def test_text_fills_the_picture_and_differs_by_letter():
    words = targets.text("HI")
    columns = (words[0] > 0).any(0).nonzero()
    assert columns.min() <= 3 and columns.max() >= 24
    assert not torch.equal(words, targets.text("HO"))


@pytest.mark.parametrize(
    "words, told", [("", "1 to 8 letters"), ("   ", "1 to 8"), ("ABCDEFGHIJ", "1 to 8"), ("\u4e2d", "no sign")]
)
def test_text_that_cannot_be_drawn_is_refused(words, told):
    with pytest.raises(ValueError, match=told):
        targets.text(words)


@pytest.mark.parametrize("size", [0, -3, 11, 5000, 28.0, True, "28", None])
def test_absurd_sizes_are_refused(size):
    for draw in (targets.devil, targets.stop_sign, targets.noise, lambda s: targets.text("A", s), targets.bank):
        with pytest.raises(ValueError, match="from 12 to 1024"):
            draw(size)


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="greyscale"):
        targets.devil(28, 2)


# --- A picture of yours --------------------------------------------------------------------------------------------


def test_picture_takes_the_middle_square(tmp_path):
    image = Image.new("RGB", (300, 100), "white")
    image.paste("red", (100, 0, 200, 100))
    image.save(tmp_path / "wide.png")
    found = targets.picture(tmp_path / "wide.png", 20, 3)
    assert found.shape == (3, 20, 20)
    expected = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 20, 20)
    assert torch.allclose(found[:, :, 2:-2], expected[:, :, 2:-2], atol=0.02)


def test_transparent_parts_become_black(tmp_path):
    Image.new("RGBA", (50, 50), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert targets.picture(tmp_path / "clear.png").eq(-1.0).all()


def test_a_photograph_stored_sideways_is_turned_upright(tmp_path):
    image = Image.new("L", (40, 40), 0)
    image.paste(255, (0, 0, 20, 40))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view": left becomes top
    image.save(tmp_path / "sideways.png", exif=exif)
    found = targets.picture(tmp_path / "sideways.png", 40)[0]
    assert found[:15].gt(0.9).all() and found[25:].lt(-0.9).all()


def test_a_drawn_target_survives_the_file(tmp_path):
    devil = targets.devil()
    Image.fromarray(((devil[0] + 1) * 127.5).round().byte().numpy()).save(tmp_path / "devil.png")
    assert torch.allclose(targets.picture(tmp_path / "devil.png"), devil, atol=1e-6)


def test_a_missing_picture_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="relative paths start at"):
        targets.picture(tmp_path / "none.png")


def test_a_folder_a_text_and_a_damaged_file_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        targets.picture(tmp_path)
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(ValueError, match="not a picture"):
        targets.picture(tmp_path / "notes.png")
    targets_file = tmp_path / "cut.png"
    Image.effect_noise((200, 200), 90).save(targets_file)
    targets_file.write_bytes(targets_file.read_bytes()[:9000])
    with pytest.raises(ValueError, match="damaged"):
        targets.picture(targets_file)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="not a picture"):
        targets.picture(tmp_path / "empty.jpg")


def test_an_enormous_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="10000 x 6000 pixels; scale it down"):
        targets.picture(tmp_path / "huge.png")


# --- Sounds ----------------------------------------------------------------------------------------------------------

SOUNDS = targets.sound_bank() | targets.sound_controls()


def power(x: torch.Tensor) -> float:
    return 10.0 * math.log10(x.double().square().mean().item())


def strongest(x: torch.Tensor) -> float:
    """The frequency in hertz at which a sound (samples,) has most power."""
    spectrum = torch.fft.rfft(x.flatten().double()).abs()
    return spectrum.argmax().item() * RATE / x.numel()


@pytest.mark.parametrize("length", [1024, 3000, 4096])
def test_every_sound_has_the_asked_length_and_the_common_power(length):
    for name, sound in (targets.sound_bank(length) | targets.sound_controls(length)).items():
        assert sound.shape == (1, length) and sound.dtype == torch.float32, name
        assert sound.abs().max() <= 1.0, name
        assert power(sound) == pytest.approx(targets.POWER, abs=0.01), name


def test_longer_sounds_end_in_silence_and_keep_a_common_power():
    powers = []
    for name, sound in (targets.sound_bank(16_384) | targets.sound_controls(16_384)).items():
        assert sound.shape == (1, 16_384) and not sound[:, LENGTH:].any(), name
        powers.append(power(sound[:, :LENGTH]))
    assert min(powers) > targets.POWER - 0.1 and max(powers) < targets.POWER + 0.01


def test_sound_bank_and_controls_are_disjoint_and_all_sounds_differ():
    assert not set(targets.sound_bank()) & set(targets.sound_controls())
    assert len(targets.sound_bank()) >= 16 and len(targets.sound_controls()) >= 11
    assert set(DRUMS) < set(targets.sound_bank())
    for (name, one), (other_name, other) in itertools.combinations(SOUNDS.items(), 2):
        # Two sounds that have nothing in common are twice their power apart, 0.126.
        assert (one - other).square().mean() > 0.07, (name, other_name)


def test_sounds_are_deterministic_and_do_not_click():
    again = targets.sound_bank() | targets.sound_controls()
    for name, sound in SOUNDS.items():
        assert torch.equal(sound, again[name])
        assert sound[0, 0].abs() < 0.1 and sound[0, -1].abs() < 0.02, name
        assert sound.mean().abs() < 0.01, name
    again["alarm"].zero_()
    assert targets.alarm().any(), "what someone writes into a target is not in the next one"


def test_the_alarm_has_two_tones_by_turns():
    parts = targets.alarm()[0].split(1024)
    assert [strongest(part) for part in parts] == pytest.approx([960, 770, 960, 770], abs=8)


def test_sos_is_three_short_three_long_three_short():
    levels = targets.sound_bank()["SOS"][0].abs().unfold(0, 40, 40).amax(1) > 0.2
    runs = [len(list(group)) for heard, group in itertools.groupby(levels.tolist()) if heard]
    assert len(runs) == 9
    assert min(runs[3:6]) > 2 * max(runs[:3] + runs[6:])


def test_a_target_drum_is_still_that_drum():
    def spectra(strokes: list[torch.Tensor]) -> np.ndarray:
        return np.stack([show.spectrogram(stroke / stroke.abs().max())[:, ::4].ravel() for stroke in strokes])

    strokes = [synthesis.drum(name, seed) for seed in range(100, 140) for name in DRUMS]
    classifier = LogisticRegression(max_iter=300).fit(spectra(strokes), list(DRUMS) * 40)
    found = classifier.predict(spectra([targets.drum(name) for name in DRUMS]))
    assert list(found) == list(DRUMS)


def test_a_drum_of_another_seed_is_another_and_too_sparse_ones_stay_quieter():
    assert not torch.equal(targets.drum("hi-hat"), targets.drum("hi-hat", 0))
    quietest = min((targets.drum("hi-hat", seed) for seed in range(10)), key=power)
    assert power(quietest) < targets.POWER - 1.0 and quietest.abs().max() == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match="no drum 'gong'"):
        targets.drum("gong")


@pytest.mark.parametrize("length", [0, -1, 1023, 4096.0, True, None])
def test_absurd_lengths_are_refused(length):
    for make in (targets.alarm, targets.sound_bank, targets.sound_controls, lambda n: targets.drum("kick", 0, n)):
        with pytest.raises(ValueError, match="at least 1,024"):
            make(length)


# --- A recording of yours --------------------------------------------------------------------------------------------


def test_a_recording_is_mixed_resampled_and_brought_to_the_common_power(tmp_path):
    t = np.arange(16_000) / 16_000
    wave = 0.1 * np.sin(2 * np.pi * 440.0 * t)
    soundfile.write(tmp_path / "a.flac", np.stack([wave, wave], 1), 16_000)
    found = targets.recording(tmp_path / "a.flac")
    assert found.shape == (1, 4096) and power(found) == pytest.approx(targets.POWER, abs=0.01)
    assert strongest(found) == pytest.approx(440, abs=3)
    assert targets.recording(tmp_path / "a.flac", 16_384).shape == (1, 16_384)


def test_a_missing_recording_a_folder_a_text_and_silence_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="relative paths start at"):
        targets.recording(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="is a folder"):
        targets.recording(tmp_path)
    (tmp_path / "notes.wav").write_text("not a sound")
    soundfile.write(tmp_path / "mute.wav", np.zeros(4000), 8000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "bad.wav", np.full(4000, np.nan), 8000, subtype="FLOAT")
    for name, told in (
        ("notes", "no readable"), ("mute", "silent"), ("empty", "no samples"), ("bad", "NaN"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name}\.wav cannot be a target: .*{told}"):
            targets.recording(tmp_path / f"{name}.wav")


# --- What fits a generator ---------------------------------------------------------------------------------------------


def makes(*shape: int, modality: str = "image") -> models.Generator:
    return models.Generator(nn.Identity(), nn.Identity(), models.GaussianLatent(4), shape, modality)


@pytest.mark.parametrize(
    ("generator", "usual"),
    [
        (makes(1, 28, 28), targets.devil()),
        (image_generator(), targets.devil(12)),
        (makes(3, 32, 32), targets.stop_sign(32, 3)),
        (makes(3, 64, 64), targets.stop_sign(64, 3)),
        (makes(1, 4096, modality="audio"), targets.alarm()),
        (makes(1, 16_384, modality="audio"), targets.alarm(16_384)),
    ],
)
def test_targets_fit_the_generator(generator, usual):
    assert torch.equal(targets.usual(generator), usual)
    bank, controls = targets.bank_for(generator), targets.controls_for(generator)
    assert any(torch.equal(one, usual) for one in bank.values()) and not set(bank) & set(controls)
    assert all(one.shape == generator.sample_shape for one in (*bank.values(), *controls.values()))
    assert list(targets.controls_for(generator, 3)) == list(controls)[:3]


@pytest.mark.parametrize(
    ("generator", "told"),
    [
        (makes(1, 28, 20), r"square pictures.*\(1, 28, 20\)"),
        (makes(2, 28, 28), "greyscale"),
        (makes(2, 4096, modality="audio"), "one channel"),
        (sound_generator(), "at least 1,024, got 24"),
    ],
)
def test_generators_without_targets_are_told_so(generator, told):
    for choose in (targets.usual, targets.bank_for, targets.controls_for):
        with pytest.raises(ValueError, match=told):
            choose(generator)
