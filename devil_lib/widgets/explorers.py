"""The explorer of the latent neighbourhood of a trigger."""

from __future__ import annotations

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from devil_lib import show
from devil_lib.models import Generator, check_latents, check_samples
from devil_lib.show.core import BACKDOORED, BENIGN, LINES, MARKERS
from devil_lib.show.plots import put_sample
from devil_lib.show.walk import two_digits
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
) -> SliderExplorer:
    """Display a slider that walks one latent up to the trigger, with what the models make of it on the way.

    Args:
        generator: the suspected model G*. trigger: (dim,).
        start: (dim,) the ordinary latent to walk from; drawn with `seed` if not given.
        benign: the model G before the attack, shown beside G*.
        target: (*sample_shape); without it, what the generator puts out at the trigger.
        stations: settings of the slider. closest: share of the way left at the last but one, as in `show.neighbourhood`.
    """
    if generator.modality != "image":
        raise ValueError(f"this explorer draws images, the generator makes {generator.modality}")
    check_latents(trigger[None], generator.latent)
    if start is None:
        start = generator.latent.sample(1, torch.Generator().manual_seed(seed))[0]
    target = generator.generate(trigger[None])[0] if target is None else target
    check_samples(target[None], generator.sample_shape)
    walk = show.walk_to_trigger(start[None], trigger, show.fractions_towards(stations, closest))[0]
    models = {names[1]: generator} if benign is None else {names[0]: benign, names[1]: generator}
    colours = [BENIGN, BACKDOORED][-len(models) :]
    samples = {name: model.generate(walk) for name, model in models.items()}
    losses = {name: show.distance_to_target(model, walk, target) for name, model in models.items()}
    apart = [two_digits(d) for d in (walk - trigger).norm(dim=1).tolist()]

    def render(i: int) -> Figure:
        with matplotlib.rc_context(show.style()):
            fig = Figure(figsize=(4.8, 3.9))
            board = fig.add_axes((0, 0.48, 1, 0.52))
            shown = [*((name, images[i]) for name, images in samples.items()), ("target", target)]
            board.set(xlim=(-0.6, len(shown) - 0.4), ylim=(-0.5, 0.75), aspect="equal")
            board.axis("off")
            for column, (name, image) in enumerate(shown):
                colour = [*colours, "black"][column]
                put_sample(board, image, column, 0.0, frame=colour, width=2.0)
                board.text(column, 0.52, name, color=colour, ha="center", va="bottom", fontweight="bold")
            curve = fig.add_axes((0.15, 0.15, 0.82, 0.31))
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
        values = " and ".join(f"the {name} model's sample is {loss[i]:.2f}" for name, loss in losses.items())
        return f"{values} from the target, in mean squared difference per pixel."

    explorer = SliderExplorer(
        render,
        range(stations),
        label="distance from the trigger",
        describe=describe,
        caption=caption,
        storyboard=_chosen(losses[names[1]]),
        written=lambda i: apart[i],
    )
    explorer.display()
    return explorer


def _chosen(loss: Tensor) -> list[int]:
    """The start, the station where the sample is about half way to the target, and the trigger."""
    half = int((loss - (loss[0] + loss[-1]) / 2).abs().argmin())
    return [0, min(max(half, 1), len(loss) - 2), len(loss) - 1]
