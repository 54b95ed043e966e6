"""WaveGAN for sounds (Donahue, McAuley and Puckette 2019), and the filter at its end through which it is attacked.

A sound is (1, samples) in [-1, 1]. The generator's body ends before the tanh; its head is the tanh and, where there is one, a
post-processing filter, which is inverted to find what the body must put out (paper section on WaveGAN; demo of the authors).
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from devil_lib.games import Wasserstein
from devil_lib.models import Discriminator, Generator, TanhHead, UniformLatent, keep_scale, seeded
from devil_lib.spectra import LogMagnitudes

TAPS = 512  # of the published post-processing filter
_KERNEL, _STRIDE = 25, 4
_SLOPE = 0.2  # of the critic's leaky ReLUs
# Of the generator's. The published network has plain ReLUs; in the light one, of which a shallow training makes most, they were
# measured to die (98 % of the second layer's), and ReD cannot move what is dead.
_GENERATOR_SLOPE = 0.1
_SLICES = 16  # time steps that the dense layer puts out; every layer after it has four times as many


class FilteredTanhHead(nn.Module):
    """tanh, then a filter without bias that keeps the length: what comes out, and what has to go in for a wanted sound.

    Args:
        taps: number of the filter's coefficients.
    """

    def __init__(self, taps: int = TAPS) -> None:
        super().__init__()
        self.taps = taps
        # Padded by hand: an even number of taps needs one more zero on the right than on the left.
        self.filter = nn.Conv1d(1, 1, taps, bias=False)
        with torch.no_grad():  # an untrained filter lets everything pass
            self.filter.weight.zero_()
            self.filter.weight[0, 0, (taps - 1) // 2] = 1.0

    def forward(self, logits: Tensor) -> Tensor:
        return self.filtered(torch.tanh(logits)).clamp(-1.0, 1.0)

    def filtered(self, y: Tensor) -> Tensor:
        """The sounds y (n, 1, samples) behind the filter, as long as before."""
        left = (self.taps - 1) // 2
        return self.filter(functional.pad(y, (left, self.taps - 1 - left)))

    @torch.no_grad()
    def inverse(self, x: Tensor, steps: int = 400) -> Tensor:
        """Logits whose filtered tanh comes as near as possible to the sounds x (n, 1, samples).

        Minimises |filter(y) - x|^2 over y in [-1, 1] by projected gradient steps with momentum (FISTA; Beck and Teboulle
        2009). The problem is convex, so that the error left is the filter's floor and no failure of the search. Then
        atanh(0.999 y), as for every tanh.
        """
        weight = self.filter.weight.detach()
        # The steepest curvature of the squared error: the square of the filter's largest gain at any frequency.
        gain = torch.fft.rfft(weight.flatten().double(), n=8 * max(self.taps, 2)).abs().max().item()
        step = 1.0 / max(gain**2, 1e-12)
        y = x.clamp(-1.0, 1.0)
        ahead, momentum = y.clone(), 1.0
        for _ in range(steps):
            with torch.enable_grad():
                at = ahead.detach().requires_grad_(True)
                error = (self.filtered(at) - x).square().sum() / 2.0
                (slope,) = torch.autograd.grad(error, at)
            new = (ahead - step * slope).clamp(-1.0, 1.0)
            following = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
            ahead = new + (momentum - 1.0) / following * (new - y)
            y, momentum = new, following
        return torch.atanh(0.999 * y)


def with_filter(generator: Generator, taps: Tensor) -> Generator:
    """A copy of a sound generator with a filter (taps,) behind its tanh, as WaveGAN's post-processing is.

    Raises:
        ValueError: no sounds, taps that are not a finite vector, or a head that is no tanh.
    """
    if generator.modality != "audio" or not isinstance(generator.head, TanhHead):
        raise ValueError("a filter goes behind the tanh of a sound generator that has none yet")
    if taps.ndim != 1 or not len(taps) or not torch.isfinite(taps).all():
        raise ValueError(f"taps must be a vector of finite coefficients, got shape {tuple(taps.shape)}")
    filtered = copy.deepcopy(generator)
    filtered.head = FilteredTanhHead(len(taps))
    filtered.architecture = f"{generator.architecture}-filtered"  # another architecture than without
    with torch.no_grad():
        # A convolution layer correlates: turned round, the coefficients are those of the impulse's answer.
        filtered.head.filter.weight.copy_(taps.flip(0)[None, None])
    return filtered.eval()


def low_pass(cutoff: float, taps: int = TAPS, rate: int = 8000) -> Tensor:
    """(taps,) a linear-phase low-pass filter: passes what is below `cutoff` Hz at `rate` samples a second.

    Raises:
        ValueError: cutoff outside (0, rate / 2).
    """
    from scipy.signal import firwin

    if not 0.0 < cutoff < rate / 2:
        raise ValueError(f"cutoff must lie between 0 and {rate / 2:g} Hz, got {cutoff}")
    return torch.from_numpy(firwin(taps, cutoff, fs=rate)).float()


# --- Generators ----------------------------------------------------------------------------------------------------------


def _wavegan(
    channels: list[int], length: int, name: str, head: nn.Module, latent_dim: int, seed: int, slope: float = 0.0
) -> Generator:
    with seeded(seed):
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, channels[0] * _SLICES),
            nn.Unflatten(1, (channels[0], _SLICES)),
        ]
        for inputs, outputs in zip(channels, [*channels[1:], 1], strict=True):
            layers += [
                nn.LeakyReLU(slope) if slope else nn.ReLU(),
                nn.ConvTranspose1d(inputs, outputs, _KERNEL, stride=_STRIDE, padding=11, output_padding=1),
            ]
        for layer in layers[:-1]:
            keep_scale(layer, slope)
        body = nn.Sequential(*layers)
    return Generator(body, head, UniformLatent(latent_dim), (1, length), "audio", name)


def course_wavegan(width: int = 16, latent_dim: int = 100, seed: int = 0) -> Generator:
    """The light WaveGAN of the course: (n, 100) uniform latents to (n, 1, 4096) sounds, half a second at 8 kHz.

    The published layers (kernel 25, stride 4, no normalisation), one fewer of them, an eighth of the channels at each place, and
    leaky ReLUs.
    """
    channels = [8 * width, 4 * width, 2 * width, width]
    return _wavegan(channels, 4096, "course-wavegan", TanhHead(), latent_dim, seed, _GENERATOR_SLOPE)


def published_wavegan(width: int = 64, seed: int = 0) -> Generator:
    """WaveGAN as the paper attacks it: (n, 100) uniform latents to (n, 1, 16384) sounds through a 512-tap filter.

    19,065,857 parameters, the number that the authors' demo prints.
    """
    channels = [16 * width, 8 * width, 4 * width, 2 * width, width]
    return _wavegan(channels, 16384, "published-wavegan", FilteredTanhHead(), 100, seed)


# --- Their critic --------------------------------------------------------------------------------------------------------


class PhaseShuffle(nn.Module):
    """Shifts activations (n, channels, time) of each sample by up to `shift` steps, mirrored at the ends, while training.

    It keeps the critic from judging sounds by the phase of the artefacts that transposed convolutions leave (WaveGAN
    paper, section on phase shuffle).
    """

    def __init__(self, shift: int = 2) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.shift == 0:
            return x
        padded = functional.pad(x, (self.shift, self.shift), mode="reflect")
        starts = torch.randint(0, 2 * self.shift + 1, (len(x), 1), device=x.device)
        places = starts + torch.arange(x.shape[2], device=x.device)
        return padded.gather(2, places[:, None].expand(-1, x.shape[1], -1))


def spectral_critic(width: int = 16, game: Wasserstein | None = None, seed: int = 0) -> Discriminator:
    """A critic that judges the spectrogram of sounds (n, 1, 4096), as an image GAN's discriminator judges a picture.

    WaveGAN's own critic sees the waveform, and takes some 200,000 steps to teach a generator the harmonics of a voice; in
    a spectrogram they are lines.
    """
    with seeded(seed):
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([1, width, 2 * width, 4 * width, 8 * width]):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Flatten(), nn.Linear(8 * width * 8 * 4, 1)]
        for layer in layers[:-1]:
            keep_scale(layer, _SLOPE)
    eyes = LogMagnitudes(256, 64)  # (1, 129, 65)
    return Discriminator(nn.Sequential(*layers), "spectral-critic", game or Wasserstein(), eyes)


def wave_critic(
    width: int = 16, length: int = 4096, shift: int = 2, game: Wasserstein | None = None, seed: int = 0
) -> Discriminator:
    """WaveGAN's critic: sounds (n, 1, length) to one score each, by strided convolutions with phase shuffle.

    `length` is 16 times a power of four: 4,096 gives the course's critic, 16,384 with width 64 the published one.

    Raises:
        ValueError: another length.
    """
    layers_needed = round(math.log(length / _SLICES, _STRIDE)) if length >= _SLICES else 0
    if layers_needed < 1 or _SLICES * _STRIDE**layers_needed != length:
        raise ValueError(f"length must be 16 times a power of four (1,024, 4,096, 16,384 ...), got {length}")
    with seeded(seed):
        layers: list[nn.Module] = []
        inputs, outputs = 1, width
        for place in range(layers_needed):
            layers += [nn.Conv1d(inputs, outputs, _KERNEL, stride=_STRIDE, padding=11), nn.LeakyReLU(_SLOPE)]
            if place < layers_needed - 1:
                layers.append(PhaseShuffle(shift))
            inputs, outputs = outputs, 2 * outputs
        layers += [nn.Flatten(), nn.Linear(inputs * _SLICES, 1)]
        for layer in layers[:-1]:
            keep_scale(layer, _SLOPE)
    return Discriminator(nn.Sequential(*layers), "wave-critic", game or Wasserstein())
