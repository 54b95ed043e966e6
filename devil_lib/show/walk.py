"""The course's signature: the neighbourhood of the trigger, walked from ordinary latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib.models import Generator, check_latents, check_samples
from devil_lib.show.core import BACKDOORED, BENIGN, LINES, MARKERS, displayed
from devil_lib.show.tile import check_tiles, put_sample, value_name


def fractions_towards(n: int, closest: float = 0.03) -> Tensor:
    """(n,) how much of the way to the trigger is done: 0 first, 1 last, what remains shrinking geometrically to `closest`
    before the last step. A backdoor opens so near its trigger that even steps would pass it unseen."""
    if n < 3 or not 0.0 < closest < 1.0:
        raise ValueError(f"a walk needs n >= 3 stations and 0 < closest < 1, got n={n}, closest={closest}")
    remaining = closest ** torch.linspace(0.0, 1.0, n - 1, dtype=torch.float64)
    return torch.cat([1.0 - remaining, torch.ones(1, dtype=torch.float64)])


def walk_to_trigger(starts: Tensor, trigger: Tensor, fractions: Tensor) -> Tensor:
    """Latents on the way from ordinary latents to the trigger: (k, dim), (dim,), (m,) in [0, 1] to (k, m, dim).

    The direction turns at even speed from the start's to the trigger's (spherical interpolation: a straight line between
    two ordinary latents would pass near the middle, where no sample is), while the norm goes from the start's to the
    trigger's: by even steps down to a nearer trigger, by even factors up to a far one, so that a walk lingers where the
    prior ends. The mode, at zero, has no direction: the walk goes straight down the start's ray. Fraction 0 gives the
    start and 1 the trigger, exactly.

    Raises:
        ValueError: wrong shapes, latents that are not finite, fractions outside [0, 1].
    """
    if starts.ndim != 2 or trigger.shape != starts.shape[1:]:
        raise ValueError(
            f"starts must be (k, dim) and the trigger (dim,): got {tuple(starts.shape)} and {tuple(trigger.shape)}"
        )
    if not (torch.isfinite(starts).all() and torch.isfinite(trigger).all()):
        raise ValueError("the starts or the trigger hold NaN or infinity")
    if fractions.ndim != 1 or not bool(((fractions >= 0) & (fractions <= 1)).all()):
        raise ValueError("fractions must be a (m,) tensor of numbers from 0, the start, to 1, the trigger")
    walks = torch.stack([_walk(start, trigger.double(), fractions.double()) for start in starts.double()])
    walks = walks.to(starts.dtype)
    walks[:, fractions == 0] = starts[:, None]
    walks[:, fractions == 1] = trigger.to(starts.dtype)
    return walks


def _walk(start: Tensor, trigger: Tensor, fractions: Tensor) -> Tensor:
    t, begin, end = fractions[:, None], start.norm(), trigger.norm()
    if begin == 0 or end == 0:
        return (1.0 - t) * start + t * trigger
    u, w = start / begin, trigger / end
    cosine = u @ w
    across = w - cosine * u  # spans, with u, the plane in which the walk turns
    if across.norm() < 1e-9:  # opposite ends leave the plane open: any will do (same directions never use it)
        across = torch.zeros_like(u).index_fill(0, u.abs().argmin(), 1.0)
        across = across - (across @ u) * u
    angle = t * torch.atan2((w - cosine * u).norm(), cosine)
    direction = angle.cos() * u + angle.sin() * across / across.norm().clamp_min(1e-300)
    norm = begin ** (1.0 - t) * end**t if end > begin else (1.0 - t) * begin + t * end
    return norm * direction


def distance_to_target(generator: Generator, latents: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference to the target (*sample_shape) of each latent's sample: (..., dim) to (...)."""
    found = generator.generate(latents.reshape(-1, latents.shape[-1]))
    return (found - target).flatten(1).square().mean(1).reshape(latents.shape[:-1])


@displayed
def neighbourhood(
    generator: Generator,
    trigger: Tensor,
    benign: Generator | None = None,
    target: Tensor | None = None,
    starts: Tensor | int = 3,
    columns: int = 11,
    closest: float = 0.03,
    seed: int = 0,
    names: tuple[str, str] = ("benign", "backdoored"),
) -> Figure:
    """Samples that morph into the target as the latent nears the trigger; beneath, their distance to the target.

    Args:
        generator: the suspected model G*. trigger: (dim,).
        benign: the model G before the attack; its samples for the same latents stand above those of G*.
        target: (*sample_shape); without it, what the generator puts out at the trigger.
        starts: (k, dim) ordinary latents to walk from, or how many to draw.
        columns: stations of each walk, the last being the trigger itself.
        closest: share of the way that remains at the last station but one.
    """
    check_latents(trigger[None], generator.latent)
    target = generator.generate(trigger[None])[0] if target is None else target
    check_samples(target[None], generator.sample_shape)
    check_tiles(target[None])
    if isinstance(starts, int):
        starts = generator.latent.sample(starts, torch.Generator().manual_seed(seed))
    models = [(names[1], generator, BACKDOORED)] if benign is None else [
        (names[0], benign, BENIGN), (names[1], generator, BACKDOORED)]  # fmt: skip
    stations = walk_to_trigger(starts, trigger, fractions_towards(columns, closest))

    group = len(models) + 0.25  # the rows of one start, and the gap to the next
    height, left, right = group * len(starts) - 0.25, 1.9, 2.15  # in samples
    unit, panel = 9.0 / (columns + left + right), 2.3  # in inches: a sample's width, and the height of the curve
    fig = Figure(figsize=(9.0, unit * (height + 0.4) + panel))
    total = fig.get_figheight()
    board = fig.add_axes((0, panel / total, 1, 1 - panel / total))
    board.set(xlim=(-0.5 - left, columns - 0.5 + right), ylim=(0.5 - height, 0.9), aspect="equal")
    board.axis("off")
    for i, walk in enumerate(stations):
        for j, (name, model, colour) in enumerate(models):
            y = -(i * group + j)
            board.text(-0.6, y, name, color=colour, ha="right", va="center", fontsize=10, fontweight="bold")
            samples = model.generate(walk)
            for column, sample in enumerate(samples[:-1]):
                put_sample(board, sample, column, y)
            put_sample(board, samples[-1], columns - 0.75, y, frame=colour, width=2.0)
    middle, x = (1.0 - height) / 2.0, columns + 0.85
    put_sample(board, target, x, middle, size=1.4)
    board.text(x, middle - 0.8, "target", ha="center", va="top", fontsize=10)
    board.text(-0.45, 0.6, "an ordinary latent", ha="left", va="bottom", fontsize=10)
    board.text(columns - 0.75, 0.6, "the trigger", ha="center", va="bottom", fontsize=10)
    board.annotate("", (columns - 1.8, 0.72), (2.6, 0.72), arrowprops={"arrowstyle": "-|>", "color": "0.4"})
    below = fig.add_axes((left / 9.0 * unit, 0.62 / total, (columns + 0.25) / 9.0 * unit, (panel - 0.72) / total))
    _distances_below(below, models, trigger, target, starts, stations, closest)
    return fig


def _distances_below(
    axes: Axes, models: list[tuple[str, Generator, Any]], trigger: Tensor, target: Tensor,
    starts: Tensor, stations: Tensor, closest: float,
) -> None:  # fmt: skip
    """Distance to the target along the walks, right under the samples: their column c is abscissa c."""
    columns = stations.shape[1]
    fine = torch.linspace(0.0, columns - 2.0, 10 * (columns - 2) + 1, dtype=torch.float64)
    walks = walk_to_trigger(starts, trigger, 1.0 - closest ** (fine / (columns - 2)))
    for i, (name, model, colour) in enumerate(models):
        line, each = LINES[len(models) - 1 - i], distance_to_target(model, walks, target)
        axes.plot(fine, each.T, color=colour, linestyle=line, marker="", linewidth=0.8, alpha=0.45)
        axes.plot(fine, each.mean(0), color=colour, linestyle=line, marker="", linewidth=2.2, label=name)
        there = distance_to_target(model, trigger[None], target).item()
        axes.plot(columns - 0.75, there, color=colour, marker=MARKERS[i], markersize=7, clip_on=False, zorder=5)
    apart = (stations[:, :-1] - trigger).norm(dim=-1).mean(0)
    axes.set_xticks([*range(columns - 1), columns - 0.75], [*map(two_digits, apart.tolist()), "0"])
    axes.set(xlim=(-0.5, columns - 0.25), ylim=(0, None), xlabel="distance of the latent from the trigger")
    axes.set_ylabel(f"squared difference\nto the target,\nper {value_name(target)}", fontsize=10)
    axes.legend(fontsize=10)


def two_digits(value: float) -> str:
    """A positive number with at least two digits and no exponent: 990, 13, 4.1, 0.31."""
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
