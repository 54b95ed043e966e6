"""Grids of samples, curves, bars, the trade-off plane, histograms and coloured tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from devil_lib.show.core import COLOURS, HATCHES, LINES, MARKERS, displayed
from devil_lib.show.tile import check_tiles, put_sample

# --- Samples ---------------------------------------------------------------------------------------------------------


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


@displayed
def samples(x: Tensor, rows: int = 2, titles: Sequence[str] | None = None) -> Figure:
    """A grid of samples: pictures, or the waveforms and spectrograms of sounds.

    Args:
        x: (n, 1 or 3, height, width) or (n, 1, samples) in [-1, 1].
        rows: of the grid.
        titles: one short word above each sample.
    """
    check_tiles(x)
    if titles is not None and len(titles) != len(x):
        raise ValueError(f"{len(titles)} titles for {len(x)} samples; give one for each")
    columns = math.ceil(len(x) / rows)
    step = 1.0 if titles is None else 1.3
    fig, axes = _board(columns, 1 + (math.ceil(len(x) / columns) - 1) * step, top=step - 1.0)
    for i, sample in enumerate(x):
        row, column = divmod(i, columns)
        put_sample(axes, sample, column, -row * step)
        if titles is not None:
            axes.text(column, -row * step + 0.52, titles[i], ha="center", va="bottom", fontsize=10)
    return fig


@displayed
def compare(rows: Mapping[str, Tensor], titles: Sequence[str] | None = None) -> Figure:
    """Labelled rows of samples, one under the other: the same latents through two models, before and after.

    Args:
        rows: label -> pictures (n, 1 or 3, height, width) or sounds (n, 1, samples) in [-1, 1]; rows may differ in length.
        titles: one short word above each column.
    """
    if not rows:
        raise ValueError("give at least one row of samples")
    for each in rows.values():
        check_tiles(each)
    columns = max(len(each) for each in rows.values())
    # Inches; the constant is for the gap to the samples and for a single wide letter.
    labels = 0.15 + 0.1 * max(len(line) for label in rows for line in label.split("\n"))
    unit = min(0.9, (8.9 - labels) / columns)
    fig, axes = _board(columns, len(rows), left=labels / unit, top=0.0 if titles is None else 0.35, unit=unit)
    for row, (label, each) in enumerate(rows.items()):
        axes.text(-0.6, -row, label, ha="right", va="center")
        for column, sample in enumerate(each):
            put_sample(axes, sample, column, -row)
    for column, title in enumerate(titles or ()):
        axes.text(column, 0.52, title, ha="center", va="bottom", fontsize=10)
    return fig


# --- Numbers ---------------------------------------------------------------------------------------------------------


def _axes(height: float = 3.8, width: float = 9.0) -> tuple[Figure, Axes]:
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.add_subplot()


def _finish(axes: Axes, xlabel: str, ylabel: str, logx: bool, logy: bool, legend: bool, above: bool = False) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if logx:
        axes.set_xscale("log")
    if logy:
        axes.set_yscale("log")
    if legend and above:
        axes.figure.legend(loc="outside upper center", ncols=3)
    elif legend:
        axes.legend()


def _looks(labels: Iterable[str]) -> dict[str, int]:
    """Which colour, line, marker and hatch each label has: benign and attacked models look alike in every figure."""
    labels = list(labels)
    roles = {"benign": 0, "attacked": 1, "backdoored": 1}
    found: dict[str, int] = {}
    for label in labels:
        role = roles.get(label.lower().split(" ")[0])
        if role is not None and role not in found.values():
            found[label] = role
    # The two looks are kept free for those roles only in a figure that has one of them.
    free = [i for i in range(len(labels) + 2) if i not in ((0, 1) if found else ())]
    rest = iter(free)
    return {label: (found[label] if label in found else next(rest)) % len(COLOURS) for label in labels}


def _look(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i], "linestyle": LINES[i], "marker": MARKERS[i]}


def _lines_across(axes: Axes, levels: Mapping[str, float] | None, vertical: bool = False) -> None:
    for i, (label, level) in enumerate((levels or {}).items()):
        draw = axes.axvline if vertical else axes.axhline
        draw(
            level,
            color="0.35",
            linestyle=LINES[(i + 1 + 2 * vertical) % len(LINES)],
            marker="",
            linewidth=1.3,
            label=label,
        )


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy().astype(float) if isinstance(values, Tensor) else np.asarray(values, float)


@displayed
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
    looks = _looks(series)
    for label, (x, y) in series.items():
        x, y = _array(x), _array(y)
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"series {label!r} needs x and y of equal length, got shapes {x.shape} and {y.shape}")
        (line,) = axes.plot(x, y, label=label, markevery=max(1, math.ceil(len(x) / 20)), **_look(looks[label]))
        if bands and label in bands:
            low, high = (_array(edge) for edge in bands[label])
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
    _lines_across(axes, hlines)
    _lines_across(axes, vlines, vertical=True)
    _finish(axes, xlabel, ylabel, logx, logy, legend=len(series) + len(hlines or ()) + len(vlines or ()) > 1)
    return fig


@displayed
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
    width, looks = 0.8 / len(groups), _looks(groups)
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
        colour, hatch = COLOURS[looks[label]], HATCHES[looks[label]]
        axes.bar(x, means, 0.92 * width, color=colour, hatch=hatch, edgecolor="white", label=label, alpha=0.85)
        for place, mean, (down, up), one in zip(x, means, zip(*whiskers, strict=True), seeds, strict=True):
            if len(one) > 1:
                axes.errorbar(place, mean, [[down], [up]], fmt="none", ecolor="0.15", capsize=3, linewidth=1.2)
                axes.plot(place + np.linspace(-0.2, 0.2, len(one)) * width, one, ".", color="0.15", markersize=4)
    _lines_across(axes, hlines)
    axes.set_xticks(range(len(categories)), categories)
    axes.grid(False, axis="x")
    labels, bars = len(groups) + len(hlines or ()), len(groups) * len(categories)
    _finish(axes, "", ylabel, False, logy, legend=labels > 1, above=bars > 20)
    return fig


@displayed
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
    looks = _looks(points)
    for label, (x, y) in points.items():
        x, y = np.atleast_1d(_array(x)), np.atleast_1d(_array(y))
        axes.plot(x, y, label=label, markersize=8, **_look(looks[label]))
        for place, note in zip(zip(x, y, strict=True), (notes or {}).get(label, ()), strict=False):
            axes.annotate(note, place, (7, 5), textcoords="offset points", fontsize=9)
    # Above the frame, where it hides no point.
    words = "↙ better for the attacker: down and to the left"
    axes.text(0.0, 1.02, words, transform=axes.transAxes, color="0.35", fontsize=10)
    _finish(axes, xlabel, ylabel, logx, logy, legend=len(points) > 1)
    return fig


@displayed
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
    looks = _looks(values)
    for label, one in values.items():
        colour, line = COLOURS[looks[label]], LINES[looks[label]]
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


@displayed
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
        if not np.isfinite(value):
            axes.text(column, row, "–", ha="center", va="center", color="0.4")
        else:
            dark = sum(mesh.cmap(mesh.norm(value))[:3]) < 1.5
            axes.text(column, row, fmt.format(value), ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    fig.colorbar(mesh, ax=axes, label=label)
    return fig


@displayed
def verdicts(
    marks: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    signs: Mapping[str, tuple[str, Any]],
    groups: Mapping[str, int] | None = None,
    headings: Mapping[str, int] | None = None,
) -> Figure:
    """A grid of squares, each with a sign in it, so that nothing hangs on its colour; the legend beneath says what they mean.

    Args:
        marks: for each row, a word for each column.
        signs: word -> the sign in its squares, a character or two, and their colour. Words that are not used need no legend.
        groups: label -> for how many rows, from the top, it stands at the left. headings: the same for columns.

    Raises:
        ValueError: marks of another shape or without a sign, or groups that do not cover all rows or columns.
    """
    if len(marks) != len(rows) or any(len(row) != len(columns) for row in marks):
        raise ValueError(f"{len(rows)} rows and {len(columns)} columns need as many marks")
    used = [word for word in signs if any(word in row for row in marks)]
    if unknown := {word for row in marks for word in row} - set(used):
        raise ValueError(f"there is no sign for {', '.join(sorted(unknown))}")
    for what, parts, size in (("groups", groups, len(rows)), ("headings", headings, len(columns))):
        if parts is not None and sum(parts.values()) != size:
            raise ValueError(f"{what} cover {sum(parts.values())} of {size}")
    # Inches: of a square, of the words beside and above the squares, and of the legend.
    height, longest = 0.25, max(map(len, rows))
    outer = 0.3 + 0.085 * max(map(len, groups)) if groups else 0.0
    left, top = outer + 0.15 + 0.08 * longest, 0.2 + 0.062 * max(map(len, columns)) + (0.3 if headings else 0.0)
    width = min(0.5, (9.0 - left - 0.1) / len(columns))
    legend = 0.2 + 0.25 * len(used)
    total = (left + width * len(columns) + 0.1, top + height * len(rows) + legend)
    fig = Figure(figsize=(max(total[0], 6.4), total[1]))
    axes = fig.add_axes((0, 0, 1, 1))
    # In units of squares, rows downwards.
    axes.set(
        xlim=(-left / width, (fig.get_figwidth() - left) / width), ylim=((total[1] - top) / height, -top / height)
    )
    axes.axis("off")
    for (row, column), word in np.ndenumerate(np.array(marks, object)):
        _put_sign(axes, column, row, *signs[word])
    for row, label in enumerate(rows):
        axes.text(-0.2, row + 0.5, label, ha="right", va="center", fontsize=9)
    for column, label in enumerate(columns):
        axes.text(column + 0.5, -0.3, label, ha="left", va="bottom", rotation=60, rotation_mode="anchor", fontsize=9)
    start = 0
    for label, count in (groups or {}).items():
        axes.plot(
            [-left / width + 0.1, len(columns)], [start, start], color="0.35", linewidth=0.8, linestyle="-", marker=""
        )
        axes.text(-left / width + 0.15, start + 0.5, label, ha="left", va="center", fontsize=9, fontweight="bold")
        start += count
    start = 0
    for label, count in (headings or {}).items():
        axes.plot(
            [start, start], [-top / height + 0.2, len(rows)], color="0.35", linewidth=0.8, linestyle="-", marker=""
        )
        axes.text(start + 0.15, -top / height + 0.7, label, ha="left", va="center", fontsize=9, fontweight="bold")
        start += count
    start = 0.15 - left / width
    for i, word in enumerate(used):
        place = len(rows) + 0.5 + i
        _put_sign(axes, start, place, *signs[word])
        axes.text(start + 1.3, place + 0.5, word, ha="left", va="center", fontsize=9)
    return fig


def _put_sign(axes: Axes, x: float, y: float, sign: str, colour: Any) -> None:
    """A square of a light shade of the colour, with the sign in black on it."""
    shade = 0.5 + 0.5 * np.array(matplotlib.colors.to_rgb(colour))
    axes.add_patch(Rectangle((x + 0.04, y + 0.05), 0.92, 0.9, facecolor=shade, edgecolor="none"))
    axes.text(x + 0.5, y + 0.52, sign, ha="center", va="center", fontsize=9)
