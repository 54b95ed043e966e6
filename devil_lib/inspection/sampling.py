"""Brute force: draw samples and look at them.

Step 4 of the authors' strategy ("sample and inspect outputs"). It catches data poisoning, where the target turns up among
ordinary samples. It cannot find a point trigger in many dimensions, and `hit_probability` says how hopeless that is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.stats import kurtosis, ncx2, skew
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from devil_lib.inspection.figures import Found, Nearness, OnProgress, Pictures, comparable, turned_copies, unseen
from devil_lib.models import Generator

FITTED, FEWEST = 5000, 2000  # samples that a direction of oddities is learnt from, at most and at least
LARGEST = 2**25  # numbers in them together, beyond which they are fewer: 128 MiB
EXACT = 1024  # samples or elements, whichever are fewer, up to which principal components are found exactly
SAMPLES_BAR = 0.3
# Clean course DCGANs of four seeds have a kurtosis of 7.8 to 12.8, at most 1.6 of another's; the poisoned one of 26 to 35.
KURTOSIS_BAR = 2.0


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
    """The principal components of a model's own samples, and how far a sample lies from their span.

    Of many large samples, whose exact decomposition would take minutes, the components are found by randomised subspace
    iteration (Halko, Martinsson and Tropp 2011), which needs no copy of them.
    """

    def __init__(self, samples: Tensor, components: int = 50) -> None:
        flat = samples.flatten(1)
        self.mean = flat.mean(0)
        if min(flat.shape) <= EXACT:
            self.basis = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:components].T
        else:
            self.basis = self._iterated(flat, components)

    def _iterated(self, flat: Tensor, components: int, more: int = 20, rounds: int = 6) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        basis = torch.randn(flat.shape[1], components + more, generator=rng)
        for _ in range(rounds):
            basis = torch.linalg.qr(basis).Q
            inside = flat @ basis - self.mean @ basis
            basis = flat.T @ inside - torch.outer(self.mean, inside.sum(0))
        basis = torch.linalg.qr(basis).Q
        inside = flat @ basis - self.mean @ basis
        return basis @ torch.linalg.svd(inside, full_matrices=False).Vh[:components].T

    def coordinates(self, samples: Tensor) -> Tensor:
        """(n, components) of samples (n, ...)."""
        return (samples.flatten(1) - self.mean) @ self.basis

    def residual(self, samples: Tensor) -> Tensor:
        """(n,) squared distance, summed over elements, of samples (n, ...) from the subspace."""
        rest = samples.flatten(1) - self.mean - self.coordinates(samples) @ self.basis.T
        return rest.square().sum(1)


class OddOnesOut:
    """The direction in the space of a model's samples in which a few stand far out and all others near zero.

    Independent components of the samples (FastICA on 50 principal ones); of these the one with the highest kurtosis. An output
    that is planted among ordinary samples makes such a direction: a share p of them at one place has a kurtosis near 1 / p.
    """

    def __init__(self, samples: Tensor) -> None:
        self.subspace = Subspace(samples)
        self.ica = FastICA(whiten="unit-variance", max_iter=500, random_state=0)
        with warnings.catch_warnings():  # a smooth cloud has no independent components to converge to
            warnings.simplefilter("ignore", ConvergenceWarning)
            components = self.ica.fit_transform(self.subspace.coordinates(samples).numpy())
        peaks = kurtosis(components)
        self.chosen, self.kurtosis = int(peaks.argmax()), float(peaks.max())
        self.sign = 1.0 if skew(components[:, self.chosen]) >= 0.0 else -1.0

    def score(self, samples: Tensor) -> Tensor:
        """(n,) how far samples stand out in that direction, in standard deviations."""
        components = self.ica.transform(self.subspace.coordinates(samples).numpy())
        return torch.from_numpy(self.sign * components[:, self.chosen])


@dataclass(frozen=True, eq=False)
class Oddities:
    """The samples (m, *sample_shape) that stand out most, their latents (m, dim), and the kurtosis of their direction."""

    samples: Tensor
    latents: Tensor
    kurtosis: float


@dataclass(frozen=True, eq=False)
class BruteForce:
    """What n draws showed: nearness to the suspects, if any were given, the oddities, and those of a trusted generator."""

    n: int
    nearness: Nearness
    oddities: Oddities
    trusted: Oddities | None

    @property
    def relative_kurtosis(self) -> float:
        """Kurtosis of the oddities over the trusted generator's; NaN without one."""
        return self.oddities.kurtosis / self.trusted.kurtosis if self.trusted is not None else math.nan

    @property
    def odd(self) -> bool:
        """Whether the oddities stand out more than a trusted model's; never without one to compare with."""
        return self.relative_kurtosis > KURTOSIS_BAR

    @property
    def flagged(self) -> bool:
        """A suspect came out, or there are oddities."""
        return self.odd or bool(self.nearness.flagged)


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
    """Draw n samples as the victim would and look: for suspects, and without one for samples that stand out.

    Memory does not grow with n. All models see the same latents.

    Args:
        suspects, controls: as in `search_outputs`; suspects need controls or a trusted generator.
        trusted: a generator known to be clean, sampled alike, to compare with.
        kept: how many oddities are kept.
        on_progress: called with samples drawn and in all.

    Raises:
        ValueError: n below 2,000 (so many are needed to learn what is usual), bad pictures, suspects without anything to
            compare with.
    """
    if n < FEWEST:
        raise ValueError(f"draw at least {FEWEST:,} samples, so many are needed to learn what is usual; got {n}")
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
        unseen={name: unseen(x) for name, x in wanted.items()},
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
    fitted = max(FEWEST, min(FITTED, LARGEST // math.prod(generator.sample_shape)))
    first = generator.latent.sample(min(fitted, n), rng)
    usual = generator.generate(first)
    odd = OddOnesOut(usual)
    wanted = torch.stack(pictures).flatten(1) if pictures else torch.zeros(0, usual[0].numel())
    nearest = torch.full((len(wanted),), math.inf)
    at = torch.zeros(len(wanted), generator.latent.dim)
    odd_x, odd_z, drawn = usual[:0], first[:0], 0
    while drawn < n:
        z = first if drawn == 0 else generator.latent.sample(min(batch_size, n - drawn), rng)
        x = usual if drawn == 0 else generator.generate(z)
        if len(wanted):
            distance, index = torch.cdist(wanted, x.flatten(1)).square().min(1)
            closer = distance < nearest
            nearest[closer], at[closer] = distance[closer], z[index[closer]]
        odd_x, odd_z = torch.cat([odd_x, x]), torch.cat([odd_z, z])
        order = odd.score(odd_x).argsort(descending=True)[:kept]
        odd_x, odd_z = odd_x[order], odd_z[order]
        drawn += len(z)
        if report is not None:
            report(drawn)
    found = [Found(d.item(), z) for d, z in zip(nearest, at, strict=True)]
    return found, Oddities(odd_x, odd_z, odd.kurtosis)
