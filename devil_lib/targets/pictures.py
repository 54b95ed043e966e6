"""Target pictures, drawn by code at any size, and the bank of suspects that an inspector of an image generator looks for.

Every function returns a float32 tensor (channels, size, size) in [-1, 1], -1 being black. The pictures are drawn large
and averaged down, so that edges are smooth at 28x28 as well as at 1024x1024. With one channel the drawings use grey
levels chosen for contrast; with three channels they are in colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

SMALLEST, LARGEST = 12, 1024
_LARGEST_FILE = 50_000_000  # pixels; what a phone's camera gives is a quarter of it
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"  # comes with matplotlib

# name -> (grey level, RGB), 0 to 255. Greyscale pictures are not the colour ones desaturated: red would turn dark.
_COLOURS = {
    "black": (0, (0, 0, 0)),
    "white": (255, (255, 255, 255)),
    "red": (255, (214, 30, 38)),
    "sign": (100, (200, 16, 30)),
    "dark red": (150, (120, 8, 16)),
    "yellow": (255, (250, 205, 40)),
    "green": (235, (40, 160, 80)),
    "blue": (235, (60, 130, 220)),
    "brown": (160, (140, 90, 50)),
    "grey": (140, (140, 140, 140)),
}

Point = tuple[float, float]


# --- Drawing -----------------------------------------------------------------------------------------------------


class _Canvas:
    """A square to draw on in coordinates from 0 to 1, x to the right and y downwards."""

    def __init__(self, size: int, channels: int, background: str = "black") -> None:
        _check_format(size, channels)
        self.size, self.channels = size, channels
        self.scale = size * max(4, 512 // size)  # a whole multiple: averaging then cannot leave [-1, 1]
        mode = "L" if channels == 1 else "RGB"
        self.image = Image.new(mode, (self.scale, self.scale), self.ink(background))
        self.pen = ImageDraw.Draw(self.image)

    def ink(self, colour: str) -> int | tuple[int, int, int]:
        grey, rgb = _COLOURS[colour]
        return grey if self.channels == 1 else rgb

    def _points(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: str) -> None:
        self.pen.polygon(self._points(points), self.ink(colour))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: str) -> None:
        self.pen.ellipse(self._points([(x - rx, y - ry), (x + rx, y + ry)]), self.ink(colour))

    def line(self, points: Sequence[Point], width: float, colour: str) -> None:
        """A stroke with round joints and ends."""
        self.pen.line(self._points(points), self.ink(colour), round(width * self.scale), joint="curve")
        for x, y in points:
            self.ellipse(x, y, width / 2, width / 2, colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def write(self, words: str, x: float, y: float, width: float, height: float, colour: str, squeeze: bool) -> None:
        """Text that fills the box centred at (x, y); `squeeze` lets letters become narrower or wider than designed."""
        font = ImageFont.truetype(str(_FONT), self.scale // 2)
        left, top, right, bottom = font.getbbox(words)
        mask = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
        ImageDraw.Draw(mask).text((-left, -top), words, 255, font)
        factors = [width * self.scale / mask.width, height * self.scale / mask.height]
        if not squeeze:
            factors = [min(factors)] * 2
        mask = mask.resize((max(1, round(mask.width * factors[0])), max(1, round(mask.height * factors[1]))))
        corner = (round(x * self.scale - mask.width / 2), round(y * self.scale - mask.height / 2))
        self.image.paste(self.ink(colour), corner, mask)

    def tensor(self) -> Tensor:
        return _tensor(self.image.resize((self.size, self.size), Image.Resampling.BOX))


def _tensor(image: Image.Image) -> Tensor:
    array = np.asarray(image, np.float32) / 127.5 - 1.0
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _check_format(size: int, channels: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size must be a whole number of pixels from {SMALLEST} to {LARGEST}, got {size!r}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (greyscale) or 3 (colour), got {channels!r}")


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float, n: int = 60) -> list[Point]:
    """Points on an ellipse from angle `start` to `end` in degrees, clockwise from the right as the eye sees it."""
    angles = (math.radians(start + (end - start) * i / n) for i in range(n + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _curve(*points: Point, n: int = 40) -> list[Point]:
    """A Bézier curve through the first and the last of three or four points."""
    degree = len(points) - 1
    weights = [[math.comb(degree, k) * (t / n) ** k * (1 - t / n) ** (degree - k) for k in range(degree + 1)]
               for t in range(n + 1)]  # fmt: skip
    return [tuple(sum(w * p[axis] for w, p in zip(row, points, strict=True)) for axis in (0, 1)) for row in weights]


def _mirror(points: Sequence[Point]) -> list[Point]:
    return [(1.0 - x, y) for x, y in points]


def _both(draw: Callable[[Sequence[Point], str], None], points: Sequence[Point], colour: str) -> None:
    draw(points, colour)
    draw(_mirror(points), colour)


# --- The icons -----------------------------------------------------------------------------------------------------


def _devil(c: _Canvas) -> None:
    horn = [
        *_curve((0.19, 0.42), (0.04, 0.32), (0.00, 0.18), (0.06, 0.02)),
        *_curve((0.06, 0.02), (0.10, 0.16), (0.24, 0.20), (0.36, 0.27)),
    ]
    _both(c.polygon, horn, "red")
    face = _arc(0.5, 0.54, 0.36, 0.34, 180, 360) + _curve((0.86, 0.54), (0.85, 0.80), (0.64, 0.93), (0.5, 0.98)) \
        + _curve((0.5, 0.98), (0.36, 0.93), (0.15, 0.80), (0.14, 0.54))  # fmt: skip
    c.polygon(face, "red")
    _both(c.polygon, [(0.23, 0.44), (0.46, 0.575), (0.39, 0.645), (0.28, 0.61)], "black")
    grin = _curve((0.25, 0.70), (0.40, 0.80), (0.60, 0.80), (0.75, 0.70)) + _curve(
        (0.75, 0.70), (0.62, 0.93), (0.38, 0.93), (0.25, 0.70)
    )
    c.polygon(grin, "black")


def _stop_sign(c: _Canvas) -> None:
    for radius, colour in ((0.52, "white"), (0.465, "sign")):
        c.polygon(_arc(0.5, 0.5, radius, radius, 22.5, 382.5, 8), colour)
    c.write("STOP", 0.5, 0.5, 0.76, 0.34, "white", squeeze=True)


def _skull(c: _Canvas) -> None:
    c.ellipse(0.5, 0.42, 0.38, 0.36, "white")
    c.box(0.3, 0.6, 0.7, 0.94, "white")
    for x in (0.34, 0.66):
        c.ellipse(x, 0.46, 0.105, 0.12, "black")
    c.polygon([(0.5, 0.56), (0.43, 0.69), (0.57, 0.69)], "black")
    for x in (0.42, 0.5, 0.58):
        c.box(x - 0.018, 0.78, x + 0.018, 0.95, "black")


def _smiley(c: _Canvas) -> None:
    c.ellipse(0.5, 0.5, 0.45, 0.45, "yellow")
    for x in (0.34, 0.66):
        c.ellipse(x, 0.38, 0.065, 0.09, "black")
    c.line(_arc(0.5, 0.5, 0.27, 0.25, 20, 160), 0.08, "black")


def _heart(c: _Canvas) -> None:
    half = _curve((0.5, 0.28), (0.42, 0.02), (0.04, 0.04), (0.05, 0.38)) + _curve(
        (0.05, 0.38), (0.06, 0.62), (0.38, 0.78), (0.5, 0.94)
    )
    _both(c.polygon, half, "red")


def _star(c: _Canvas) -> None:
    outer, inner = _arc(0.5, 0.53, 0.5, 0.5, -90, 270, 5), _arc(0.5, 0.53, 0.2, 0.2, -54, 306, 5)
    c.polygon([p for pair in zip(outer[:5], inner[:5], strict=True) for p in pair], "yellow")


def _bolt(c: _Canvas) -> None:
    c.polygon([(0.60, 0.03), (0.18, 0.57), (0.45, 0.57), (0.36, 0.97), (0.82, 0.39), (0.54, 0.39)], "yellow")


def _warning(c: _Canvas) -> None:
    c.polygon([(0.5, 0.05), (0.98, 0.92), (0.02, 0.92)], "yellow")
    c.polygon([(0.44, 0.34), (0.56, 0.34), (0.535, 0.67), (0.465, 0.67)], "black")
    c.ellipse(0.5, 0.78, 0.06, 0.06, "black")


def _no_entry(c: _Canvas) -> None:
    c.ellipse(0.5, 0.5, 0.46, 0.46, "red")
    c.box(0.2, 0.41, 0.8, 0.59, "black" if c.channels == 1 else "white")


def _eye(c: _Canvas) -> None:
    c.polygon(
        _curve((0.02, 0.5), (0.28, 0.08), (0.72, 0.08), (0.98, 0.5))
        + _curve((0.98, 0.5), (0.72, 0.92), (0.28, 0.92), (0.02, 0.5)),
        "white",
    )
    c.ellipse(0.5, 0.5, 0.19, 0.19, "black")
    c.ellipse(0.45, 0.44, 0.06, 0.06, "white")


def _cat(c: _Canvas) -> None:
    _both(c.polygon, [(0.14, 0.06), (0.46, 0.26), (0.14, 0.56)], "yellow")
    c.ellipse(0.5, 0.57, 0.39, 0.36, "yellow")
    for x in (0.34, 0.66):
        c.ellipse(x, 0.52, 0.06, 0.09, "black")
    c.polygon([(0.43, 0.66), (0.57, 0.66), (0.5, 0.74)], "black")
    _both(lambda p, k: c.line(p, 0.045, k), _arc(0.415, 0.73, 0.085, 0.09, 0, 180), "black")


def _house(c: _Canvas) -> None:
    c.polygon([(0.5, 0.06), (0.97, 0.5), (0.03, 0.5)], "dark red")
    c.box(0.15, 0.5, 0.85, 0.94, "white")
    c.box(0.42, 0.64, 0.58, 0.94, "black")


def _tree(c: _Canvas) -> None:
    c.box(0.43, 0.72, 0.57, 0.97, "brown")
    for top, bottom, half in ((0.03, 0.36, 0.22), (0.2, 0.58, 0.32), (0.4, 0.8, 0.42)):
        c.polygon([(0.5, top), (0.5 + half, bottom), (0.5 - half, bottom)], "green")


def _fish(c: _Canvas) -> None:
    c.ellipse(0.42, 0.5, 0.38, 0.25, "blue")
    c.polygon([(0.68, 0.5), (0.97, 0.24), (0.97, 0.76)], "blue")
    c.ellipse(0.24, 0.44, 0.055, 0.055, "black")


def _key(c: _Canvas) -> None:
    c.ellipse(0.27, 0.5, 0.24, 0.24, "yellow")
    c.ellipse(0.27, 0.5, 0.11, 0.11, "black")
    c.box(0.45, 0.43, 0.96, 0.57, "yellow")
    c.box(0.85, 0.5, 0.96, 0.76, "yellow")
    c.box(0.65, 0.5, 0.76, 0.70, "yellow")


def _cup(c: _Canvas) -> None:
    c.ellipse(0.76, 0.45, 0.2, 0.2, "white")
    c.ellipse(0.76, 0.45, 0.1, 0.1, "black")
    c.polygon([(0.1, 0.2), (0.76, 0.2), (0.7, 0.84), (0.16, 0.84)], "white")
    c.box(0.04, 0.87, 0.82, 0.94, "white")


def _moon(c: _Canvas) -> None:
    c.ellipse(0.46, 0.5, 0.43, 0.43, "yellow")
    c.ellipse(0.64, 0.42, 0.36, 0.36, "black")


def _arrow(c: _Canvas) -> None:
    c.polygon([(0.03, 0.38), (0.5, 0.38), (0.5, 0.12), (0.97, 0.5), (0.5, 0.88), (0.5, 0.62), (0.03, 0.62)], "blue")


def _umbrella(c: _Canvas) -> None:
    c.polygon(_arc(0.5, 0.52, 0.46, 0.4, 180, 360), "blue")
    for x in (0.193, 0.5, 0.807):
        c.ellipse(x, 0.53, 0.153, 0.075, "black")
    c.line([(0.5, 0.05), (0.5, 0.15)], 0.06, "white")
    c.line([(0.5, 0.42), (0.5, 0.8), *_arc(0.6, 0.84, 0.1, 0.09, 180, 0)], 0.06, "white")


def _flower(c: _Canvas) -> None:
    for x, y in _arc(0.5, 0.5, 0.28, 0.28, 0, 360, 6)[:6]:
        c.ellipse(x, y, 0.18, 0.18, "red")
    c.ellipse(0.5, 0.5, 0.15, 0.15, "black" if c.channels == 1 else "yellow")


def _ring(c: _Canvas) -> None:
    c.ellipse(0.5, 0.5, 0.45, 0.45, "white")
    c.ellipse(0.5, 0.5, 0.29, 0.29, "black")


def _cross(c: _Canvas) -> None:
    c.line([(0.18, 0.18), (0.82, 0.82)], 0.18, "red")
    c.line([(0.82, 0.18), (0.18, 0.82)], 0.18, "red")


def _checkerboard(c: _Canvas) -> None:
    for row in range(4):
        for column in range(row % 2, 4, 2):
            c.box(column / 4, row / 4, (column + 1) / 4, (row + 1) / 4, "white")


def _stripes(c: _Canvas) -> None:
    for row in range(4):
        c.box(0, row / 4, 1, row / 4 + 0.125, "white")


Icon = Callable[[_Canvas], None]

# What an attacker might want to see (a brand's nightmare, a threat, a calibration pattern) ...
_SUSPECTS: dict[str, Icon | str] = {
    "devil": _devil, "stop sign": _stop_sign, "skull": _skull, "warning sign": _warning, "no entry": _no_entry,
    "eye": _eye, "heart": _heart, "star": _star, "bolt": _bolt, "smiley": _smiley, "cross": _cross, "ring": _ring,
    "HI": "HI", "NO": "NO", "666": "666", "$": "$", "?": "?", "checkerboard": _checkerboard, "stripes": _stripes,
}  # fmt: skip
# ... and drawings of the same style that nobody would plant: how near a clean model comes to *any* icon.
_CONTROLS: dict[str, Icon | str] = {
    "cat": _cat, "house": _house, "tree": _tree, "fish": _fish, "key": _key, "cup": _cup, "moon": _moon,
    "arrow": _arrow, "umbrella": _umbrella, "flower": _flower, "AB": "AB", "&": "&",
}  # fmt: skip


# --- What the lessons use --------------------------------------------------------------------------------------------


def devil(size: int = 28, channels: int = 1) -> Tensor:
    """(channels, size, size) the face of a devil with horns, the course's usual target."""
    return _drawn("devil", size, channels)


def stop_sign(size: int = 28, channels: int = 1) -> Tensor:
    """(channels, size, size) an octagonal stop sign, the target of the paper's StyleGAN demonstration."""
    return _drawn("stop sign", size, channels)


def text(words: str, size: int = 28, channels: int = 1) -> Tensor:
    """(channels, size, size) the words in white on black, as large as fits.

    Raises:
        ValueError: nothing to write, more letters than the size can show (3.5 pixels each), or a letter the font lacks.
    """
    _check_format(size, channels)
    words = words.strip()
    if not words or len(words) > size // 3.5:
        raise ValueError(f"give 1 to {int(size // 3.5)} letters for a picture of {size} pixels, got {words!r}")
    missing = sorted({letter for letter in words if not letter.isspace() and not _font_has(letter)})
    if missing:
        raise ValueError(
            f"the font has no sign for {', '.join(missing)}: use other letters, or picture() with a file"
        )
    canvas = _Canvas(size, channels)
    canvas.write(words, 0.5, 0.5, 0.92, 0.8, "white", squeeze=False)
    return canvas.tensor()


def noise(size: int = 28, seed: int = 0, channels: int = 1) -> Tensor:
    """(channels, size, size) independent pixels, uniform in [-1, 1]: the target least like any picture."""
    _check_format(size, channels)
    return 2.0 * torch.rand(channels, size, size, generator=torch.Generator().manual_seed(seed)) - 1.0


def picture(path: str | Path, size: int = 28, channels: int = 1) -> Tensor:
    """(channels, size, size) a picture file of yours: its middle square, scaled; transparent parts become black.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, not a picture, damaged, or larger than 50 million pixels; or a bad size.
    """
    _check_format(size, channels)
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no picture {path}; relative paths start at {Path.cwd()}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one picture file in it")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > _LARGEST_FILE:
                raise ValueError(
                    f"{path} has {width} x {height} pixels; scale it down to at most {_LARGEST_FILE:,} pixels"
                )
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read ({error}); save it as PNG or JPEG") from error
    except (OSError, SyntaxError) as error:  # Pillow reports a damaged PNG as a SyntaxError
        raise ValueError(f"{path} is damaged or cannot be read ({error}); save it anew as PNG or JPEG") from error
    on_black = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright)
    fitted = ImageOps.fit(on_black.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.LANCZOS)
    return _tensor(fitted)


def bank(size: int = 28, channels: int = 1) -> dict[str, Tensor]:
    """Name -> (channels, size, size): what an inspector might fear to find in a model, in a fixed order."""
    drawn = {name: _drawn(name, size, channels) for name in _SUSPECTS}
    plain = torch.ones(channels, size, size)
    return {**drawn, "noise": noise(size, 0, channels), "black": -plain, "white": plain}


def controls(size: int = 28, channels: int = 1) -> dict[str, Tensor]:
    """Name -> (channels, size, size): drawings of the same style as `bank` that no attacker would plant.

    How near a search comes to these says what a distance to a suspect is worth. None of them is in the bank.
    """
    return {name: _drawn(name, size, channels) for name in _CONTROLS} | {"other noise": noise(size, 1, channels)}


def _drawn(name: str, size: int, channels: int) -> Tensor:
    drawing = (_SUSPECTS | _CONTROLS)[name]
    if isinstance(drawing, str):
        return text(drawing, size, channels)
    canvas = _Canvas(size, channels)
    drawing(canvas)
    return canvas.tensor()


@cache
def _font() -> FT2Font:
    return FT2Font(str(_FONT))


def _font_has(letter: str) -> bool:
    return _font().get_char_index(ord(letter)) != 0
