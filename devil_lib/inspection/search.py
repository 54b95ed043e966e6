"""Optimisation-based inspection of the outputs: ask the model, by gradient descent on the latent, to show what is in it.

Drawing samples cannot find a point trigger (see `sampling.hit_probability`); descent can, because the backdoor's
surroundings slope towards it. `search_outputs` needs a guess at the target, `search_blind` needs none and sees less.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from devil_lib.models import Generator, check_samples, evaluating

Pictures = Mapping[str, Tensor] | Tensor
OnProgress = Callable[[int, int], None]

RATIO_BAR = 0.25  # TODO


@dataclass(frozen=True)
class SearchSettings:
    """Where a search starts and how long it descends.

    scales: spreads of the starting latents about the centre of the latent law, 1 being the law itself; at 0 all starts are
    one, so only one is run. restarts: starting latents per scale. steps, learning_rate: of Adam; the rate is in units of the
    latent, grows with the scale (by scale / 3 above 3) and falls to zero by a cosine. batch_size: latents descended at once.
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


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest that a search came to one picture: squared L2 distance summed over elements, its latent (dim,), the
    scale that it was started at, and the best distance of each scale."""

    name: str
    distance: float
    latent: Tensor
    scale: float
    by_scale: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class OutputSearch:
    """What the search came to for suspects and for controls (pictures of the same style that cannot be the attacker's),
    and, when a trusted generator was given, for the suspects on that one.

    A raw distance says nothing. The figure is `ratio`: distance to the suspect / median distance to the controls, or, with
    a trusted generator, / its distance to the same suspect. A suspect is flagged below `bar`.
    """

    suspects: tuple[Found, ...]
    controls: tuple[Found, ...]
    trusted: tuple[Found, ...]
    scales: tuple[float, ...]
    bar: float = RATIO_BAR

    def ratios(self) -> dict[str, float]:
        """Name of the suspect -> ratio."""
        if self.trusted:
            floors = [found.distance for found in self.trusted]
        else:
            floors = [statistics.median(found.distance for found in self.controls)] * len(self.suspects)
        return {
            found.name: found.distance / max(floor, 1e-12) for found, floor in zip(self.suspects, floors, strict=True)
        }

    @property
    def flagged(self) -> tuple[str, ...]:
        """Names of the suspects whose ratio is below the bar."""
        return tuple(name for name, ratio in self.ratios().items() if ratio < self.bar)


def search_outputs(
    generator: Generator,
    suspects: Pictures,
    controls: Pictures | None = None,
    settings: SearchSettings = SearchSettings(),
    trusted: Generator | None = None,
    on_progress: OnProgress | None = None,
) -> OutputSearch:
    """Optimisation-based output inspection: min over z of || G(z) - x ||^2 for every picture x (methods: recommendation 5,
    "reconstruct out-of-distribution samples").

    Args:
        suspects: name -> (*sample_shape), or (k, *sample_shape): what the attacker may have planted.
        controls: as `suspects`: pictures of the same style that nobody would plant. Not needed with `trusted`.
        trusted: a generator of the same architecture that is known to be clean.
        on_progress: called with descents done and in all.

    Raises:
        ValueError: pictures of the wrong shape, not finite or outside [-1, 1]; neither controls nor a trusted generator.
    """
    wanted = named(suspects, generator.sample_shape, "suspects")
    held_out = named(controls, generator.sample_shape, "controls") if controls is not None else {}
    if not held_out and trusted is None:
        raise ValueError(
            "a distance to a suspect means nothing by itself: give `controls` (targets.controls()) or a `trusted` generator"
        )
    both = _search(generator, {**wanted, **{("control", name): x for name, x in held_out.items()}}, settings, on_progress)
    on_trusted = _search(trusted, wanted, settings, on_progress) if trusted is not None else ()
    k = len(wanted)
    return OutputSearch(both[:k], both[k:], on_trusted, settings.scales)


def named(pictures: Pictures, sample_shape: tuple[int, ...], what: str) -> dict[str, Tensor]:
    """Pictures by name; those of a plain tensor are called "1", "2", ..."""
    if isinstance(pictures, Tensor):
        pictures = {str(i + 1): picture for i, picture in enumerate(pictures)}
    if not pictures:
        raise ValueError(f"there are no {what}: give at least one picture")
    for name, picture in pictures.items():
        try:
            check_samples(picture[None], sample_shape)
        except ValueError as error:
            raise ValueError(f"{what} {name!r}: {error}") from error
    return dict(pictures)


def _search(generator, pictures, settings, on_progress) -> tuple[Found, ...]:
    images = torch.stack(list(pictures.values()))
    starts, owners, scales = _starts(generator, len(images), settings)

    def objective(z: Tensor, rows: Tensor) -> Tensor:
        return (generator(z) - images[owners[rows]]).flatten(1).square().sum(1)

    latents, distances = descend(generator, starts, scales, objective, settings, on_progress)
    found = []
    for i, name in enumerate(pictures):
        mine = owners == i
        best = distances.masked_fill(~mine, math.inf).argmin()
        by_scale = tuple(distances[mine & (scales == scale)].min().item() for scale in settings.scales)
        label = name[1] if isinstance(name, tuple) else name
        found.append(Found(label, distances[best].item(), latents[best], scales[best].item(), by_scale))
    return tuple(found)


def _starts(generator: Generator, k: int, settings: SearchSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Starting latents, the picture that each is for, and its scale. All pictures start from the same latents."""
    rng = torch.Generator().manual_seed(settings.seed)
    parts, spreads = [], []
    for scale in settings.scales:
        n = settings.restarts if scale > 0.0 else 1
        parts.append(generator.latent.starts(n, scale, rng))
        spreads.append(torch.full((n,), scale))
    starts, scales = torch.cat(parts), torch.cat(spreads)
    return starts.repeat(k, 1), torch.arange(k).repeat_interleave(len(starts)), scales.repeat(k)


def descend(
    generator: Generator,
    starts: Tensor,
    scales: Tensor,
    objective: Callable[[Tensor, Tensor], Tensor],
    settings: SearchSettings,
    on_progress: OnProgress | None = None,
    project: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise objective(z, rows) -> (n,) from every start (n, dim); the best latent and value of each row's way."""
    best_z, best = starts.clone(), torch.full((len(starts),), math.inf)
    with evaluating(generator):
        for rows in torch.arange(len(starts)).split(settings.batch_size):
            # Adam is blind to a coordinate's unit, so a rate per row is a change of variable: z = start + rate * u.
            start, rate = starts[rows], (scales[rows] / 3.0).clamp_min(1.0)[:, None]
            u = torch.zeros_like(start, requires_grad=True)
            optimiser = torch.optim.Adam([u], settings.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
            for _ in range(settings.steps):
                z = start + rate * u
                if project is not None:
                    z = project(z)
                values = objective(z, rows)
                _keep(best_z, best, rows, z, values)
                optimiser.zero_grad()
                values.sum().backward(inputs=[u])
                optimiser.step()
                schedule.step()
            if on_progress is not None:
                on_progress(int(rows[-1]) + 1, len(starts))
    return best_z, best


@torch.no_grad()
def _keep(best_z: Tensor, best: Tensor, rows: Tensor, z: Tensor, values: Tensor) -> None:
    better = values < best[rows]
    best[rows[better]] = values[better]
    best_z[rows[better]] = z[better]
