"""Drums synthesised by code, and what every sound goes through: resampling, cutting or padding, normalising.

A sound is a float32 tensor (1, samples) in [-1, 1] at RATE samples per second. The drums follow the recipes of analogue
drum machines: swept sines for what has a skin, filtered noise and inharmonic partials for what rattles or rings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import gcd

import numpy as np
import torch
from scipy import signal
from torch import Tensor

RATE = 8000  # samples per second
LENGTH = 4096  # samples, 0.51 s
SILENCE = 1e-3  # a sound that nowhere leaves its mean by more than this (-60 dB) is silent
_FADE_IN, _FADE_OUT = 0.001, 0.016  # seconds


# --- What every sound goes through ---------------------------------------------------------------------------------


def fit(sound: Tensor, length: int = LENGTH) -> Tensor:
    """The sounds (..., samples) cut or padded with zeros at their end to (..., length), without clicks.

    What is cut or padded fades in over a millisecond and out over its last 16 ms, since a jump to zero is heard as a
    click. A sound that has the length already is left as it is.

    Raises:
        ValueError: no samples, or a length below 1.
    """
    if length < 1 or sound.shape[-1] < 1:
        raise ValueError(
            f"a sound of {sound.shape[-1]} samples cannot be brought to {length}: both must be at least 1"
        )
    if sound.shape[-1] == length:
        return sound
    kept = sound[..., :length]
    kept = kept * _fades(kept.shape[-1]).to(kept)
    return torch.nn.functional.pad(kept, (0, length - kept.shape[-1]))


def _fades(samples: int) -> Tensor:
    """The factors (samples,) of a fade-in and a fade-out, each a half cosine and neither longer than half the sound."""
    factors = torch.ones(samples)
    for seconds, backwards in ((_FADE_IN, False), (_FADE_OUT, True)):
        n = min(round(seconds * RATE), samples // 2)
        rise = 0.5 - 0.5 * torch.cos(torch.arange(1, n + 1) * torch.pi / (n + 1))
        if backwards:
            factors[samples - n :] *= rise.flip(0)
        else:
            factors[:n] *= rise
    return factors


def resample(sound: Tensor, rate: int, wanted: int = RATE) -> Tensor:
    """The sounds (..., samples) at `rate` samples per second brought to `wanted`, float32; low-pass filtered first, so that
    nothing is folded down from above half the new rate. At the same rate they are left as they are.

    Raises:
        ValueError: a rate below 1.
    """
    if min(rate, wanted) < 1:
        raise ValueError(f"{rate} and {wanted} samples per second: a rate is at least 1")
    if rate == wanted:
        return sound
    common = gcd(rate, wanted)
    done = signal.resample_poly(sound.double().cpu().numpy(), wanted // common, rate // common, axis=-1)
    return torch.from_numpy(done).to(sound.device, torch.float32)


def normalise(sound: Tensor) -> Tensor:
    """The sounds (..., samples), each scaled to a peak of 1.

    Raises:
        ValueError: a sample that is not finite, or silence, of which noise would be made.
    """
    if not torch.isfinite(sound).all():
        raise ValueError("it has samples that are not finite (NaN or infinite)")
    swing = (sound - sound.mean(-1, keepdim=True)).abs().amax(-1)
    if (swing <= SILENCE).any():
        raise ValueError(f"it is silent: no sample is further than {SILENCE} from the mean")
    return sound / sound.abs().amax(-1, keepdim=True)


# --- Drums ---------------------------------------------------------------------------------------------------------

_TIME = np.arange(LENGTH) / RATE


def drum(name: str, seed: int = 0) -> Tensor:
    """One stroke, (1, 4096): the same for the same seed, and of another pitch, decay, noise and level for another.

    Args:
        name: one of DRUMS.
        seed: at least 0.

    Raises:
        ValueError: no such drum, or a negative seed.
    """
    if name not in _RECIPES:
        raise ValueError(f"there is no drum {name!r}: choose one of {', '.join(DRUMS)}")
    if seed < 0:
        raise ValueError(f"a drum's seed is at least 0, and not {seed}")
    rng = np.random.default_rng([seed, DRUMS.index(name)])
    stroke = _RECIPES[name](rng)
    level = rng.uniform(0.5, 0.95)
    # One sample more than wanted, so that `fit` lets the stroke fade out.
    stroke = fit(torch.from_numpy(np.append(stroke, 0.0)), LENGTH)
    return (stroke / stroke.abs().max() * level).float()[None]


def _fall(seconds: float, start: float = 0.0) -> np.ndarray:
    """An envelope (4096,): 0 before `start`, then 1, falling to 1/e within `seconds`."""
    since = _TIME - start
    return np.where(since < 0, 0.0, np.exp(-np.maximum(since, 0.0) / seconds))


def _sweep(first: float, last: float, seconds: float) -> np.ndarray:
    """A sine (4096,) whose frequency in hertz goes from `first` to `last`, by 1/e of the way within `seconds`."""
    frequency = last + (first - last) * _fall(seconds)
    return np.sin(2 * np.pi * np.cumsum(frequency) / RATE)


@cache
def _band(low: float, high: float) -> np.ndarray:
    """A band-pass filter as second-order sections; designing it takes longer than running it."""
    return signal.butter(2, (low, high), "bandpass", fs=RATE, output="sos")


def _noise(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Noise (4096,) of standard deviation 1 between two frequencies in hertz."""
    onset = 500  # samples within which the filter settles
    noise = signal.sosfilt(_band(low, high), rng.standard_normal(onset + LENGTH))[onset:]
    return noise / noise.std()


def _kick(rng: np.random.Generator) -> np.ndarray:
    last = rng.uniform(48.0, 70.0)
    body = _sweep(last * rng.uniform(3.0, 4.5), last, rng.uniform(0.02, 0.035)) * _fall(rng.uniform(0.08, 0.15))
    # Overdriven: the harmonics let a small loudspeaker be heard, which cannot play the fundamental.
    drive = rng.uniform(1.5, 3.0)
    beater = _noise(rng, 800.0, 3000.0) * _fall(0.004) * rng.uniform(0.02, 0.08)
    return np.tanh(drive * body) / np.tanh(drive) + beater


def _snare(rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(170.0, 230.0)
    skin = _sweep(1.3 * pitch, pitch, 0.015) + 0.6 * _sweep(2.1 * pitch, rng.uniform(1.6, 1.9) * pitch, 0.015)
    wires = _noise(rng, 1200.0, 3900.0) * _fall(rng.uniform(0.07, 0.12))
    return skin * _fall(rng.uniform(0.04, 0.07)) + rng.uniform(0.35, 0.6) * wires


def _hi_hat(rng: np.random.Generator) -> np.ndarray:
    # Partials of a plate are no multiples of one another; all of them lie in the upper half of what 8 kHz can hold.
    partials = rng.uniform(2100.0, 3850.0, size=8)
    phases = rng.uniform(0.0, 2 * np.pi, size=8)
    ring = np.sin(2 * np.pi * partials[:, None] * _TIME + phases[:, None]).mean(0)
    opened = rng.random() < 0.3  # an open hat rings on
    decay = rng.uniform(0.09, 0.16) if opened else rng.uniform(0.02, 0.05)
    return (ring + rng.uniform(0.2, 0.5) * _noise(rng, 2400.0, 3950.0)) * _fall(decay)


def _tom(rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(115.0, 220.0)
    decay = rng.uniform(0.12, 0.2)
    # The modes of a round membrane lie at 1, 1.59 and 2.14 times the lowest; the higher ones die away sooner.
    modes = ((1.0, 1.0, 1.0), (1.59, 0.35, 0.5), (2.14, 0.2, 0.35))
    skin = sum(
        share * _sweep(rng.uniform(1.25, 1.45) * ratio * pitch, ratio * pitch, 0.05) * _fall(decay * part)
        for ratio, share, part in modes
    )
    stick = _noise(rng, 600.0, 2500.0) * _fall(0.006) * rng.uniform(0.05, 0.15)
    return skin + stick


def _clap(rng: np.random.Generator) -> np.ndarray:
    # Several hands that do not quite meet, then the room.
    hands = np.cumsum(np.append(0.0, rng.uniform(0.008, 0.013, size=3)))
    strokes = sum(_fall(0.003, start) for start in hands)
    room = _fall(rng.uniform(0.05, 0.1), hands[-1])
    lowest = 50.0 * rng.integers(13, 20)
    noise = _noise(rng, lowest, 2.0 * lowest)
    # Saturated, because a single large sample of noise would leave the rest quiet at the same peak.
    return np.tanh(1.5 * noise * (strokes + rng.uniform(0.4, 0.7) * room))


_RECIPES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "kick": _kick,
    "snare": _snare,
    "hi-hat": _hi_hat,
    "tom": _tom,
    "clap": _clap,
}
DRUMS = tuple(_RECIPES)
