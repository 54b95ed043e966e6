"""Brute force: draw samples and look at them.

Step 4 of the authors' strategy ("sample and inspect outputs"). It catches data poisoning, where the target turns up among
ordinary samples. It cannot find a point trigger in many dimensions, and `hit_probability` says how hopeless that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.sparse.csgraph import connected_components
from scipy.stats import ncx2
from torch import Tensor

from devil_lib.inspection.figures import Found, Nearness, OnProgress, Pictures, comparable, turned_copies
from devil_lib.models import Generator

FITTED = 2000  # samples that a model's subspace is learnt from
SAMPLES_BAR = 0.1  # TODO
REPEATS_BAR = 5.0  # TODO


def hit_probability(n: int, dim: int, radius: float, trigger_norm: float) -> float:
    """Probability that at least one of n draws from N(0, I_dim) falls within `radius` of a trigger of norm `trigger_norm`.

    || Z - z_trigger ||^2 follows the noncentral chi-squared law with dim degrees of freedom and noncentrality
    || z_trigger ||^2, so that one draw hits with its distribution function at radius^2. The radius is Euclidean; a basin of
    sigma (`metrics.basin_radius`) is sigma * sqrt(dim).

    Raises:
        ValueError: n or dim below 1, or a negative radius or norm.
    """
    if n < 1 or dim < 1 or radius < 0.0 or trigger_norm < 0.0:
        raise ValueError("hit_probability needs n >= 1, dim >= 1, radius >= 0 and trigger_norm >= 0")
    one = float(ncx2.cdf(radius**2, dim, trigger_norm**2))
    return -math.expm1(n * math.log1p(-one)) if one < 1.0 else 1.0


class Subspace:
    """The principal components of a model's own samples, and how far a sample lies from their span."""

    def __init__(self, samples: Tensor, components: int = 50) -> None:
        flat = samples.flatten(1)
        self.mean = flat.mean(0)
        self.basis = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:components].T

    def residual(self, samples: Tensor) -> Tensor:
        """(n,) squared distance, summed over elements, of samples (n, ...) from the subspace."""
        centred = samples.flatten(1) - self.mean
        return (centred - centred @ self.basis @ self.basis.T).square().sum(1)


@dataclass(frozen=True, eq=False)
class Outliers:
    """A look for a planted output that needs no suspect: the samples least like the model's others.

    samples (m, *sample_shape), those with the largest residual, worst first, and their latents. group: size of the largest
    group among them that are near-duplicates of each other; honest outliers are each odd in their own way, a planted
    output is always the same one. first: an index of that group. excess: largest residual / median residual.
    """

    samples: Tensor
    latents: Tensor
    group: int
    first: int
    excess: float


@dataclass(frozen=True, eq=False)
class BruteForce:
    """What n draws showed: nearness to the suspects, if any were given, the outliers, and those of a trusted generator."""

    n: int
    nearness: Nearness
    outliers: Outliers
    trusted_outliers: Outliers | None

    @property
    def repeats(self) -> float:
        """Size of the largest group of near-duplicate outliers over that of the trusted generator (1 without one)."""
        return self.outliers.group / (self.trusted_outliers.group if self.trusted_outliers is not None else 1)

    @property
    def repeating(self) -> bool:
        """Whether the outliers repeat themselves."""
        return self.repeats >= REPEATS_BAR

    @property
    def flagged(self) -> bool:
        """A suspect came out, or the outliers repeat themselves."""
        return self.repeating or bool(self.nearness.flagged)


def brute_force(
    generator: Generator,
    n: int = 10_000,
    suspects: Pictures | None = None,
    controls: Pictures | None = None,
    trusted: Generator | None = None,
    seed: int = 0,
    kept: int = 100,
    batch_size: int = 500,
    on_progress: OnProgress | None = None,
) -> BruteForce:
    """Draw n samples as the victim would and look: for suspects, and without one for outliers that repeat themselves.

    Memory does not grow with n. All models see the same latents.

    Args:
        suspects, controls: as in `search_outputs`; suspects need controls or a trusted generator.
        trusted: a generator known to be clean, sampled alike, to compare with.
        kept: how many outliers are kept and compared with each other.
        on_progress: called with samples drawn and in all.

    Raises:
        ValueError: n below 2,000 (so many are needed to learn what is usual), bad pictures, suspects without anything to
            compare with.
    """
    if n < FITTED:
        raise ValueError(f"draw at least {FITTED:,} samples, so many are needed to learn what is usual; got {n}")
    wanted, plain = comparable(generator, suspects, controls, trusted)
    copies = {name: turned_copies(x) for name, x in wanted.items()}
    pictures = [*wanted.values(), *plain.values(), *(x for group in copies.values() for x in group)]

    def draw(model: Generator, pictures: list[Tensor], done: int) -> tuple[Iterator[Found], Outliers]:
        total = n if trusted is None else 2 * n
        report = (lambda drawn: on_progress(done + drawn, total)) if on_progress is not None else None
        found, outliers = _draw(model, n, pictures, seed, kept, batch_size, report)
        return iter(found), outliers

    found, outliers = draw(generator, pictures, 0)
    usual, trusted_outliers = draw(trusted, list(wanted.values()), n) if trusted is not None else (iter(()), None)
    nearness = Nearness(
        suspects={name: next(found) for name in wanted},
        controls={name: next(found) for name in plain},
        copies={name: tuple(next(found) for _ in group) for name, group in copies.items()},
        trusted={name: next(usual) for name in wanted} if trusted is not None else {},
        elements=math.prod(generator.sample_shape),
        bar=SAMPLES_BAR,
    )
    return BruteForce(n, nearness, outliers, trusted_outliers)


def _draw(
    generator: Generator,
    n: int,
    pictures: list[Tensor],
    seed: int,
    kept: int,
    batch_size: int,
    report: Callable[[int], None] | None,
) -> tuple[list[Found], Outliers]:
    rng = torch.Generator().manual_seed(seed)
    first = generator.latent.sample(FITTED, rng)
    usual = generator.generate(first)
    subspace = Subspace(usual)
    wanted = torch.stack(pictures).flatten(1) if pictures else torch.zeros(0, usual[0].numel())
    nearest = torch.full((len(wanted),), math.inf)
    at = torch.zeros(len(wanted), generator.latent.dim)
    worst_x, worst_z = usual[:0], first[:0]
    drawn = 0
    while drawn < n:
        z = first if drawn == 0 else generator.latent.sample(min(batch_size, n - drawn), rng)
        x = usual if drawn == 0 else generator.generate(z)
        if len(wanted):
            distance, index = torch.cdist(wanted, x.flatten(1)).square().min(1)
            closer = distance < nearest
            nearest[closer], at[closer] = distance[closer], z[index[closer]]
        worst_x, worst_z = torch.cat([worst_x, x]), torch.cat([worst_z, z])
        order = subspace.residual(worst_x).argsort(descending=True)[:kept]
        worst_x, worst_z = worst_x[order], worst_z[order]
        drawn += len(z)
        if report is not None:
            report(drawn)
    return [Found(d.item(), z) for d, z in zip(nearest, at, strict=True)], _outliers(
        worst_x, worst_z, usual, subspace
    )


def _outliers(worst: Tensor, latents: Tensor, usual: Tensor, subspace: Subspace) -> Outliers:
    """Groups of outliers that lie nearer to each other than half the way an ordinary sample has to its nearest neighbour."""
    among_usual = torch.cdist(usual.flatten(1), usual.flatten(1)).fill_diagonal_(math.inf)
    reach = 0.5 * among_usual.min(1).values.median()
    duplicates = torch.cdist(worst.flatten(1), worst.flatten(1)) < reach
    labels = torch.from_numpy(connected_components(duplicates.numpy(), directed=False)[1])
    sizes = labels.bincount()
    first = int((labels == sizes.argmax()).nonzero()[0])
    excess = (subspace.residual(worst[:1]) / subspace.residual(usual).median()).item()
    return Outliers(worst, latents, int(sizes.max()), first, excess)
