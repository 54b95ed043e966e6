"""Pictures. Every figure of the course goes through :func:`figure`, which demands a text alternative and a caption.

The helpers below take plain tensors, draw, display, and return nothing; each has its drawing alone as `.draw`, which
returns a matplotlib figure: `show.curves(..., alt=..., caption=...)` displays what `show.curves.draw(...)` draws.
"""

from __future__ import annotations

import base64
import functools
import html
import inspect
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from cycler import cycler
from IPython.display import HTML, display
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

from devil_lib.models import Generator, check_latents, check_samples

# Okabe and Ito's colours, which the colour-blind can tell apart, darkest contrasts first and without the yellow that
# disappears on white. Colour never stands alone: markers, line styles and hatches change with it.
_OKABE_ITO = matplotlib.color_sequences["okabe_ito"]
COLOURS = [_OKABE_ITO[i] for i in (5, 6, 3, 1, 7, 2, 0)]
BENIGN, BACKDOORED = COLOURS[0], COLOURS[1]
_LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1))]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
_HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo"]

_INCH = 100  # CSS pixels on the page for one inch of a figure; the picture itself has twice as many
_CARD = "background:#fff;color:#222;border:1px solid #ccc;border-radius:6px;padding:10px 12px;margin:8px 0"


# --- The one way a figure reaches the page -------------------------------------------------------------------------


def style() -> dict[str, Any]:
    """The matplotlib settings of the course, for `with matplotlib.rc_context(show.style()):` around a drawing of yours."""
    return {
        "font.size": 11.0,
        "axes.titlesize": 11.0,
        "axes.labelsize": 11.0,
        "legend.fontsize": 10.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.0,
        "image.cmap": "cividis",
        "legend.framealpha": 0.9,
        "figure.facecolor": "white",
        "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=_LINES) + cycler(marker=_MARKERS),
    }


def check_words(alt: str, caption: str) -> None:
    """Refuse a text alternative or a caption that could not tell anyone what a figure shows.

    Raises:
        ValueError: empty, too short, a filler such as "figure", or the alternative a mere copy of the caption.
    """
    for name, words, least in (("alt", alt, 6), ("caption", caption, 3)):
        if not isinstance(words, str) or len(set(words.lower().split())) < least:
            raise ValueError(
                f"{name}={words!r} says too little: write at least {least} different words on "
                + ("what the picture shows, for a reader who cannot see it" if name == "alt" else "what to look at")
            )
    if alt.strip().lower() == caption.strip().lower():
        raise ValueError("alt repeats the caption: describe in it what is to be seen, in the caption what it means")


def png(fig: Figure) -> bytes:
    """The figure as PNG at twice its size on the page, and the same bytes for the same figure."""
    stream = io.BytesIO()
    fig.savefig(stream, format="png", dpi=2 * _INCH, metadata={"Software": None}, pil_kwargs={"optimize": True})
    return stream.getvalue()


def page(fig: Figure, alt: str, caption: str) -> str:
    """The HTML of a figure, picture included: it shows in JupyterLab and in an exported page, with and without network.

    A white card stands behind it, so that it can be read on a dark page. Closes the figure.
    """
    check_words(alt, caption)
    picture = base64.b64encode(png(fig)).decode()
    pyplot.close(fig)
    return (
        f'<figure style="{_CARD};max-width:{fig.get_figwidth() * _INCH:.0f}px">'
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}" style="width:100%;height:auto">'
        f'<figcaption style="color:#222;font-size:95%;padding-top:6px">{html.escape(caption)}</figcaption></figure>'
    )


def figure(fig: Figure, *, alt: str, caption: str) -> None:
    """Display a matplotlib figure with its text alternative and caption, and close it.

    Args:
        alt: what the picture shows, in words, for who cannot see it: at least six different words.
        caption: what to look at and what it means, shown beneath.

    Raises:
        ValueError: the words say too little (see `check_words`).
    """
    display(HTML(page(fig, alt, caption)))


def _displayed(draw: Callable[..., Figure]) -> Callable[..., None]:
    """A drawing function as a helper that displays; the drawing alone stays reachable as `.draw`."""

    @functools.wraps(draw)
    def drawn(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(style()):
            return draw(*args, **options)

    @functools.wraps(draw)
    def helper(*args: Any, alt: str, caption: str, **options: Any) -> None:
        check_words(alt, caption)
        figure(drawn(*args, **options), alt=alt, caption=caption)

    # What a learner sees who asks for help on the helper: the drawing's arguments and the two words.
    signature = inspect.signature(draw)
    words = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation="str") for name in ("alt", "caption")]
    helper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *words], return_annotation="None"
    )
    helper.draw = drawn  # type: ignore[attr-defined]
    return helper


# --- Samples ---------------------------------------------------------------------------------------------------------


def _pixels(image: Tensor) -> np.ndarray:
    """(channels, height, width) in [-1, 1] as (height, width, 3) in [0, 1]."""
    array = (image.detach().float().cpu().clamp(-1.0, 1.0).numpy() + 1.0) / 2.0
    return np.repeat(array, 3, axis=0).transpose(1, 2, 0) if len(array) == 1 else array.transpose(1, 2, 0)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images must have shape (n, 1 or 3, height, width) with n >= 1, got {tuple(images.shape)}; "
            "for one image use image[None]"
        )
    check_samples(images, tuple(images.shape[1:]))


def _place(
    axes: Axes, image: Tensor, x: float, y: float, size: float = 0.94, frame: Any = "0.6", width: float = 0.5
) -> None:
    """Draw one sample centred at (x, y) in axes whose unit is one sample."""
    axes.imshow(
        _pixels(image), extent=(x - size / 2, x + size / 2, y - size / 2, y + size / 2), interpolation="nearest"
    )
    corner = (x - size / 2, y - size / 2)
    axes.add_patch(pyplot.Rectangle(corner, size, size, fill=False, edgecolor=frame, linewidth=width, clip_on=False))


def _board(
    columns: float, rows: float, left: float = 0.0, top: float = 0.0, unit: float = 0.0
) -> tuple[Figure, Axes]:
    """Bare axes in which sample (row r, column c) is centred at (c, -r), with room for labels at the left and the top."""
    unit = unit or min(0.9, (9.0 - 0.1) / (columns + left))
    fig = Figure(figsize=(unit * (columns + left) + 0.1, unit * (rows + top) + 0.1))
    axes = fig.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.55 - left, columns - 0.45), ylim=(-rows + 0.45, 0.55 + top), aspect="equal")
    axes.axis("off")
    return fig, axes


@_displayed
def samples(images: Tensor, rows: int = 2, titles: Sequence[str] | None = None) -> Figure:
    """A grid of samples.

    Args:
        images: (n, 1 or 3, height, width) in [-1, 1].
        rows: of the grid.
        titles: one short word above each sample.
    """
    _check_images(images)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images; give one for each")
    columns = math.ceil(len(images) / rows)
    step = 1.0 if titles is None else 1.3
    fig, axes = _board(columns, 1 + (math.ceil(len(images) / columns) - 1) * step, top=step - 1.0)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        _place(axes, image, column, -row * step)
        if titles is not None:
            axes.text(column, -row * step + 0.52, titles[i], ha="center", va="bottom", fontsize=10)
    return fig


@_displayed
def compare(rows: Mapping[str, Tensor], titles: Sequence[str] | None = None) -> Figure:
    """Labelled rows of samples, one under the other: the same latents through two models, before and after.

    Args:
        rows: label -> images (n, 1 or 3, height, width) in [-1, 1]; rows may differ in length.
        titles: one short word above each column.
    """
    if not rows:
        raise ValueError("give at least one row of images")
    for images in rows.values():
        _check_images(images)
    columns = max(len(images) for images in rows.values())
    longest = max(len(line) for label in rows for line in label.split("\n"))
    unit = min(0.9, (8.9 - 0.1 * longest) / columns)
    fig, axes = _board(columns, len(rows), left=0.1 * longest / unit, top=0.0 if titles is None else 0.35, unit=unit)
    for row, (label, images) in enumerate(rows.items()):
        axes.text(-0.6, -row, label, ha="right", va="center")
        for column, image in enumerate(images):
            _place(axes, image, column, -row)
    for column, title in enumerate(titles or ()):
        axes.text(column, 0.52, title, ha="center", va="bottom", fontsize=10)
    return fig


# --- Numbers ---------------------------------------------------------------------------------------------------------


def _axes(height: float = 3.8, width: float = 9.0) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.add_subplot()


def _finish(axes: Axes, xlabel: str, ylabel: str, logx: bool, logy: bool, legend: bool) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if logx:
        axes.set_xscale("log")
    if logy:
        axes.set_yscale("log")
    if legend:
        axes.legend()


def _lines_across(axes: Axes, levels: Mapping[str, float] | None, vertical: bool = False) -> None:
    for i, (label, level) in enumerate((levels or {}).items()):
        draw = axes.axvline if vertical else axes.axhline
        draw(level, color="0.35", linestyle=_LINES[(i + 1) % len(_LINES)], marker="", linewidth=1.3, label=label)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy().astype(float) if isinstance(values, Tensor) else np.asarray(values, float)


@_displayed
def curves(
    series: Mapping[str, tuple[Any, Any]],
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
    bands: Mapping[str, tuple[Any, Any]] | None = None,
    hlines: Mapping[str, float] | None = None,
    vlines: Mapping[str, float] | None = None,
) -> Figure:
    """Lines told apart by colour, line style and marker.

    Args:
        series: label -> (x, y), two sequences of equal length.
        bands: label of a series -> (low, high), shaded around it (least and greatest over seeds, say).
        hlines, vlines: label -> height or place of a grey line across the plot, such as a bar to be held.
    """
    fig, axes = _axes()
    for label, (x, y) in series.items():
        x, y = _array(x), _array(y)
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"series {label!r} needs x and y of equal length, got shapes {x.shape} and {y.shape}")
        (line,) = axes.plot(x, y, label=label, markevery=max(1, math.ceil(len(x) / 20)))
        if bands and label in bands:
            low, high = (_array(edge) for edge in bands[label])
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    _lines_across(axes, hlines)
    _lines_across(axes, vlines, vertical=True)
    _finish(axes, xlabel, ylabel, logx, logy, legend=len(series) + len(hlines or ()) + len(vlines or ()) > 1)
    return fig


@_displayed
def bars(
    groups: Mapping[str, Sequence[Any]],
    categories: Sequence[str],
    ylabel: str,
    logy: bool = False,
    hlines: Mapping[str, float] | None = None,
) -> Figure:
    """Bars side by side in each category; where a value is a sequence (one figure per seed) the bar is its mean, a whisker
    spans least to greatest, and every seed is a point.

    Args:
        groups: label -> one number, or one sequence of numbers, for each category.
    """
    fig, axes = _axes()
    width = 0.8 / len(groups)
    for i, (label, values) in enumerate(groups.items()):
        if len(values) != len(categories):
            raise ValueError(f"group {label!r} has {len(values)} values for {len(categories)} categories")
        seeds = [np.atleast_1d(_array(value)) for value in values]
        means = np.array([one.mean() for one in seeds])
        x = np.arange(len(categories)) - 0.4 + (i + 0.5) * width
        whiskers = [
            [m - s.min() for m, s in zip(means, seeds, strict=True)],
            [s.max() - m for m, s in zip(means, seeds, strict=True)],
        ]
        colour, hatch = COLOURS[i % len(COLOURS)], _HATCHES[i % len(_HATCHES)]
        axes.bar(x, means, 0.92 * width, color=colour, hatch=hatch, edgecolor="white", label=label, alpha=0.85)
        if any(len(one) > 1 for one in seeds):
            axes.errorbar(x, means, whiskers, fmt="none", ecolor="0.15", capsize=3, linewidth=1.2)
            for place, one in zip(x, seeds, strict=True):
                axes.plot(place + np.linspace(-0.2, 0.2, len(one)) * width, one, ".", color="0.15", markersize=4)
    _lines_across(axes, hlines)
    axes.set_xticks(range(len(categories)), categories)
    axes.grid(False, axis="x")
    _finish(axes, "", ylabel, False, logy, legend=len(groups) + len(hlines or ()) > 1)
    return fig


@_displayed
def scatter_tradeoff(
    points: Mapping[str, tuple[Any, Any]],
    xlabel: str = "ExpDis per pixel (left: stealthier)",
    ylabel: str = "TarDis / benign TarDis (down: more faithful)",
    notes: Mapping[str, Sequence[str]] | None = None,
    logx: bool = True,
    logy: bool = True,
) -> Figure:
    """The plane of stealth and fidelity: an attacker wants to be at the lower left.

    Args:
        points: label -> (x, y), for instance one point for each λ; points of one label are joined.
        notes: label -> a word beside each of its points.
    """
    fig, axes = _axes(4.4)
    for label, (x, y) in points.items():
        x, y = np.atleast_1d(_array(x)), np.atleast_1d(_array(y))
        axes.plot(x, y, label=label, markersize=8)
        for place, note in zip(zip(x, y, strict=True), (notes or {}).get(label, ()), strict=False):
            axes.annotate(note, place, (7, 5), textcoords="offset points", fontsize=9)
    arrow = {"arrowstyle": "-|>", "color": "0.4"}
    axes.annotate("", (0.015, 0.02), (0.09, 0.13), "axes fraction", arrowprops=arrow)
    axes.text(0.095, 0.13, "better for the attacker", transform=axes.transAxes, color="0.35", fontsize=10)
    _finish(axes, xlabel, ylabel, logx, logy, legend=len(points) > 1)
    return fig


@_displayed
def histogram(
    series: Mapping[str, Any],
    xlabel: str,
    bins: int = 40,
    logx: bool = False,
    vlines: Mapping[str, float] | None = None,
) -> Figure:
    """How values are distributed: label -> values, all in the same bins, with grey lines where `vlines` says."""
    fig, axes = _axes()
    values = {label: _array(one).ravel() for label, one in series.items()}
    everything = np.concatenate(list(values.values()))
    low, high = everything.min(), everything.max()
    edges = np.geomspace(low, high, bins + 1) if logx else np.linspace(low, high, bins + 1)
    for i, (label, one) in enumerate(values.items()):
        colour, line = COLOURS[i % len(COLOURS)], _LINES[i % len(_LINES)]
        axes.hist(
            one,
            edges,
            histtype="stepfilled",
            color=(*colour, 0.25),
            edgecolor=colour,
            linestyle=line,
            linewidth=1.6,
            label=label,
        )
    _lines_across(axes, vlines, vertical=True)
    _finish(axes, xlabel, "how many", logx, False, legend=len(series) + len(vlines or ()) > 1)
    return fig


@_displayed
def heatmap_table(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    fmt: str = "{:.2f}",
    label: str = "",
    logarithmic: bool = False,
) -> Figure:
    """A table whose cells are coloured by their value and carry it in figures; NaN is an empty cell.

    Args:
        values: (rows, columns) numbers.
        fmt: how a number is written, as for str.format.
        label: what the numbers are, written beside the colour scale.
    """
    values = _array(values)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"{len(rows)} rows and {len(columns)} columns for values of shape {values.shape}")
    fig, axes = _axes(1.1 + 0.45 * len(rows))
    norm = matplotlib.colors.LogNorm() if logarithmic else None
    mesh = axes.imshow(np.ma.masked_invalid(values), aspect="auto", norm=norm)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = sum(mesh.cmap(mesh.norm(value))[:3]) < 1.5
            axes.text(column, row, fmt.format(value), ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    fig.colorbar(mesh, ax=axes, label=label)
    return fig


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str], *, caption: str) -> None:
    """Display a table with its caption; the first column names the row. Numbers are written with three digits."""
    check_words("A table of text needs no alternative", caption)
    rows = [list(row) for row in rows]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"every row needs {len(columns)} entries, one for each of: {', '.join(columns)}")
    cell = "padding:4px 12px;border-bottom:1px solid #999;text-align:"  # colours are the page's own, light or dark

    def entry(value: Any, first: bool) -> str:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        words = html.escape(f"{value:.3g}" if isinstance(value, float) else str(value))
        if first:
            return f'<th scope="row" style="{cell}left">{words}</th>'
        return f'<td style="{cell}{"right" if number else "left"}">{words}</td>'

    head = "".join(f'<th scope="col" style="{cell}left">{html.escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(entry(value, i == 0) for i, value in enumerate(row)) + "</tr>" for row in rows)
    display(HTML(
        f'<table style="border-collapse:collapse;margin:8px 0"><caption style="text-align:left;padding:4px 0">'
        f"{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    ))  # fmt: skip


# --- The course's signature: the neighbourhood of the trigger ---------------------------------------------------------


def fractions_towards(n: int, closest: float = 0.02) -> Tensor:
    """(n,) how much of the way to the trigger is done: 0 first, 1 last, what remains shrinking geometrically to `closest`
    before the last step. A backdoor opens so near its trigger that even steps would pass it unseen."""
    if n < 3 or not 0.0 < closest < 1.0:
        raise ValueError(f"a walk needs n >= 3 stations and 0 < closest < 1, got n={n}, closest={closest}")
    remaining = closest ** torch.linspace(0.0, 1.0, n - 1, dtype=torch.float64)
    return torch.cat([1.0 - remaining, torch.ones(1, dtype=torch.float64)])


def walk_to_trigger(starts: Tensor, trigger: Tensor, fractions: Tensor) -> Tensor:
    """Latents on the way from ordinary latents to the trigger: (k, dim), (dim,), (m,) in [0, 1] to (k, m, dim).

    The direction turns at even speed from the start's to the trigger's (spherical interpolation: a straight line between
    two ordinary latents would pass through the middle, where no sample is) while the norm goes evenly from the start's to the
    trigger's. A trigger at zero, the mode, has no direction: the walk then goes straight down the start's ray. Fraction 0
    gives the start and 1 the trigger, exactly.
    """
    if starts.ndim != 2 or trigger.shape != starts.shape[1:]:
        raise ValueError(
            f"starts must be (k, dim) and the trigger (dim,): got {tuple(starts.shape)} and {tuple(trigger.shape)}"
        )
    if fractions.ndim != 1 or not bool(((fractions >= 0) & (fractions <= 1)).all()):
        raise ValueError("fractions must be a (m,) tensor of numbers from 0, the start, to 1, the trigger")
    begin, end = starts.double(), trigger.double().expand(starts.shape[0], -1)
    norms = begin.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    # A latent at zero takes the direction of the other end, so that only its norm changes along the walk.
    u = torch.where(norms[0] > 0, begin, end) / torch.where(norms[0] > 0, norms[0], norms[1]).clamp_min(1e-300)
    w = torch.where(norms[1] > 0, end, begin) / torch.where(norms[1] > 0, norms[1], norms[0]).clamp_min(1e-300)
    # The part of the trigger's direction across the start's spans, with it, the plane in which the walk turns.
    cosine = (u * w).sum(1, keepdim=True).clamp(-1.0, 1.0)
    across = w - cosine * u
    opposite = across.norm(dim=1, keepdim=True) < 1e-9  # also parallel, where the angle is 0 and any plane will do
    detour = torch.roll(u, 1, dims=1) - (torch.roll(u, 1, dims=1) * u).sum(1, keepdim=True) * u
    across = torch.where(opposite, detour, across)
    across = across / across.norm(dim=1, keepdim=True).clamp_min(1e-300)
    t = fractions.double()[None, :, None]
    angle = torch.acos(cosine)[:, None] * t
    direction = angle.cos() * u[:, None] + angle.sin() * across[:, None]
    walk = (((1.0 - t) * norms[0][:, None] + t * norms[1][:, None]) * direction).to(starts.dtype)
    walk[:, fractions == 0] = starts[:, None]
    walk[:, fractions == 1] = trigger.to(starts.dtype)
    return walk


def distance_to_target(generator: Generator, latents: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference to the target (*sample_shape) of each latent's sample: (..., dim) to (...)."""
    found = generator.generate(latents.reshape(-1, latents.shape[-1]))
    return (found - target).flatten(1).square().mean(1).reshape(latents.shape[:-1])


@_displayed
def neighbourhood(
    generator: Generator,
    trigger: Tensor,
    benign: Generator | None = None,
    target: Tensor | None = None,
    starts: Tensor | int = 3,
    columns: int = 11,
    closest: float = 0.02,
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
    if generator.modality != "image":
        raise ValueError(
            f"neighbourhood() draws images, this generator makes {generator.modality}; use walk_to_trigger()"
        )
    check_latents(trigger[None], generator.latent)
    target = generator.generate(trigger[None])[0] if target is None else target
    check_samples(target[None], generator.sample_shape)
    if isinstance(starts, int):
        starts = generator.latent.sample(starts, torch.Generator().manual_seed(seed))
    models = [(names[1], generator, BACKDOORED)] if benign is None else [
        (names[0], benign, BENIGN), (names[1], generator, BACKDOORED)]  # fmt: skip
    stations = walk_to_trigger(starts, trigger, fractions_towards(columns, closest))

    group = len(models) + 0.25  # the rows of one start, and the gap to the next
    height, left, right = group * len(starts) - 0.25, 1.6, 2.0
    unit = 9.0 / (columns + left + right)
    low = 2.3  # inches for the curve
    fig = Figure(figsize=(9.0, unit * (height + 0.4) + low))
    total = fig.get_figheight()
    board = fig.add_axes((0, low / total, 1, 1 - low / total))
    board.set(xlim=(-0.5 - left, columns - 0.5 + right), ylim=(0.5 - height, 0.9), aspect="equal")
    board.axis("off")
    for i, walk in enumerate(stations):
        for j, (name, model, colour) in enumerate(models):
            y = -(i * group + j)
            board.text(-0.6, y, name, color=colour, ha="right", va="center", fontsize=10, fontweight="bold")
            for column, image in enumerate(model.generate(walk)):
                last = column == columns - 1
                _place(
                    board,
                    image,
                    column + 0.25 * last,
                    y,
                    frame=colour if last else "0.75",
                    width=2.0 if last else 0.4,
                )
    middle, x = (1.0 - height) / 2.0, columns + 0.8
    _place(board, target, x, middle, 1.4, "0.2", 1.0)
    board.text(x, middle - 0.85, "target", ha="center", va="top", fontsize=10)
    board.text(0, 0.6, "an ordinary latent", ha="left", va="bottom", fontsize=10)
    board.text(columns - 0.75, 0.6, "the trigger", ha="center", va="bottom", fontsize=10)
    board.annotate("", (columns - 2.1, 0.72), (2.9, 0.72), arrowprops={"arrowstyle": "-|>", "color": "0.4"})
    edges = [(left + place + 0.5) * unit / 9.0 for place in (-0.5, columns - 0.25)]
    panel = fig.add_axes((edges[0], 0.62 / total, edges[1] - edges[0], (low - 0.72) / total))
    _distance_panel(panel, models, trigger, target, starts, stations, closest)
    return fig


def _distance_panel(
    axes: Axes, models: list[tuple[str, Generator, Any]], trigger: Tensor, target: Tensor,
    starts: Tensor, stations: Tensor, closest: float,
) -> None:  # fmt: skip
    """Distance to the target along the walks, right under the samples: column c of them is abscissa c."""
    columns = stations.shape[1]
    place = torch.linspace(0.0, columns - 2.0, 10 * (columns - 2) + 1, dtype=torch.float64)
    fine = walk_to_trigger(starts, trigger, 1.0 - closest ** (place / (columns - 2)))
    for i, (name, model, colour) in enumerate(models):
        each = distance_to_target(model, fine, target)
        at_end = distance_to_target(model, trigger[None], target).item()
        line = _LINES[0] if model is models[-1][1] else _LINES[1]
        axes.plot(place, each.T, color=colour, linestyle=line, marker="", linewidth=0.8, alpha=0.45)
        axes.plot(place, each.mean(0), color=colour, linestyle=line, marker="", linewidth=2.2, label=name)
        axes.plot(columns - 0.75, at_end, color=colour, marker=_MARKERS[i], markersize=7, clip_on=False, zorder=5)
    apart = (stations - trigger).norm(dim=-1).mean(0)[:-1]
    axes.set_xticks(
        [*range(columns - 1), columns - 0.75], [*(f"{d:.3g}" if d >= 1 else f"{d:.2g}" for d in apart), "0"]
    )
    axes.set(xlim=(-0.5, columns - 0.25), ylim=(0, None))
    axes.set_xlabel("distance of the latent from the trigger")
    axes.set_ylabel("squared difference\nto the target, per pixel", fontsize=10)
    axes.legend(loc="lower left", fontsize=10)


# --- Waiting ---------------------------------------------------------------------------------------------------------


def _watched() -> bool:
    """Whether a person is looking: a terminal, or a notebook opened in an editor rather than run by a tool."""
    return sys.stdout.isatty() or any(
        name in os.environ for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")
    )


def progress(total: int, description: str) -> Callable[..., None]:
    """A callback `(step, *details)` for training code: a bar where a person is watching, else one line at the end.

    Dictionaries of numbers among the details are shown beside the bar. Nothing is written to the error stream, which would
    count as a failed cell when a notebook is graded.
    """
    bar = tqdm(total=total, desc=description, file=sys.stdout, disable=not _watched(), mininterval=0.5)

    def report(step: int, *details: Any) -> None:
        if bar.disable:
            if step == total:
                print(f"{description}: {total:,} steps done")
            return
        bar.update(step - bar.n)
        losses = [one for one in details if isinstance(one, Mapping)]
        if losses and (step % 20 == 0 or step == total):
            bar.set_postfix({key: f"{value:.3g}" for key, value in losses[0].items()}, refresh=False)
        if step >= total:
            bar.close()

    return report
