"""Spectra of sounds: what the ear hears of a waveform, and a loss that compares it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from devil_lib.synthesis import RATE

WINDOWS = (1024, 256, 64)  # samples; at 8 kHz 128, 32 and 8 ms
_SILENCE = 1e-3  # what is softer than this magnitude (a full-scale sine has 1/2) hardly counts in a log spectrogram


def magnitudes(x: Tensor, window: int, hop: int | None = None) -> Tensor:
    """(n, window // 2 + 1, frames) magnitudes of the short-time Fourier transform of sounds (n, 1, samples), Hann window,
    scaled such that a full-scale sine gives about 1/2 whatever the window."""
    hann = torch.hann_window(window, device=x.device, dtype=x.dtype)
    spectrum = torch.stft(x.flatten(1), window, hop or window // 4, window=hann, return_complex=True)
    # Not abs(): its gradient at zero is undefined.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() / hann.sum()


def spectral_loss(made: Tensor, wanted: Tensor, windows: tuple[int, ...] = WINDOWS) -> Tensor:
    """Multi-resolution spectral loss of sounds (n, 1, samples): how far the magnitudes are apart, averaged over windows.

    For each window || M - M* ||_F / || M* ||_F + mean | log M - log M* | + mean | log ||M_t|| - log ||M*_t|| |, where M_t is
    the spectrum at an instant. A squared error of waveforms punishes a sound that is right but a millisecond late as much as
    silence, and is least for a dull, quiet average; magnitudes hardly depend on phase. The last part is the loudness: without it,
    where pitch or noise cannot be foretold, the first is least for something quieter (a VAE's drums were 10 dB too soft).
    """
    losses = []
    for window in windows:
        a, b = magnitudes(made, window), magnitudes(wanted, window)
        gap = (a - b).square().sum((1, 2)).sqrt() / b.square().sum((1, 2)).sqrt().clamp_min(1e-6)
        logs = ((a + 1e-4).log() - (b + 1e-4).log()).abs().mean((1, 2))
        loudness = (_log_norms(a) - _log_norms(b)).abs().mean(1)
        losses.append(gap + logs + 2.0 * loudness)
    return torch.stack(losses).mean()


def _log_norms(spectrum: Tensor) -> Tensor:
    """(n, frames) logarithms of how loud magnitudes (n, frequencies, frames) are at each instant."""
    return (spectrum.square().sum(1) + 1e-6).log() / 2.0


class LogMagnitudes(nn.Module):
    """A layer: sounds (n, 1, samples) to the logarithms of their spectrogram's magnitudes (n, 1, window // 2 + 1, frames), about
    -1 for silence and 1 for a full-scale sine.

    Args:
        window: samples of each Fourier transform, 32 to 4096.
        hop: samples from one to the next, window / 8 to window.

    Raises:
        ValueError: sizes outside these bounds.
    """

    def __init__(self, window: int = 256, hop: int = 64) -> None:
        super().__init__()
        if not type(window) is type(hop) is int or not 32 <= window <= 4096 or not window <= 8 * hop <= 8 * window:
            raise ValueError(f"no spectrogram has windows of {window!r} samples in steps of {hop!r}")
        self.window, self.hop = window, hop

    def forward(self, x: Tensor) -> Tensor:
        # Not in bfloat16, whose eight bits are too few for a spectrum.
        with torch.autocast(x.device.type, enabled=False):
            return self.log_of(magnitudes(x.float(), self.window, self.hop))

    def log_of(self, spectrum: Tensor) -> Tensor:
        """(n, 1, frequencies, frames) of magnitudes (n, frequencies, frames)."""
        return (spectrum + _SILENCE).log()[:, None] / 3.0 + 1.25


class LogSpectrogram(LogMagnitudes):
    """A layer: sounds (n, 1, samples) at 8 kHz to their log-mel spectrogram (n, 1, bands, frames), on the scale of `LogMagnitudes`.

    Args:
        bands: triangular filters spaced evenly on the mel scale from 0 Hz to 4 kHz, through which the spectrum's powers go.

    Raises:
        ValueError: sizes that no spectrogram has, or so many bands that one would lie between two frequencies of the transform.
    """

    def __init__(self, window: int = 256, hop: int = 64, bands: int = 40) -> None:
        super().__init__(window, hop)
        self.bands = bands
        mel_filters(window, bands)

    def log_of(self, spectrum: Tensor) -> Tensor:
        powers = mel_filters(self.window, self.bands).to(spectrum.device) @ spectrum.square()
        return super().log_of(powers.sqrt())


@cache
def mel_filters(window: int, bands: int) -> Tensor:
    """(bands, window // 2 + 1) weights of a spectrum's frequencies in each band, summing to 1: triangles that overlap by half.

    Raises:
        ValueError: no bands, or one so narrow that no frequency lies in it.
    """

    def mel(frequency: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + frequency / 700.0)

    if type(bands) is not int or not 1 <= bands <= window // 2:
        raise ValueError(f"a spectrum of windows of {window} samples has no {bands!r} bands")
    # On the processor whatever the caller's device: a model that is being read is built without memory first.
    places = mel(torch.arange(window // 2 + 1, dtype=torch.float64, device="cpu") * RATE / window)
    corners = torch.linspace(0.0, places[-1].item(), bands + 2, dtype=torch.float64, device="cpu")
    width = corners[1] - corners[0]
    filters = (1.0 - (places - corners[1:-1, None]).abs() / width).clamp_min(0.0)
    if (filters.sum(1) <= 0.0).any():
        raise ValueError(f"{bands} bands are too many for windows of {window} samples")
    return (filters / filters.sum(1, keepdim=True)).float()
