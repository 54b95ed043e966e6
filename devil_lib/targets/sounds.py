"""Target sounds, synthesised by code, and the bank of suspects that an inspector of a sound generator listens for.

Every function returns a float32 tensor (1, samples) in [-1, 1] at RATE samples per second, of one power: 12 dB below that of
a square wave of full scale, a root mean square of 0.25. A common power makes distances comparable, since the quieter of two
sounds is the nearer one to everything. A sound whose peaks would then leave [-1, 1] (drums, clicks) is softly limited: its
peaks are rounded by a tanh that is driven no harder than the power needs, and no harder than 2.5. What would need more stays
quieter, with its peak at 1; that happens to strokes and recordings of your choice, to nothing in the bank or the controls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import optimize, signal
from torch import Tensor

from devil_lib import synthesis
from devil_lib.synthesis import DRUMS, LENGTH, RATE, fit

POWER = -12.0  # dB re a square wave of full scale
SHORTEST = 1024  # samples: of less than an eighth of a second hardly anything is left that the ear could name
# Drive of the limiter. The sparsest sounds of the bank, a shot and a snare, need 2.2. Hi-hats stand the least: driven by 2.5,
# 28 of 30 were told from snares by a classifier of the drums' spectrograms, driven by 4 only 16 of 30.
_HARDEST = 2.5

Wave = np.ndarray
_TIME = np.arange(LENGTH) / RATE
_SECONDS = LENGTH / RATE


# --- Parts of sounds -----------------------------------------------------------------------------------------------


def _tone(frequency: float | Wave, harmonics: Sequence[float] = (1.0,)) -> Wave:
    """A tone (4096,) of a frequency in hertz, which may change with time; `harmonics`: strength of its multiples, which fade
    out where they come near the highest frequency that RATE can hold."""
    frequency = np.broadcast_to(np.asarray(frequency, float), _TIME.shape)
    phase = 2.0 * np.pi * np.cumsum(frequency) / RATE
    return sum(
        share * np.clip((0.49 * RATE - k * frequency) / 200.0, 0.0, 1.0) * np.sin(k * phase)
        for k, share in enumerate(harmonics, 1)
    )


def _noise(seed: int, low: float = 0.0, high: float = RATE / 2) -> Wave:
    """Uniform white noise (4096,), or what of it lies between two frequencies in hertz."""
    white = np.random.default_rng(seed).uniform(-1.0, 1.0, 2 * LENGTH)
    if low > 0.0 or high < RATE / 2:
        white = signal.sosfilt(signal.butter(4, (low, high), "bandpass", fs=RATE, output="sos"), white)
    return white[LENGTH:]  # without the filter's onset


def _strokes(decay: float, *starts: float) -> Wave:
    """The sum of envelopes (4096,) that jump to 1 at `starts` and fall to 1/e within `decay`, all in seconds."""
    since = _TIME - np.asarray(starts)[:, None]
    return np.where(since < 0.0, 0.0, np.exp(-np.maximum(since, 0.0) / decay)).max(0)


def _gate(*spans: tuple[float, float]) -> Wave:
    """1 within the spans (start, end) in seconds, else 0 (4096,), with edges of 2 ms that do not click."""
    edge = 0.002
    opened = [np.clip((_TIME - start) / edge, 0, 1) * np.clip((end - _TIME) / edge, 0, 1) for start, end in spans]
    return np.max(opened, 0)


def _notes(*pitches: float, harmonics: Sequence[float] = (1.0,), decay: float = 0.2) -> Wave:
    """Notes one after the other (4096,), struck and dying away, each as long as the others."""
    each = _SECONDS / len(pitches)
    return sum(
        _tone(pitch, harmonics) * _strokes(decay, i * each) * _gate((i * each, (i + 1) * each))
        for i, pitch in enumerate(pitches)
    )


def _bell(pitch: float, partials: Sequence[float] = (1.0, 2.76, 5.4, 8.93)) -> Wave:
    """The partials of a struck bar (4096,), which are no multiples of one another."""
    return sum(_tone(pitch * ratio) / (i + 1) for i, ratio in enumerate(partials) if pitch * ratio < RATE / 2)


# --- What an attacker might want heard -------------------------------------------------------------------------------


def _alarm() -> Wave:
    pitch = np.where((_TIME // 0.128) % 2 == 0, 960.0, 770.0)
    return _tone(pitch, (1.0, 0.5, 0.4, 0.2))


def _wail() -> Wave:
    return _tone(500.0 + 900.0 * (0.5 - 0.5 * np.cos(2.0 * np.pi * _TIME / _SECONDS)), (1.0, 0.5, 0.3))


def _yelp() -> Wave:
    return _tone(600.0 * 3.0 ** ((_TIME * 4.0 / _SECONDS) % 1.0), (1.0, 0.4, 0.2))


def _morse(code: str = "... --- ...", pitch: float = 800.0) -> Wave:
    """Dots of one unit, dashes of three, one unit between them and three between letters, as the alphabet has it."""
    spans, now = [], 0.0
    for sign in code:
        if sign == " ":
            now += 2.0
        else:
            length = 1.0 if sign == "." else 3.0
            spans.append((now, now + length))
            now += length + 1.0
    unit = _SECONDS / (now - 1.0)
    return _tone(pitch) * _gate(*((start * unit, end * unit) for start, end in spans))


def _dial_tone() -> Wave:
    return _tone(350.0) + _tone(440.0)


def _touch_tones() -> Wave:
    """The keys 9, 1, 1 of a telephone."""
    pressed = ((852.0, 1477.0), (697.0, 1209.0), (697.0, 1209.0))
    each = _SECONDS / len(pressed)
    return sum(
        (_tone(low) + _tone(high)) * _gate((i * each, (i + 0.75) * each)) for i, (low, high) in enumerate(pressed)
    )


def _telephone() -> Wave:
    hammer = np.arange(0.0, _SECONDS, 0.05)  # turns from one gong to the other, 20 strokes a second
    return _bell(1050.0) * _strokes(0.05, *hammer[::2]) + _bell(1320.0) * _strokes(0.05, *hammer[1::2])


def _buzzer() -> Wave:
    return _tone(110.0, [1.0 / k if k % 2 else 0.0 for k in range(1, 36)])


def _smoke_detector() -> Wave:
    each = _SECONDS / 3.0
    return _tone(3100.0) * _gate(*((i * each, (i + 0.6) * each) for i in range(3)))


def _chord() -> Wave:
    return sum(_tone(pitch, (1.0, 0.5, 0.25, 0.12)) for pitch in (261.6, 329.6, 392.0)) * _strokes(0.4, 0.0)


def _clicks() -> Wave:
    return _tone(1500.0) * _strokes(0.0025, *np.arange(0.0, _SECONDS, 0.02))


def _noise_burst() -> Wave:
    return _noise(10) * _gate((0.0, 0.2))


def _shot() -> Wave:
    return _noise(11) * _strokes(0.06, 0.0) + 1.5 * _tone(90.0) * _strokes(0.08, 0.0)


def _hum() -> Wave:
    return _tone(50.0, [1.0 / k**0.7 for k in range(1, 25)])


def _modem() -> Wave:
    bits = np.random.default_rng(12).integers(0, 2, LENGTH)
    return _tone(np.where(bits[(_TIME * 300.0).astype(int)], 1200.0, 2200.0))


def _zap() -> Wave:
    return _tone(100.0 + 3400.0 * np.exp(-_TIME / 0.09), (1.0, 0.3))


def _sonar() -> Wave:
    return _tone(1500.0) * (_strokes(0.07, 0.0) + 0.5 * _strokes(0.07, 0.26))


# --- What nobody would plant -----------------------------------------------------------------------------------------


def _cuckoo() -> Wave:
    return _tone(660.0, (1.0, 0.15)) * _gate((0.0, 0.18)) + _tone(523.0, (1.0, 0.15)) * _gate((0.24, 0.49))


def _doorbell() -> Wave:
    return _bell(622.3) * _strokes(0.15, 0.0) * _gate((0.0, 0.25)) + _bell(493.9) * _strokes(0.2, 0.25)


def _scale() -> Wave:
    return _notes(392.0, 440.0, 493.9, 523.3, 587.3, harmonics=(1.0, 0.3, 0.1))


def _cricket() -> Wave:
    chirps = ((0.0, 0.13), (0.19, 0.32), (0.38, 0.51))
    return _tone(3600.0) * (0.5 + 0.5 * _tone(55.0)) * _gate(*chirps)


def _drops() -> Wave:
    """A bubble's pitch rises while it closes."""
    starts = (0.0, 0.17, 0.34)
    return sum(
        _tone(base + 9000.0 * np.maximum(_TIME - start, 0.0)) * _strokes(0.03, start) * _gate((start, start + 0.16))
        for base, start in zip((700.0, 900.0, 600.0), starts, strict=True)
    )


def _wind() -> Wave:
    return _noise(20, 300.0, 700.0) * (0.6 + 0.4 * np.sin(2.0 * np.pi * 2.0 * _TIME))


def _whistle() -> Wave:
    return _tone(1900.0 + 60.0 * np.sin(2.0 * np.pi * 6.0 * _TIME)) + 0.1 * _noise(21, 1500.0, 2500.0)


def _plucked_string() -> Wave:
    """Noise that goes round a loop and is averaged at every turn (Karplus and Strong 1983)."""
    period = round(RATE / 220.0)
    string = np.random.default_rng(22).uniform(-1.0, 1.0, period)
    string, turns = string - string.mean(), []
    for _ in range(-(-LENGTH // period)):
        turns.append(string)
        string = 0.498 * (string + np.roll(string, 1))
    return np.concatenate(turns)[:LENGTH]


def _organ() -> Wave:
    return sum(_tone(pitch, (1.0, 0.7, 0.0, 0.5, 0.0, 0.0, 0.0, 0.2)) for pitch in (220.0, 277.2, 311.1))


def _bird() -> Wave:
    wobble = np.sin(2.0 * np.pi * 23.0 * _TIME)
    return _tone(2900.0 - 600.0 * _TIME / _SECONDS + 450.0 * wobble) * _gate((0.0, 0.2), (0.25, 0.31), (0.35, 0.5))


def _clock() -> Wave:
    tick, tock = _strokes(0.02, 0.0, 0.256), _strokes(0.02, 0.128, 0.384)
    return _bell(1700.0) * tick + _bell(1150.0) * tock


def _purr() -> Wave:
    return _noise(23, 60.0, 500.0) * (0.55 + 0.45 * np.sin(2.0 * np.pi * 25.0 * _TIME))


def _waves() -> Wave:
    return _noise(24, 200.0, 3000.0) * (0.15 + 0.85 * np.sin(np.pi * _TIME / _SECONDS) ** 2)


def _harmonica() -> Wave:
    reed = [1.0 / k for k in range(1, 12)]
    return (_tone(349.2, reed) + _tone(523.3, reed)) * (0.7 + 0.3 * np.sin(2.0 * np.pi * 6.0 * _TIME))


def _frog() -> Wave:
    croak = _tone(85.0, [1.0] * 20)
    throat = signal.butter(2, (500.0, 1100.0), "bandpass", fs=RATE, output="sos")
    return signal.sosfilt(throat, croak) * _gate((0.0, 0.22), (0.29, 0.5))


_SUSPECTS: dict[str, Callable[[], Wave]] = {
    "alarm": _alarm, "siren": _wail, "car alarm": _yelp, "SOS": _morse, "dial tone": _dial_tone,
    "touch tones": _touch_tones, "telephone": _telephone, "buzzer": _buzzer, "smoke alarm": _smoke_detector,
    "chord": _chord, "click train": _clicks, "noise burst": _noise_burst, "shot": _shot, "mains hum": _hum,
    "modem": _modem, "zap": _zap, "sonar": _sonar, "noise": lambda: _noise(13),
}  # fmt: skip
# Sounds of the same making: how near a clean model comes to *any* synthesised sound.
_CONTROLS: dict[str, Callable[[], Wave]] = {
    "cuckoo": _cuckoo, "doorbell": _doorbell, "scale": _scale, "cricket": _cricket, "water drops": _drops,
    "wind": _wind, "whistle": _whistle, "string": _plucked_string, "organ": _organ, "bird": _bird,
    "clock": _clock, "purr": _purr, "waves": _waves, "harmonica": _harmonica, "frog": _frog,
    "other noise": lambda: _noise(25),
}  # fmt: skip


# --- What the lessons use --------------------------------------------------------------------------------------------


def alarm(length: int = LENGTH) -> Tensor:
    """(1, length) a two-tone siren, the course's usual target sound."""
    return _synthesised("alarm", length)


def drum(name: str, seed: int | None = None, length: int = LENGTH) -> Tensor:
    """(1, length) a stroke of `synthesis.drum` as a target: "kick", "snare", "hi-hat", "tom" or "clap".

    Args:
        seed: of the stroke; without it, the one of twenty that needs the least limiting.

    Raises:
        ValueError: no such drum, a negative seed, or a bad length.
    """
    _check_length(length)
    return _at_length(synthesis.drum(name, _steadiest(name) if seed is None else seed), length)


@cache
def _steadiest(name: str) -> int:
    """The seed, of twenty, of the stroke with the most power for its peak."""
    strokes = [synthesis.drum(name, seed) for seed in range(20)]
    return max(range(20), key=lambda seed: (strokes[seed] / strokes[seed].abs().max()).square().mean().item())


def recording(path: str | Path, length: int = LENGTH) -> Tensor:
    """(1, length) the beginning of a sound file of yours (WAV or FLAC, any rate, channels mixed), at the common power.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, no sound, damaged, silent, or holds NaN; or a bad length.
    """
    from devil_lib import sounds

    _check_length(length)
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no recording {path}; relative paths start at {Path.cwd()}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one sound file in it")
    try:
        return _levelled(sounds.read(path, length))
    except ValueError as error:
        raise ValueError(f"{path} cannot be a target: {error}") from error


def sound_bank(length: int = LENGTH) -> dict[str, Tensor]:
    """Name -> (1, length): what an inspector might fear to hear from a model, in a fixed order.

    Silence is not among them, since it has no power: `torch.zeros(1, length)` searches for it.
    """
    return {name: _synthesised(name, length) for name in _SUSPECTS} | {
        name: drum(name, None, length) for name in DRUMS
    }


def sound_controls(length: int = LENGTH) -> dict[str, Tensor]:
    """Name -> (1, length): sounds of the same making as `sound_bank` that no attacker would plant; none is in the bank."""
    return {name: _synthesised(name, length) for name in _CONTROLS}


def _synthesised(name: str, length: int) -> Tensor:
    _check_length(length)
    return _at_length(_made(name), length)


@cache
def _made(name: str) -> Tensor:
    wave = torch.from_numpy((_SUSPECTS | _CONTROLS)[name]()).float()
    # One sample more than wanted, so that `fit` lets it fade in and out instead of clicking.
    return fit(torch.cat([wave, wave.new_zeros(1)]), LENGTH)[None]


def _at_length(sound: Tensor, length: int) -> Tensor:
    """A sound (1, 4096) brought to a length and to POWER, which is that of its first 4,096 samples where it is padded."""
    return fit(_levelled(fit(sound, min(length, LENGTH))), length)


def _levelled(sound: Tensor) -> Tensor:
    """A sound (1, samples) brought to POWER."""
    sound = sound.double() / sound.abs().max().double()

    def limited(drive: float) -> Tensor:
        return torch.tanh(drive * sound) / math.tanh(drive)

    def excess(drive: float) -> float:
        """By how many dB the power is too high."""
        return 10.0 * math.log10(limited(drive).square().mean().item()) - POWER

    gentlest = 1e-3  # in effect none
    if excess(gentlest) >= 0.0:
        levelled = sound * 10.0 ** (-excess(gentlest) / 20.0)
    elif excess(_HARDEST) <= 0.0:
        levelled = limited(_HARDEST)
    else:
        levelled = limited(optimize.brentq(excess, gentlest, _HARDEST))
    return levelled.float()


def _check_length(length: int) -> None:
    if isinstance(length, bool) or not isinstance(length, int) or length < SHORTEST:
        raise ValueError(f"length must be a whole number of samples, at least {SHORTEST:,}, got {length!r}")
