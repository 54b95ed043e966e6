"""Sounds on the page: a player, the waveform, the spectrogram, and a sentence on what is heard.

Players hold their sound as 16-bit WAV data, so that a page needs neither a file beside it nor a network. They play a sound as
loud as it is: silence stays silent, and of two models the one whose samples are quieter is heard to be so.
"""

from __future__ import annotations

import base64
import html
import io
import math
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib.models import check_samples
from devil_lib.show.core import BENIGN, card, cell, check_words, in_style, picture, put_on_page, row
from devil_lib.synthesis import RATE

LONGEST = 2.0  # seconds of a clip
MOST = 8  # clips of a card
LARGEST = 300_000  # bytes of all sounds of a card, before base64 makes a third more of them
FLOOR = -80.0  # dB re a sine of full scale: what is quieter is drawn as nothing
_RATES = (3000, 96_000)  # samples per second that browsers play
_PEAK = 0.95


# --- What is drawn ---------------------------------------------------------------------------------------------------


def spectrogram(x: Tensor) -> np.ndarray:
    """Frequencies times instants of a sound (samples,) or (1, samples), in dB re a sine of full scale, from FLOOR to 0.

    Row 0 is 0 Hz, the last one half the rate; column 0 lies at the first sample, the last one at the end. The window is about
    a sixteenth of the sound, 32 ms for the course's 4,096 samples at 8 kHz.
    """
    sound = x.detach().double().cpu().flatten()
    size = 2 ** max(3, min(9, round(math.log2(len(sound) / 16))))
    window = torch.hann_window(size, dtype=torch.float64)
    spectrum = torch.stft(
        sound, size, max(1, size // 4), window=window, pad_mode="constant", return_complex=True
    ).abs() * (2.0 / window.sum())
    return (20.0 * torch.log10(spectrum.clamp_min(1e-9))).clamp(FLOOR, 0.0).numpy()


def envelope(x: Tensor, bins: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value (bins,) of a sound (samples,) or (1, samples) in each of equal parts of it."""
    parts = np.array_split(x.detach().cpu().flatten().numpy(), min(bins, x.numel()))
    return np.array([part.min() for part in parts]), np.array([part.max() for part in parts])


@in_style
def draw_sound(x: Tensor, rate: int = RATE, normalise: bool = False, width: float = 6.4) -> Figure:
    """The waveform above the spectrogram, over the same seconds.

    Args:
        x: (samples,) or (1, samples) in [-1, 1], at most two seconds.
        rate: samples per second.
        normalise: scale it to a peak of 0.95.
        width: of the figure, in inches.

    Raises:
        ValueError: another shape, values that are NaN or leave [-1, 1], a clip that is too long, a rate that is not played.
    """
    sound = _clip(x, rate, normalise)
    seconds, narrow = len(sound) / rate, width < 5.0
    fig = Figure(figsize=(width, 2.6 if narrow else 3.3), layout="constrained")
    above, below = fig.subplots(2, sharex=True, height_ratios=(1, 1.8))
    low, high = envelope(sound, 600)
    above.fill_between(np.linspace(0.0, seconds, len(low)), low, high, color=BENIGN, linewidth=0.6)
    above.set(ylim=(-1.0, 1.0), yticks=[-1, 0, 1])
    levels = spectrogram(sound)
    half = seconds / (levels.shape[1] - 1) / 2.0  # of a column, which is centred at its instant
    extent = (-half, seconds + half, 0.0, rate / 2000.0)
    mesh = below.imshow(levels, origin="lower", aspect="auto", extent=extent, vmin=FLOOR, vmax=0.0)
    below.set(xlim=(0.0, seconds), xlabel="time (s)", ylabel="kHz" if narrow else "frequency (kHz)")
    below.grid(False)
    if not narrow:
        above.set_ylabel("amplitude")
        fig.colorbar(mesh, ax=[above, below], label="level (dB)", shrink=0.6, anchor=(0.0, 0.0))
    return fig


def _clip(x: Tensor, rate: int, normalise: bool) -> Tensor:
    """A sound as (samples,), checked; see `draw_sound`."""
    x = torch.as_tensor(x).detach().float().cpu()
    if not (x.ndim == 1 or (x.ndim == 2 and len(x) == 1)) or x.numel() < 16:
        raise ValueError(
            f"a sound must have shape (samples,) or (1, samples), and at least 16 samples; got {tuple(x.shape)}. "
            "For several sounds use show.sounds with a name for each"
        )
    if isinstance(rate, bool) or not isinstance(rate, int) or not _RATES[0] <= rate <= _RATES[1]:
        raise ValueError(
            f"rate must be a whole number of samples per second from {_RATES[0]:,} to {_RATES[1]:,}, got {rate!r}"
        )
    check_samples(x[None], tuple(x.shape))
    x = x.flatten().clamp(-1.0, 1.0)
    if len(x) > LONGEST * rate:
        raise ValueError(
            f"a clip of {len(x) / rate:.1f} s is too long for a notebook that should stay small: show at most "
            f"{LONGEST:g} s of it, x[..., :{int(LONGEST * rate)}]"
        )
    return x * (_PEAK / x.abs().max()) if normalise and x.abs().max() > 0 else x


# --- What is played --------------------------------------------------------------------------------------------------


def wav(sound: Tensor, rate: int = RATE) -> bytes:
    """A sound (samples,) or (1, samples) in [-1, 1] as a 16-bit WAV file of one channel."""
    values = (sound.detach().cpu().flatten().clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16).numpy()
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.astype("<i2").tobytes())
    return stream.getvalue()


def players_html(clips: Mapping[str, Tensor], rate: int = RATE, normalise: bool = False) -> str:
    """The HTML of labelled players side by side: name -> (samples,) or (1, samples).

    Raises:
        ValueError: none or more than eight of them, more than 300,000 bytes together, or as `draw_sound` does.
    """
    return row(
        f'<div style="flex:1 1 150px;max-width:300px;font-size:.9em">{html.escape(name)}{player}</div>'
        for name, player in _players(clips, rate, normalise).items()
    )


def _players(clips: Mapping[str, Tensor], rate: int, normalise: bool) -> dict[str, str]:
    if not 1 <= len(clips) <= MOST:
        raise ValueError(f"a card holds 1 to {MOST} sounds, got {len(clips)}: show some of them, or several cards")
    files = {name: wav(_clip(x, rate, normalise), rate) for name, x in clips.items()}
    size = sum(map(len, files.values()))
    if size > LARGEST:
        raise ValueError(
            f"{len(files)} sounds of {size:,} bytes together are too much for a notebook that should stay small: at most "
            f"{LARGEST:,}. Show fewer or shorter ones, or resample them to {RATE:,} samples per second"
        )
    return {name: _player(file, name) for name, file in files.items()}


def _player(file: bytes, name: str) -> str:
    return (
        f'<audio controls preload="auto" aria-label="{html.escape(f"Player: {name}")}" '
        f'src="data:audio/wav;base64,{base64.b64encode(file).decode()}" style="display:block;width:100%;height:36px">'
        "This browser plays no sound.</audio>"
    )


# --- Both, with words ------------------------------------------------------------------------------------------------


def sound_html(x: Tensor, alt: str, caption: str, heard: str, rate: int = RATE, normalise: bool = False) -> str:
    """The HTML of one sound; see `sound`."""
    check_words(alt, caption)
    _check_heard(heard)
    (player,) = _players({heard: x}, rate, normalise).values()
    fig = draw_sound(x, rate, normalise)
    return card(picture(fig, alt) + player + _heard(heard, normalise), caption, fig.get_figwidth())


def sounds_html(
    clips: Mapping[str, Tensor], alt: str, caption: str, heard: str | Mapping[str, str],
    rate: int = RATE, normalise: bool = False,
) -> str:  # fmt: skip
    """The HTML of several sounds side by side; see `sounds`."""
    check_words(alt, caption)
    each = dict(heard) if isinstance(heard, Mapping) else {}
    if each and each.keys() != clips.keys():
        raise ValueError(
            f"say what is heard for each of {', '.join(clips)}, or one sentence for all; got {', '.join(each)}"
        )
    for words in each.values() if each else (heard,):
        _check_heard(words)
    cells = []
    for name, player in _players(clips, rate, normalise).items():
        fig = draw_sound(clips[name], rate, normalise, width=2.9)
        words = f"Waveform and spectrogram of {name}: {_measured(_clip(clips[name], rate, normalise), rate)}"
        content = picture(fig, words) + player + (_heard(each[name], False) if each else "")
        cells.append(cell(name, fig, content))
    group = row(cells, f'role="group" aria-label="{html.escape(alt)}"')
    beneath = (_heard(heard, False) if not each else "") + (_SCALED if normalise else "")
    return card(group + beneath, caption, 9.4)


_SCALED = '<p style="margin:6px 0 0">Each clip is scaled to the same peak: loudness cannot be compared.</p>'


def _heard(words: str, normalise: bool) -> str:
    return f'<p style="margin:6px 0 0"><strong>Heard:</strong> {html.escape(words)}</p>{_SCALED if normalise else ""}'


def _check_heard(words: Any) -> None:
    if not isinstance(words, str) or len(set(words.lower().split())) < 3:
        raise ValueError(
            f"heard={words!r} says too little: write in at least 3 different words what is heard, for a reader who cannot "
            "hear it or has the loudspeaker off"
        )


def _measured(sound: Tensor, rate: int) -> str:
    """What can be said of a sound (samples,) without hearing it."""
    if sound.abs().max() == 0:
        return f"{len(sound) / rate:.2f} s of silence."
    power = 10.0 * math.log10(sound.double().square().mean().item())
    strongest = spectrogram(sound)
    frequency = np.linspace(0.0, rate / 2.0, len(strongest))[(10.0 ** (strongest / 10.0)).mean(1).argmax()]
    return (
        f"{len(sound) / rate:.2f} s, peak {sound.abs().max().item():.2f}, power {power:.0f} dB of full scale, strongest near "
        f"{frequency:,.0f} Hz."
    )


def sound(x: Tensor, *, alt: str, caption: str, heard: str, rate: int = RATE, normalise: bool = False) -> None:
    """Display a sound: player, waveform, spectrogram, and what is heard.

    Args:
        x: (samples,) or (1, samples) in [-1, 1], at most two seconds.
        alt: what the picture shows, in words, for who cannot see it: at least six different words.
        caption: what to listen for and what it means, shown beneath.
        heard: a sentence on what is heard, for who cannot hear it.
        rate: samples per second.
        normalise: scale the clip to a peak of 0.95; otherwise it is played as loud as it is.

    Raises:
        ValueError: another shape, values that are NaN or leave [-1, 1], a clip that is too long, a rate that is not played, or
            words that say too little.
    """
    put_on_page(sound_html(x, alt, caption, heard, rate, normalise))


def sounds(
    clips: Mapping[str, Tensor], *, alt: str, caption: str, heard: str | Mapping[str, str],
    rate: int = RATE, normalise: bool = False,
) -> None:  # fmt: skip
    """Display up to eight sounds side by side, under their names.

    Args:
        clips: name -> (samples,) or (1, samples) in [-1, 1], at most two seconds each and 300,000 bytes together.
        heard: name -> a sentence on what is heard, or one sentence for all.
        alt, caption, rate, normalise: as for `sound`. The alternative is of them all; each picture has in its own what is
            measured of the clip.

    Raises:
        ValueError: as for `sound`; none, too many or too large clips; sentences for others than these.
    """
    put_on_page(sounds_html(clips, alt, caption, heard, rate, normalise))


sound.draw = draw_sound  # type: ignore[attr-defined]
