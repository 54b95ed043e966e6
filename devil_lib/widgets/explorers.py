"""The explorers: the latent neighbourhood of a trigger, and a training step by step."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib import show
from devil_lib.models import Generator, check_latents, check_samples
from devil_lib.show.core import BACKDOORED, BENIGN, LINES, MARKERS
from devil_lib.show.tile import check_tiles, is_sound, put_sample, value_name
from devil_lib.show.walk import two_digits
from devil_lib.synthesis import RATE
from devil_lib.widgets.slider import SliderExplorer


def neighbourhood_explorer(
    generator: Generator,
    trigger: Tensor,
    start: Tensor | None = None,
    benign: Generator | None = None,
    target: Tensor | None = None,
    *,
    stations: int = 25,
    closest: float = 0.03,
    seed: int = 0,
    caption: str = "One walk from an ordinary latent to the trigger: far from it both models agree, near it they part.",
    names: tuple[str, str] = ("benign", "backdoored"),
    rate: int = RATE,
) -> SliderExplorer:
    """Display a slider that walks one latent up to the trigger, with what the models make of it on the way; sounds are
    drawn and played.

    Args:
        generator: the suspected model G*. trigger: (dim,).
        start: (dim,) the ordinary latent to walk from; drawn with `seed` if not given.
        benign: the model G before the attack, shown beside G*.
        target: (*sample_shape); without it, what the generator puts out at the trigger.
        stations: settings of the slider. closest: share of the way left at the last but one, as in `show.neighbourhood`.
        rate: samples per second of a sound.
    """
    check_latents(trigger[None], generator.latent)
    if start is None:
        start = generator.latent.sample(1, torch.Generator().manual_seed(seed))[0]
    target = generator.generate(trigger[None])[0] if target is None else target
    check_samples(target[None], generator.sample_shape)
    check_tiles(target[None])
    walk = show.walk_to_trigger(start[None], trigger, show.fractions_towards(stations, closest))[0]
    models = {names[1]: generator} if benign is None else {names[0]: benign, names[1]: generator}
    colours = [BENIGN, BACKDOORED][-len(models) :]
    samples = {name: model.generate(walk) for name, model in models.items()}
    losses = {name: show.distance_to_target(model, walk, target) for name, model in models.items()}
    apart = [two_digits(d) for d in (walk - trigger).norm(dim=1).tolist()]

    def at(i: int) -> dict[str, Tensor]:
        return {name: each[i] for name, each in samples.items()} | {"target": target}

    def render(i: int) -> Figure:
        with matplotlib.rc_context(show.style()):
            fig = Figure(figsize=(4.8, 3.9))
            board = fig.add_axes((0, 0.48, 1, 0.52))
            shown = at(i)
            board.set(xlim=(-0.6, len(shown) - 0.4), ylim=(-0.5, 0.75), aspect="equal")
            board.axis("off")
            for column, (name, sample) in enumerate(shown.items()):
                colour = [*colours, "black"][column]
                put_sample(board, sample, column, 0.0, frame=colour, width=2.0)
                board.text(column, 0.52, name, color=colour, ha="center", va="bottom", fontweight="bold")
            curve = fig.add_axes((0.19, 0.15, 0.78, 0.31))
            for j, (name, loss) in enumerate(losses.items()):
                line = LINES[len(models) - 1 - j]
                curve.plot(loss, color=colours[j], linestyle=line, marker="", label=name)
                curve.plot(i, loss[i], color=colours[j], marker=MARKERS[j], markersize=8, clip_on=False)
            curve.axvline(i, color="0.4", linewidth=1.0, marker="", linestyle="-")
            ticks = [*range(0, stations - 3, max(1, (stations - 1) // 5)), stations - 1]
            curve.set_xticks(ticks, [apart[k] for k in ticks])
            curve.set(xlim=(-0.5, stations - 0.5), ylim=(0, None), xlabel="distance from the trigger")
            curve.set_ylabel("squared diff.\nto the target", fontsize=10)
        return fig

    def describe(i: int) -> str:
        values = " and ".join(f"the {name} model's sample is {loss[i]:.3f}" for name, loss in losses.items())
        return f"{values} from the target, in mean squared difference per {value_name(target)}."

    explorer = SliderExplorer(
        render,
        range(stations),
        label="distance from the trigger",
        describe=describe,
        caption=caption,
        storyboard=_chosen(losses[names[1]]),
        written=lambda i: apart[i],
        sounds=at if is_sound(target) else None,
        rate=rate,
    )
    explorer.display()
    return explorer


def training_explorer(
    watch: show.Watch,
    measure: str,
    *,
    rows: int = 4,
    caption: str = "The samples of the same latents while the generator trains.",
    storyboard: Sequence[int] | None = None,
    played: int = 3,
    rate: int = RATE,
) -> SliderExplorer:
    """Display a slider through the snapshots of a training, with one of the figures measured at them.

    Args:
        watch: the `show.Watch` that was the training's callback.
        measure: which of its figures to draw beneath the samples.
        rows: of the sample grid.
        storyboard: steps to show side by side; by default the first, the middle and the last.
        played: how many of the samples, if they are sounds, can be played. rate: their samples per second.
    """
    if measure not in watch.measured:
        raise ValueError(
            f"nothing called {measure!r} was measured; the watch has {', '.join(watch.measured) or 'nothing'}"
        )
    values = dict(zip(watch.steps, watch.measured[measure], strict=True))
    grids = dict(zip(watch.steps, watch.samples, strict=True))

    def first(step: int) -> dict[str, Tensor]:
        return {f"sample {i + 1}": sample for i, sample in enumerate(grids[step][:played])}

    def render(step: int) -> Figure:
        with matplotlib.rc_context(show.style()):
            samples = grids[step]
            columns = -(-len(samples) // rows)
            upper = 4.6 / columns * rows  # inches
            fig = Figure(figsize=(4.8, upper + 1.75))
            board = fig.add_axes((0.02, 1.75 / (upper + 1.75), 0.96, upper / (upper + 1.75)))
            board.set(xlim=(-0.5, columns - 0.5), ylim=(0.5 - rows, 0.5), aspect="equal")
            board.axis("off")
            for i, sample in enumerate(samples):
                put_sample(board, sample, i % columns, -(i // columns))
            curve = fig.add_axes((0.17, 0.52 / (upper + 1.75), 0.79, 1.1 / (upper + 1.75)))
            curve.plot(watch.steps, list(values.values()), color=BENIGN)
            curve.plot(step, values[step], color=BACKDOORED, marker=MARKERS[1], markersize=10, clip_on=False)
            curve.set(xlabel="training step", ylim=(0, None))
            curve.set_ylabel(measure, fontsize=10)
        return fig

    explorer = SliderExplorer(
        render,
        watch.steps,
        label="training step",
        describe=lambda step: (
            f"{len(grids[step])} samples at the same latents as at the other steps; {measure}: {values[step]:.2g}."
        ),
        caption=caption,
        storyboard=storyboard,
        written=lambda step: f"{step:,}",
        sounds=first if is_sound(watch.samples[0][0]) else None,
        rate=rate,
    )
    explorer.display()
    return explorer


def _chosen(loss: Tensor) -> list[int]:
    """The start, the station where the sample is about half way to the target, and the trigger."""
    half = int((loss - (loss[0] + loss[-1]) / 2).abs().argmin())
    return [0, min(max(half, 1), len(loss) - 2), len(loss) - 1]
