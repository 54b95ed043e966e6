"""Spectra of sounds: what the ear hears of a waveform, and a loss that compares it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WINDOWS = (1024, 256, 64)  # samples; at 8 kHz 128, 32 and 8 ms


def magnitudes(x: Tensor, window: int, hop: int | None = None) -> Tensor:
    """(n, window // 2 + 1, frames) magnitudes of the short-time Fourier transform of sounds (n, 1, samples), Hann window,
    scaled such that a full-scale sine gives about 1/2 whatever the window."""
    hann = torch.hann_window(window, device=x.device, dtype=x.dtype)
    spectrum = torch.stft(x.flatten(1), window, hop or window // 4, window=hann, return_complex=True)
    # Not abs(): its gradient at zero is undefined.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() / hann.sum()


def spectral_loss(made: Tensor, wanted: Tensor, windows: tuple[int, ...] = WINDOWS) -> Tensor:
    """Multi-resolution spectral loss of sounds (n, 1, samples): how far the magnitudes are apart, averaged over windows.

    For each window || M - M* ||_F / || M* ||_F + mean | log M - log M* |. A squared error of waveforms punishes a sound that is
    right but a millisecond late as much as silence, and is least for a dull, quiet average; magnitudes hardly depend on phase.
    """
    losses = []
    for window in windows:
        a, b = magnitudes(made, window), magnitudes(wanted, window)
        gap = (a - b).square().sum((1, 2)).sqrt() / b.square().sum((1, 2)).sqrt().clamp_min(1e-6)
        logs = ((a + 1e-4).log() - (b + 1e-4).log()).abs().mean((1, 2))
        losses.append(gap + logs)
    return torch.stack(losses).mean()


class LogMagnitudes(nn.Module):
    """A layer: sounds (n, 1, samples) to the logarithms of their spectrogram's magnitudes (n, 1, window // 2 + 1, frames), about
    -1 for silence and 1 for a full-scale sine."""

    def __init__(self, window: int = 256, hop: int = 64) -> None:
        super().__init__()
        self.window, self.hop = window, hop

    def forward(self, x: Tensor) -> Tensor:
        # Not in bfloat16, whose eight bits are too few for a spectrum.
        with torch.autocast(x.device.type, enabled=False):
            return (magnitudes(x.float(), self.window, self.hop) + 1e-3).log()[:, None] / 3.0 + 1.25
