"""How a figure reaches the page: its words, its style, its HTML."""

from __future__ import annotations

import base64
import functools
import html
import inspect
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from IPython.display import HTML, display
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colours, which the colour-blind can tell apart, darkest contrasts first and without the yellow that
# disappears on white. Colour never stands alone: markers, line styles and hatches change with it.
_OKABE_ITO = matplotlib.color_sequences["okabe_ito"]
COLOURS = [_OKABE_ITO[i] for i in (5, 6, 3, 1, 7, 2, 0)]
BENIGN, BACKDOORED = COLOURS[0], COLOURS[1]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
HATCHES = ["", "//", "..", "xx", "\\\\", "++", "oo"]

_INCH = 100  # CSS pixels on the page for one inch of a figure; the picture itself has twice as many
_CARD = "background:#fff;color:#222;border:1px solid #ccc;border-radius:6px;padding:10px 12px;margin:8px 0;line-height:1.4"


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
        "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=LINES) + cycler(marker=MARKERS),
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
    fig.savefig(stream, format="png", dpi=2 * _INCH)
    picture = Image.open(stream).convert("RGB")
    # 256 colours are enough for most figures, and a third of the bytes; photographs keep theirs. Finding the colours takes ten
    # seconds where there are many, so a sixteenth of the pixels is tried first.
    if _fits(picture.resize((max(1, picture.width // 4), max(1, picture.height // 4)), Image.Resampling.NEAREST)):
        picture = _fits(picture) or picture
    smallest = io.BytesIO()
    picture.save(smallest, format="PNG", optimize=True)
    return smallest.getvalue()


def _fits(picture: Image.Image) -> Image.Image | None:
    """The picture in 256 colours, or None where that would be seen."""
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    changed = np.asarray(palette.convert("RGB"), int) - np.asarray(picture, int)
    return palette if abs(changed).max() <= 16 else None


def figure_html(fig: Figure, alt: str, caption: str, beneath: str = "") -> str:
    """The HTML of a figure, picture included: it shows in JupyterLab and in an exported page, with and without network.

    A white card stands behind it, so that it can be read on a dark page. `beneath`: HTML between picture and caption, such as
    players. Closes the figure.
    """
    check_words(alt, caption)
    return card(picture(fig, alt) + beneath, caption, fig.get_figwidth())


def storyboard_html(frames: Sequence[tuple[str, Figure, str, str]], caption: str) -> str:
    """The HTML of several small figures side by side under one caption: (heading, figure, alt, HTML beneath) of each.
    Closes them."""
    for _, _, alt, _ in frames:
        check_words(alt, caption)
    return card(
        row(cell(heading, fig, picture(fig, alt) + beneath) for heading, fig, alt, beneath in frames), caption, 9.0
    )


def cell(heading: str, fig: Figure, content: str) -> str:
    """The HTML of one of several contents side by side, as wide as its figure where there is room."""
    return (
        f'<div style="flex:1 1 240px;max-width:{fig.get_figwidth() * _INCH:.0f}px">'
        f'<div style="text-align:center;font-weight:600">{html.escape(heading)}</div>{content}</div>'
    )


def row(cells: Iterable[str], attributes: str = "") -> str:
    """The HTML of cells side by side, on several lines where the page is narrow."""
    return f'<div {attributes} style="display:flex;flex-wrap:wrap;gap:12px">{"".join(cells)}</div>'


def picture(fig: Figure, alt: str) -> str:
    """The HTML of a figure alone, without a card. Closes the figure."""
    source = base64.b64encode(png(fig)).decode()
    pyplot.close(fig)
    look = f"display:block;width:100%;height:auto;max-width:{fig.get_figwidth() * _INCH:.0f}px"
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{source}" style="{look}">'


def card(content: str, caption: str, inches: float) -> str:
    """The HTML of a card: the content above its caption, on white, so that both can be read on a dark page."""
    words = f'<figcaption style="color:#222;padding-top:6px">{html.escape(caption)}</figcaption>'
    width = max(inches, 6.0) * _INCH  # a caption needs a line's length, even under a small picture
    return f'<figure style="{_CARD};max-width:{width:.0f}px">{content}{words}</figure>'


def figure(fig: Figure, *, alt: str, caption: str) -> None:
    """Display a matplotlib figure with its text alternative and caption, and close it.

    Args:
        alt: what the picture shows, in words, for who cannot see it: at least six different words.
        caption: what to look at and what it means, shown beneath.

    Raises:
        ValueError: the words say too little (see `check_words`).
    """
    put_on_page(figure_html(fig, alt, caption))


def put_on_page(page: str) -> None:
    """Display HTML as a cell's output."""
    display(HTML(page))


def in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A drawing function that draws in the style of the course."""

    @functools.wraps(draw)
    def drawn(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(style()):
            return draw(*args, **options)

    return drawn


def displayed(draw: Callable[..., Figure]) -> Callable[..., None]:
    """A drawing function as a helper that displays; the drawing alone stays reachable as `.draw`."""

    drawn = in_style(draw)

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


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str], *, caption: str) -> None:
    """Display a table with its caption; the first column names the row. Numbers are written with three digits."""
    check_words("A table of text needs no alternative", caption)
    rows = [list(row) for row in rows]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"every row needs {len(columns)} entries, one for each of: {', '.join(columns)}")
    cell = "padding:4px 12px;border-bottom:1px solid #999;text-align:"  # colours are the page's own, light or dark
    numeric = [all(isinstance(value, (int, float)) for value in column) for column in zip(*rows, strict=True)]

    def entry(value: Any, i: int) -> str:
        words = html.escape(f"{value:.3g}" if isinstance(value, float) else str(value))
        side = "right" if numeric[i] and i > 0 else "left"
        return (
            f'<th scope="row" style="{cell}left">{words}</th>' if i == 0 else f'<td style="{cell}{side}">{words}</td>'
        )

    head = "".join(
        f'<th scope="col" style="{cell}{"right" if i and number else "left"}">{html.escape(name)}</th>'
        for i, (name, number) in enumerate(zip(columns, numeric or [False] * len(columns), strict=True))
    )
    body = "".join("<tr>" + "".join(entry(value, i) for i, value in enumerate(row)) + "</tr>" for row in rows)
    put_on_page(
        f'<table style="border-collapse:collapse;margin:8px 0"><caption style="text-align:left;padding:4px 0">'
        f"{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
