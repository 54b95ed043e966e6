"""How one sample is drawn among others: a picture as it is, a sound as its waveform above its spectrogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from devil_lib.models import check_samples
from devil_lib.show.hearing import FLOOR, envelope, spectrogram

_STRIP = 0.3  # share of a sound's tile that the waveform takes


def is_sound(sample: Tensor) -> bool:
    """Whether a sample is a sound (1, samples), and no picture (channels, height, width)."""
    return sample.ndim == 2


def value_name(sample: Tensor) -> str:
    """What a sample consists of: "pixel" or "audio sample"."""
    return "audio sample" if is_sound(sample) else "pixel"


def check_tiles(x: Tensor) -> None:
    """Refuse what cannot be drawn: neither pictures (n, 1 or 3, height, width) nor sounds (n, 1, samples), in [-1, 1].

    Raises:
        ValueError: another shape or none at all, NaN, or values out of range.
    """
    pictures = x.ndim == 4 and x.shape[1] in (1, 3)
    sounds = x.ndim == 3 and x.shape[1] == 1 and x.shape[2] >= 16
    if not (pictures or sounds) or len(x) == 0:
        raise ValueError(
            "samples must be pictures of shape (n, 1 or 3, height, width) or sounds of shape (n, 1, samples), with n >= 1, "
            f"got {tuple(x.shape)}; for one sample use x[None]"
        )
    check_samples(x, tuple(x.shape[1:]))


def put_sample(
    axes: Axes, sample: Tensor, x: float, y: float, size: float = 0.94, frame: Any = "0.7", width: float = 0.5
) -> None:
    """Draw one sample in a square centred at (x, y), with a frame of the given colour and line width."""
    left, bottom = x - size / 2, y - size / 2
    if is_sound(sample):
        _put_sound(axes, sample, left, bottom, size)
    else:
        # "auto" leaves the pixels of a small picture square and smooths a photograph that is drawn hardly larger than it is.
        axes.imshow(_pixels(sample), extent=(left, left + size, bottom, bottom + size), interpolation="auto")
    axes.add_patch(Rectangle((left, bottom), size, size, fill=False, edgecolor=frame, linewidth=width, clip_on=False))


def _pixels(picture: Tensor) -> np.ndarray:
    """(channels, height, width) in [-1, 1] as (height, width, 3) in [0, 1]."""
    array = (picture.detach().float().cpu().clamp(-1.0, 1.0).numpy() + 1.0) / 2.0
    return np.repeat(array, 3, axis=0).transpose(1, 2, 0) if len(array) == 1 else array.transpose(1, 2, 0)


def _put_sound(axes: Axes, sound: Tensor, left: float, bottom: float, size: float) -> None:
    """Time to the right, frequencies upwards on one scale of levels for all tiles, so that a quiet sound looks quiet."""
    top = bottom + (1.0 - _STRIP) * size
    axes.imshow(
        spectrogram(sound), origin="lower", extent=(left, left + size, bottom, top), vmin=FLOOR, vmax=0.0,
        interpolation="auto",
    )  # fmt: skip
    low, high = envelope(sound, 100)
    middle, half = top + _STRIP * size / 2, 0.46 * _STRIP * size
    across = np.linspace(left, left + size, len(low))
    axes.fill_between(across, middle + half * low, middle + half * high, color="0.2", linewidth=0.3)
