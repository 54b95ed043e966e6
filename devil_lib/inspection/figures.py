"""What the inspections share: samples by name, how near a model comes to each, and when that is suspicious."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from devil_lib.models import Generator, check_samples

Pictures = Mapping[str, Tensor] | Tensor
OnProgress = Callable[[int, int], None]

# Mean squared error per element that no eye sees, and what of a quiet sample's own power no ear hears.
UNSEEN, UNHEARD = 1e-3, 3e-3


@dataclass(frozen=True)
class Finding:
    """check: what was looked at. severity: "note" (no ground for doubt), "warning" (unusual) or "alarm" (should not be
    there). where: the layer, operation or picture, or "". sentence: what was found."""

    check: str
    severity: str
    where: str
    sentence: str

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"[{self.severity}] {self.check}{place}: {self.sentence}"


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest that a model was seen to come to a picture: squared L2 distance summed over elements, and the latent
    (dim,) there. A search adds the scale that this descent started at and the best distance of each scale."""

    distance: float
    latent: Tensor
    scale: float = 1.0
    by_scale: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Nearness:
    """How near a model comes to suspects, by name, and to what nobody planted.

    controls: other samples of the same style. copies: of a suspect, its mirrored, turned or shifted copies, which are about
    as hard to make as itself. trusted: the suspects on a trusted generator. unseen: for each suspect, the distance that nobody
    notices.

    A raw distance says nothing: a clean model comes near to whatever looks like its data. The figure is the `ratio` of the
    distance to what is to be expected without a backdoor; a suspect below `bar` is flagged.
    """

    suspects: dict[str, Found]
    controls: dict[str, Found]
    copies: dict[str, tuple[Found, ...]]
    trusted: dict[str, Found]
    unseen: dict[str, float]
    bar: float

    def expected(self, name: str) -> float:
        """The distance to be expected without a backdoor: the trusted generator's, or else the lower of two medians, over
        the controls and over the suspect's own copies."""
        if name in self.trusted:
            return self.trusted[name].distance
        groups = (tuple(self.controls.values()), self.copies.get(name, ()))
        return min(statistics.median(found.distance for found in group) for group in groups if group)

    def ratio(self, name: str) -> float:
        """Distance over expected distance, both raised by the little that nobody notices."""
        unseen = self.unseen[name]
        return (self.suspects[name].distance + unseen) / (self.expected(name) + unseen)

    def ratios(self) -> dict[str, float]:
        """Name of the suspect -> ratio."""
        return {name: self.ratio(name) for name in self.suspects}

    @property
    def near(self) -> tuple[str, ...]:
        """The suspects whose ratio is below the bar."""
        return tuple(name for name, ratio in self.ratios().items() if ratio < self.bar)

    @property
    def flagged(self) -> tuple[str, ...]:
        """The `near` suspects that were compared with the trusted generator or with their own copies. A plain surface (all
        black, say) has no such copies: without a trusted generator nothing can be said of it."""
        return tuple(name for name in self.near if name in self.trusted or self.copies.get(name))


def unseen(sample: Tensor) -> float:
    """The squared distance, summed over elements, from a sample (*sample_shape) that nobody notices: 0.001 per element, or
    0.3 % of its power where that is less, as in a sound that is quiet or short; -50 dB of full scale at the least."""
    power = sample.square().mean().item()
    return sample.numel() * min(UNSEEN, max(UNHEARD * power, 0.01 * UNSEEN))


def named(pictures: Pictures | None, sample_shape: tuple[int, ...], what: str) -> dict[str, Tensor]:
    """Pictures by name; those of a plain tensor (k, *sample_shape) are called "1", "2", ... None gives none.

    Raises:
        ValueError: one that is not (*sample_shape) finite numbers in [-1, 1].
    """
    if pictures is None:
        return {}
    if isinstance(pictures, Tensor):
        pictures = {str(i + 1): picture for i, picture in enumerate(pictures)}
    for name, picture in pictures.items():
        try:
            check_samples(picture[None], sample_shape)
        except ValueError as error:
            raise ValueError(f"{what}, {name!r}: {error}") from error
    return dict(pictures)


def comparable(
    generator: Generator, suspects: Pictures | None, controls: Pictures | None, trusted: Generator | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Suspects and controls by name, checked.

    Raises:
        ValueError: bad pictures, suspects with nothing to compare them with, or a trusted generator of another sample shape.
    """
    wanted = named(suspects, generator.sample_shape, "suspects")
    plain = named(controls, generator.sample_shape, "controls")
    if wanted and not plain and trusted is None:
        raise ValueError(
            "a distance to a suspect means nothing by itself: give `controls` (targets.controls_for(generator)) or a `trusted` generator"
        )
    if trusted is not None and trusted.sample_shape != generator.sample_shape:
        raise ValueError(f"the trusted generator puts out {trusted.sample_shape}, this one {generator.sample_shape}")
    return wanted, plain


def turned_copies(x: Tensor, most: int = 4) -> list[Tensor]:
    """Up to `most` copies of a sample (channels, ...), mirrored, turned or shifted by a quarter; a sound, which cannot be
    turned, is shifted by two and three quarters as well.

    Each differs from it and from the others by a quarter of the sample's own variation, so that a backdoor that puts out
    the sample does not put out the copy. A plain surface, or silence, has no such copies.
    """
    axes = list(range(1, x.ndim))
    candidates = [x.flip(axis) for axis in axes]
    if len(axes) == 2 and x.shape[1] == x.shape[2]:
        candidates += [x.rot90(1, axes), x.rot90(3, axes)]
    candidates += [x.roll(x.shape[axis] // 4, axis) for axis in axes]
    if len(axes) == 1:
        candidates += [x.roll(quarters * x.shape[1] // 4, 1) for quarters in (2, 3)]
    apart = max(0.25 * (x - x.mean()).square().sum().item(), 1e-6)
    kept: list[Tensor] = []
    for candidate in candidates:
        if all((candidate - other).square().sum() >= apart for other in (x, *kept)):
            kept.append(candidate)
    return kept[:most]
