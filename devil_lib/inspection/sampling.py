"""Brute force: draw samples and look at them.

Step 4 of the authors' strategy ("sample and inspect outputs"). It catches data poisoning, where the target turns up among
ordinary samples. It cannot find a point trigger in many dimensions, and `hit_probability` says how hopeless that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.stats import ncx2
from torch import Tensor, nn

from devil_lib.inspection.figures import Found, Nearness, OnProgress, Pictures, comparable, turned_copies
from devil_lib.models import Generator

FITTED = 2000  # samples that a model's subspace is learnt from
SAMPLES_BAR = 0.3
AGREEMENT_BAR = 1.5


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

    def rest(self, samples: Tensor) -> Tensor:
        """(n, elements) what the subspace leaves of samples (n, ...)."""
        centred = samples.flatten(1) - self.mean
        return centred - centred @ self.basis @ self.basis.T

    def residual(self, samples: Tensor) -> Tensor:
        """(n,) squared distance, summed over elements, of samples (n, ...) from the subspace."""
        return self.rest(samples).square().sum(1)


@dataclass(frozen=True, eq=False)
class Oddities:
    """A look at the samples that needs no suspect.

    samples (m, *sample_shape): those farthest from the span of the others, worst first, and their latents (m, dim). excess: the
    largest residual over the median one. agreement: how far the residuals of the worst 20 point the same way, from 1/20 (each
    its own way) to 1 (all the same). Honest oddities are each odd in their own way; a planted output is always the same.
    """

    samples: Tensor
    latents: Tensor
    excess: float
    agreement: float


@dataclass(frozen=True, eq=False)
class BruteForce:
    """What n draws showed: nearness to the suspects, if any were given, the oddities, and those of a trusted generator."""

    n: int
    nearness: Nearness
    oddities: Oddities
    trusted: Oddities | None

    @property
    def relative_agreement(self) -> float:
        """Agreement of the oddities over the trusted generator's; NaN without one."""
        return self.oddities.agreement / self.trusted.agreement if self.trusted is not None else math.nan

    @property
    def repeating(self) -> bool:
        """Whether the oddities are more alike than a trusted model's; never without one to compare with."""
        return self.relative_agreement > AGREEMENT_BAR

    @property
    def flagged(self) -> bool:
        """A suspect came out, or the oddities are alike."""
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
    """Draw n samples as the victim would and look: for suspects, and without one for odd samples that are alike.

    Memory does not grow with n. All models see the same latents.

    Args:
        suspects, controls: as in `search_outputs`; suspects need controls or a trusted generator.
        trusted: a generator known to be clean, sampled alike, to compare with.
        kept: how many outliers are kept.
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

    def draw(model: Generator, pictures: list[Tensor], done: int) -> tuple[Iterator[Found], Oddities]:
        total = n if trusted is None else 2 * n
        report = (lambda drawn: on_progress(done + drawn, total)) if on_progress is not None else None
        found, oddities = _draw(model, n, pictures, seed, kept, batch_size, report)
        return iter(found), oddities

    found, oddities = draw(generator, pictures, 0)
    usual, usual_oddities = draw(trusted, list(wanted.values()), n) if trusted is not None else (iter(()), None)
    nearness = Nearness(
        suspects={name: next(found) for name in wanted},
        controls={name: next(found) for name in plain},
        copies={name: tuple(next(found) for _ in group) for name, group in copies.items()},
        trusted={name: next(usual) for name in wanted} if trusted is not None else {},
        elements=math.prod(generator.sample_shape),
        bar=SAMPLES_BAR,
    )
    return BruteForce(n, nearness, oddities, usual_oddities)


def _draw(
    generator: Generator,
    n: int,
    pictures: list[Tensor],
    seed: int,
    kept: int,
    batch_size: int,
    report: Callable[[int], None] | None,
) -> tuple[list[Found], Oddities]:
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
    excess = (subspace.residual(worst_x[:1]) / subspace.residual(usual).median()).item()
    directions = nn.functional.normalize(subspace.rest(worst_x[:20]), dim=1)
    agreement = (torch.linalg.svdvals(directions)[0] ** 2 / len(directions)).item()
    oddities = Oddities(worst_x, worst_z, excess, agreement)
    return [Found(d.item(), z) for d, z in zip(nearest, at, strict=True)], oddities
