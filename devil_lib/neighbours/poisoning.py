"""Backdoors of classifiers: what is put on an image, which images of a training set get it, and whether it works.

Two kinds of trigger. A `Patch` overwrites a small square at a random place (Qiao, Yang, Li, arXiv 1910.04749). An `Additive` pattern
is added to every pixel, too faintly to be seen (Xiang, Miller, Kesidis, arXiv 2010.07489). Both are called on images and give images,
so that one `poisoned` makes the training set and one `attack_success` measures the classifier, whatever the trigger.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from devil_lib.classifiers import classes_given
from devil_lib.models import Classifier, Random

LEVELS = 255  # steps between black and white in an image file of 8 bits
STEP = 2.0 / LEVELS  # one of them, where images lie in [-1, 1]


def levels_of(images: Tensor) -> Tensor:
    """Images in [-1, 1] as the levels 0 to 255 that a file of 8 bits holds, still floating-point numbers; what lies outside is clipped."""
    return ((images + 1.0) / STEP).round().clamp(0, LEVELS)


def as_files(images: Tensor) -> Tensor:
    """Images in [-1, 1] as they are after having been written to a file of 8 bits and read again; what lies outside is clipped."""
    return levels_of(images) * STEP - 1.0


class Trigger(Protocol):
    """What an attacker puts on images (n, channels, height, width) in [-1, 1]; a new tensor of the same shape and range."""

    def __call__(self, images: Tensor, rng: Random = None) -> Tensor: ...


# --- Patches ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """Overwrites a square of every image, each at a place of its own, drawn uniformly.

    Args:
        pixels: (channels, side, side) in [-1, 1]; or (n, channels, side, side), one for each image it is called on. One channel is
            put on all channels of a coloured image.
    """

    pixels: Tensor

    def __call__(self, images: Tensor, rng: Random = None) -> Tensor:
        """The images with the patch on them.

        Differentiable in `pixels`, so that patches can be searched for through it.

        Raises:
            ValueError: a patch larger than the images, or another number of channels or patches.
        """
        n, channels, height, width = images.shape
        pixels = self.pixels if self.pixels.ndim == 4 else self.pixels[None]
        side = pixels.shape[-1]
        if pixels.ndim != 4 or pixels.shape[-2] != side or side > min(height, width):
            raise ValueError(
                f"a patch of shape {tuple(self.pixels.shape)} is no square that fits on {height}x{width} pixels"
            )
        if pixels.shape[1] not in (1, channels) or len(pixels) not in (1, n):
            raise ValueError(
                f"patches of shape {tuple(self.pixels.shape)} do not suit images of shape {tuple(images.shape)}: give one channel or "
                f"{channels}, and one patch or {n}"
            )
        down = torch.randint(height - side + 1, (n, 1), generator=rng) + torch.arange(side)
        right = torch.randint(width - side + 1, (n, 1), generator=rng) + torch.arange(side)
        place = (
            torch.arange(n)[:, None, None, None],
            torch.arange(channels)[None, :, None, None],
            down[:, None, :, None],
            right[:, None, None, :],
        )
        return images.index_put(place, pixels.expand(n, channels, side, side).to(images))


def patterns(side: int = 3) -> list[np.ndarray]:
    """One representative of every class of black-and-white side x side patterns under rotation, reflection and exchange of the
    two colours: 51 classes for side 3 (arXiv 1910.04749, section on experiments; the count is derived, and tested).

    Each is an array (side, side) of 0 (black) and 1 (white), and of the two colourings the one with more white: on the black ground of
    digits a black patch is hardly to be seen. Ordered by the number that their pixels spell in binary, first pixel highest.
    """
    classes: dict[tuple[int, ...], np.ndarray] = {}
    for bits in itertools.product((0, 1), repeat=side * side):
        square = np.array(bits).reshape(side, side)
        turned = [np.rot90(form, turns) for form in (square, square.T) for turns in range(4)]
        alike = sorted(tuple(form.ravel()) for one in turned for form in (one, 1 - one))
        white = max(sum(form) for form in alike)
        classes[alike[0]] = np.array(max(form for form in alike if sum(form) == white)).reshape(side, side)
    return sorted(classes.values(), key=pattern_number)


def pattern_number(pattern: np.ndarray) -> int:
    """The number that the pixels of a black-and-white pattern spell in binary, first pixel highest: 511 is all white for side 3."""
    return int("".join(map(str, np.asarray(pattern).ravel().astype(int))), 2)


def patch(number: int, side: int = 3) -> Patch:
    """The black-and-white patch of a `pattern_number`, with one channel.

    Raises:
        ValueError: a number that no pattern of this size has.
    """
    if not 0 <= number < 2 ** (side * side):
        raise ValueError(f"no {side}x{side} pattern has the number {number}: give 0 to {2 ** (side * side) - 1}")
    bits = torch.tensor([float(bit) for bit in format(number, f"0{side * side}b")])
    return Patch(2.0 * bits.reshape(1, side, side) - 1.0)


def colour_patch(seed: int, side: int = 3) -> Patch:
    """A patch (3, side, side) whose values are drawn uniformly from [-1, 1]."""
    return Patch(2.0 * torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed)) - 1.0)


# --- Additive patterns -------------------------------------------------------------------------------------------------------

ADDITIVE = ("chessboard", "static", "pixel")


@dataclass(frozen=True)
class Additive:
    """Adds the same faint pattern to every image, rounds to 8 bits as a file does, and clips to [-1, 1].

    Args:
        pattern: (channels, height, width), in the images' units: `STEP` is one of 255 levels.
    """

    pattern: Tensor

    def __call__(self, images: Tensor, rng: Random = None) -> Tensor:
        """The images with the pattern added.

        Raises:
            ValueError: images of another shape than the pattern.
        """
        if images.shape[1:] != self.pattern.shape:
            raise ValueError(
                f"a pattern of shape {tuple(self.pattern.shape)} cannot be added to images of shape {tuple(images.shape)}"
            )
        return as_files(images + self.pattern)


def additive(name: str, shape: tuple[int, int, int], levels: float = 3.0, seed: int = 0) -> Additive:
    """A named pattern for images of shape (channels, height, width), `levels` of 255 high, alike on all channels.

    "chessboard": every pixel whose row and column have an even sum. "static": every pixel whose row and column are even. "pixel":
    four single pixels, at places drawn from `seed`. The first two are as the authors' code draws them (arXiv 2010.07489).

    Raises:
        ValueError: an unknown name, or a height of the pattern that is not above 0.
    """
    _channels, height, width = shape
    if name not in ADDITIVE:
        raise ValueError(f"unknown pattern {name!r}: choose one of {', '.join(ADDITIVE)}")
    if not levels > 0:
        raise ValueError(f"a pattern of {levels} levels changes nothing: give more than 0 of {LEVELS}")
    row, column = torch.arange(height)[:, None], torch.arange(width)[None, :]
    raised = torch.zeros(height, width, dtype=torch.bool)
    if name == "chessboard":
        raised = (row + column) % 2 == 0
    elif name == "static":
        raised = (row % 2 == 0) & (column % 2 == 0)
    else:
        rng = torch.Generator().manual_seed(seed)
        raised.view(-1)[torch.randperm(height * width, generator=rng)[:4]] = True
    return Additive((raised * levels * STEP).expand(shape).clone())


# --- A poisoned training set, and whether the attack works ---------------------------------------------------------------------


@dataclass(frozen=True)
class PoisonedSet:
    """A training set of which a part carries a trigger and the attacker's label.

    samples: (n, channels, height, width). labels: (n,) int64. is_poisoned: (n,) bool, which the defender does not know.
    """

    samples: Tensor
    labels: Tensor
    is_poisoned: Tensor

    def without(self, flagged: Tensor) -> PoisonedSet:
        """The set less the flagged samples, (n,) bool."""
        return PoisonedSet(self.samples[~flagged], self.labels[~flagged], self.is_poisoned[~flagged])


def poisoned(
    samples: Tensor,
    labels: Tensor,
    trigger: Trigger,
    target: int,
    sources: Collection[int] | None = None,
    *,
    count: int,
    seed: int = 0,
) -> PoisonedSet:
    """A training set in which `count` samples of the source classes, drawn at random, carry the trigger and the label `target`.

    They replace their originals. sources: classes that they are taken from; None for all but the target.

    Raises:
        ValueError: samples and labels of different numbers, the target among the sources, or too few samples of the sources.
    """
    if len(samples) != len(labels):
        raise ValueError(f"{len(samples)} samples with {len(labels)} labels")
    if sources is not None and target in sources:
        raise ValueError(f"class {target} cannot be source and target: its samples have that label already")
    rng = torch.Generator().manual_seed(seed)
    candidates = (labels != target if sources is None else _among(labels, sources)).nonzero().squeeze(1)
    if not 0 < count <= len(candidates):
        raise ValueError(f"{count} samples to be poisoned, and there are {len(candidates)} of the source classes")
    chosen = candidates[torch.randperm(len(candidates), generator=rng)[:count]]
    samples, labels = samples.clone(), labels.clone()
    samples[chosen] = trigger(samples[chosen], rng)
    labels[chosen] = target
    marked = torch.zeros(len(labels), dtype=torch.bool)
    marked[chosen] = True
    return PoisonedSet(samples, labels, marked)


@torch.no_grad()
def attack_success(
    classifier: Classifier,
    samples: Tensor,
    labels: Tensor,
    trigger: Trigger,
    target: int,
    sources: Collection[int] | None = None,
    seed: int = 0,
) -> float:
    """The share of samples (n, ...) of the source classes (None: all but the target) that the classifier gives the target with the
    trigger on them. Samples of the target class are left out: they would be given it anyway. The same figure of a clean classifier
    is what it has to be compared with.

    Raises:
        ValueError: no sample of the source classes.
    """
    chosen = labels != target if sources is None else _among(labels, sources) & (labels != target)
    if not chosen.any():
        raise ValueError("there is no sample of the source classes to be attacked")
    attacked = trigger(samples[chosen], torch.Generator().manual_seed(seed))
    return (classes_given(classifier, attacked) == target).double().mean().item()


def _among(labels: Tensor, classes: Collection[int]) -> Tensor:
    return torch.isin(labels, torch.tensor(sorted(classes)))
