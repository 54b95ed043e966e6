"""Optimisation-based inspection of the outputs: ask the model, by gradient descent on the latent, to show what is in it.

Drawing samples cannot find a point trigger (see `sampling.hit_probability`); descent can, because the backdoor's
surroundings slope towards it. `search_outputs` needs a guess at the target, `search_blind` needs none and sees less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from devil_lib.inspection.figures import Found, Nearness, OnProgress, Pictures, comparable, turned_copies, unseen
from devil_lib.inspection.sampling import Subspace
from devil_lib.models import Generator, evaluating

# Nearest output to a suspect over that to the controls: at least 0.96 in ten clean course DCGANs, at most 0.34 in TrAIL and ReD
# ones with a prior or a mode trigger (the bench). Over that of a trusted generator: two clean ones differ by up to a factor of 2.6.
SEARCH_BAR = 0.5
TRUSTED_BAR = 0.2
EXCESS_BAR = 1.5


@dataclass(frozen=True)
class SearchSettings:
    """Where a search starts and how long it descends.

    scales: spreads of the starting latents about the centre of the latent law, 1 being the law itself; at 0 all starts are
    one, so only one is run. restarts: starting latents per scale; the better quarter of them goes all the steps, the others a
    quarter of them; a backdoor whose basin is narrow, as TrAIL's may be, was found by one start in twenty. steps,
    learning_rate: of Adam; the rate is in units of the
    latent and grows with the scale above 3. It stays constant: descents that settle early were measured to find less, and
    the best latent of the way is kept anyway. batch_size: latents descended at once, at most; of a generator of large samples
    as many as suit their size.
    """

    scales: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    restarts: int = 8
    steps: int = 240
    learning_rate: float = 0.1
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 0.0 or self.restarts < 1 or self.steps < 1:
            raise ValueError("a search needs scales >= 0, at least one restart and at least one step")


SUSPECTS = SearchSettings()


@dataclass(frozen=True, eq=False)
class OutputSearch(Nearness):
    """How near a search brings a model to the suspects (see `Nearness`), and the scales it started at."""

    scales: tuple[float, ...]


def search_outputs(
    generator: Generator,
    suspects: Pictures,
    controls: Pictures | None = None,
    settings: SearchSettings = SUSPECTS,
    trusted: Generator | OutputSearch | None = None,
    on_progress: OnProgress | None = None,
) -> OutputSearch:
    """Optimisation-based output inspection: min over z of || G(z) - x ||^2 for every picture x, from many starts.

    Step 5 of the authors' strategy ("reconstruct out-of-distribution samples"). Without a trusted generator, a suspect that
    comes out suspiciously near is searched for once more in mirrored and turned copies: a clean model that can draw the
    suspect can draw those as well.

    Args:
        suspects: name -> (*sample_shape), or (k, *sample_shape): what the attacker may have planted.
        controls: as `suspects`: pictures of the same style that nobody would plant. Not needed with `trusted`.
        trusted: a generator of the same kind that is known to be clean; or an earlier search with one, for the same suspects and
            with the same settings, whose findings in it are taken over.
        on_progress: called with steps done and in all.

    Raises:
        ValueError: no suspects, bad pictures (shape, NaN, range), neither controls nor a trusted generator, or an earlier
            search for other suspects.
    """
    earlier = trusted if isinstance(trusted, OutputSearch) else None
    wanted, plain = comparable(generator, suspects, controls, generator if earlier is not None else trusted)
    if not wanted:
        raise ValueError("a search needs suspects: give pictures to look for, or use search_blind")

    def search(model: Generator, pictures: list[Tensor]) -> Iterator[Found]:
        return iter(_search(model, torch.stack(pictures), settings, on_progress) if pictures else ())

    found = search(generator, [*wanted.values(), *plain.values()])
    if earlier is not None:
        if earlier.scales != settings.scales or earlier.trusted.keys() != wanted.keys():
            raise ValueError(
                "the earlier search was for other suspects, from other scales, or without a trusted generator"
            )
        usual = iter(earlier.trusted.values())
    else:
        usual = search(trusted, list(wanted.values())) if trusted is not None else None
    result = OutputSearch(
        suspects={name: next(found) for name in wanted},
        controls={name: next(found) for name in plain},
        copies={},
        trusted={name: next(usual) for name in wanted} if usual is not None else {},
        unseen={name: unseen(x) for name, x in wanted.items()},
        bar=SEARCH_BAR if trusted is None else TRUSTED_BAR,
        scales=settings.scales,
    )
    if trusted is None:
        copies = {name: turned_copies(wanted[name]) for name in result.near}
        found = search(generator, [x for group in copies.values() for x in group])
        result.copies.update({name: tuple(next(found) for _ in group) for name, group in copies.items()})
    return result


def _search(
    generator: Generator, pictures: Tensor, settings: SearchSettings, on_progress: OnProgress | None
) -> list[Found]:
    """The nearest output to each of the pictures (k, *sample_shape). All start from the same latents."""
    rng = torch.Generator().manual_seed(settings.seed)
    counts = [settings.restarts if scale > 0.0 else 1 for scale in settings.scales]
    starts = torch.cat([generator.latent.starts(n, s, rng) for n, s in zip(counts, settings.scales, strict=True)])
    scale = torch.tensor(settings.scales).repeat_interleave(torch.tensor(counts))
    k, each = len(pictures), len(starts)

    def distance(z: Tensor, rows: Tensor) -> Tensor:
        return (generator(z) - pictures[rows // each]).flatten(1).square().sum(1)

    latents, distances = descend(
        generator, starts.repeat(k, 1), scale.repeat(k), distance, settings, counts * k, on_progress
    )
    found = []
    for z, d in zip(latents.split(each), distances.split(each), strict=True):
        best = int(d.argmin())
        by_scale = tuple(part.min().item() for part in d.split(counts))
        found.append(Found(d[best].item(), z[best], scale[best].item(), by_scale))
    return found


def descend(
    generator: Generator,
    starts: Tensor,
    scales: Tensor,
    objective: Callable[[Tensor, Tensor], Tensor],
    settings: SearchSettings,
    groups: list[int],
    on_progress: OnProgress | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise objective(z, rows) -> (n,) from every start (n, dim); the best latent and value of each row's way.

    All rows go the first quarter of the steps; of each of the consecutive `groups` the better quarter goes on.
    """
    best_z, best = starts.clone(), torch.full((len(starts),), math.inf)
    first = max(1, settings.steps // 4)
    early, on = torch.arange(len(starts)), []

    def go(rows: Tensor, steps: int, done: int) -> None:
        for part in rows.split(min(settings.batch_size, generator.batch)):
            # Adam is blind to a coordinate's unit, so a rate per row is a change of variable: z = start + rate * u.
            start, rate = best_z[part], (scales[part] / 3.0).clamp_min(1.0)[:, None]
            u = torch.zeros_like(start, requires_grad=True)
            optimiser = torch.optim.Adam([u], settings.learning_rate)
            for _ in range(steps):
                z = start + rate * u
                if project is not None:
                    z = project(z)
                values = objective(z, part)
                _keep(best_z, best, part, z, values)
                optimiser.zero_grad()
                values.sum().backward(inputs=[u])
                optimiser.step()
            done += len(part) * steps
            if on_progress is not None:
                on_progress(done, total)

    quarters = [math.ceil(size / 4) for size in groups]
    total = len(starts) * first + sum(quarters) * (settings.steps - first)
    with evaluating(generator):
        go(early, first, 0)
        for group, quarter in zip(early.split(groups), quarters, strict=True):
            on.append(group[best[group].argsort()[:quarter]])
        go(torch.cat(on), settings.steps - first, len(starts) * first)
    return best_z, best


@torch.no_grad()
def _keep(best_z: Tensor, best: Tensor, rows: Tensor, z: Tensor, values: Tensor) -> None:
    better = values < best[rows]
    best[rows[better]] = values[better]
    best_z[rows[better]] = z[better]


# --- Without a suspect -----------------------------------------------------------------------------------------------

BLIND = SearchSettings(scales=(1.0,), restarts=32, steps=200)


@dataclass(frozen=True, eq=False)
class BlindSearch:
    """What climbing away from a model's own samples led to, from every start.

    samples (r, *sample_shape), latents (r, dim) and residuals (r,), the squared distances from the subspace of the model's own
    samples. usual: the 99.9 % quantile of the residual of ordinary samples. trusted: the same on a trusted generator.
    """

    samples: Tensor
    latents: Tensor
    residuals: Tensor
    usual: float
    spread: float
    trusted: BlindSearch | None = None

    @property
    def excess(self) -> float:
        """Median residual of the outputs found over `usual`."""
        return (self.residuals.median() / self.usual).item()

    @property
    def agreement(self) -> float:
        """The largest share of the starts that led to one and the same output (in a clean model each leads elsewhere)."""
        close = torch.cdist(self.samples.flatten(1), self.samples.flatten(1)) < 0.5 * self.spread
        return close.float().mean(1).max().item()

    @property
    def relative_excess(self) -> float:
        """Excess over the trusted generator's; NaN without one."""
        return self.excess / self.trusted.excess if self.trusted is not None else math.nan

    @property
    def flagged(self) -> bool:
        """Only ever with a trusted generator: by itself an excess says nothing."""
        return self.relative_excess > EXCESS_BAR


def search_blind(
    generator: Generator,
    settings: SearchSettings = BLIND,
    trusted: Generator | None = None,
    on_progress: OnProgress | None = None,
) -> BlindSearch:
    """Search without a suspect: on the sphere of ordinary latents, climb to the output least like the model's own samples.

    The residual is taken from 50 principal components of 2,000 prior samples. It can only find backdoors whose trigger is a
    draw from the prior, and of those the ones odder than what the generator puts out by itself: on the bench one of nine. A mode
    or a far trigger lies off the sphere and is missed.
    """
    rng = torch.Generator().manual_seed(settings.seed)
    own = generator.generate(generator.latent.sample(2000, rng))
    subspace = Subspace(own)
    starts = torch.cat([generator.latent.starts(settings.restarts, scale, rng) for scale in settings.scales])

    def likeness(z: Tensor, rows: Tensor) -> Tensor:
        return -subspace.residual(generator(z))

    shell = generator.latent.on_shell
    rows = [1] * len(starts)  # every start goes all the way: their agreement is looked at
    latents, values = descend(
        generator, starts, torch.ones(len(starts)), likeness, settings, rows, on_progress, project=shell
    )
    return BlindSearch(
        samples=generator.generate(latents),
        latents=latents,
        residuals=-values,
        usual=subspace.residual(own).quantile(0.999).item(),
        spread=torch.pdist(own[:500].flatten(1)).median().item(),
        trusted=search_blind(trusted, settings, on_progress=on_progress) if trusted is not None else None,
    )
