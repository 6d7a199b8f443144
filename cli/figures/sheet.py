"""A white sheet to draw figures on: smooth lines, small markers, and text that fits and can be found again.

Every text is remembered with its place, so that what a figure says can be checked without reading pixels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from PIL import Image, ImageDraw, ImageFont

INK: Final = "#000000"
FAINT_INK: Final = "#5E5E5E"

Dash = Literal["solid", "dashed", "dotted"]
Marker = Literal["check", "cross", "question", "ring", "plus", "arrow", "merge", "split"]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

# Lengths of stroke and gap, in line widths.
_DASHES: Mapping[Dash, tuple[float, float] | None] = MappingProxyType(
    {"solid": None, "dashed": (4.0, 2.5), "dotted": (1.0, 1.6)}
)
_MARKERS: Mapping[Marker, tuple[tuple[Point, ...], ...]] = MappingProxyType(
    {
        "check": (((-0.85, 0.05), (-0.3, 0.65), (0.85, -0.65)),),
        "cross": (((-0.7, -0.7), (0.7, 0.7)), ((-0.7, 0.7), (0.7, -0.7))),
        "question": (
            (
                (-0.5, -0.45),
                (-0.35, -0.8),
                (0.0, -0.9),
                (0.35, -0.8),
                (0.5, -0.45),
                (0.3, -0.1),
                (0.0, 0.1),
                (0.0, 0.4),
            ),
            ((0.0, 0.75), (0.0, 0.95)),
        ),
        "ring": (tuple((0.7 * math.cos(math.pi * n / 12), 0.7 * math.sin(math.pi * n / 12)) for n in range(25)),),
        "plus": (((-0.85, 0.0), (0.85, 0.0)), ((0.0, -0.85), (0.0, 0.85))),
        "arrow": (((-0.9, 0.0), (0.85, 0.0)), ((0.3, -0.5), (0.85, 0.0), (0.3, 0.5))),
        "merge": (((-0.9, -0.7), (0.0, 0.0), (0.9, 0.0)), ((-0.9, 0.7), (0.0, 0.0))),
        "split": (((-0.9, 0.0), (0.0, 0.0), (0.9, -0.7)), ((0.0, 0.0), (0.9, 0.7))),
    }
)
# Lines are drawn so many times larger and made smaller again.
_SMOOTHING = 4
_ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class PlacedText:
    """What was written, and the rectangle that its ink fills."""

    text: str
    box_xyxy_px: Box
    size_px: int


class Sheet:
    """A picture under work; `image` is what there is so far, `texts` what is written on it."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.image = Image.new("RGB", (width_px, height_px), "white")
        self.texts: list[PlacedText] = []
        self._canvas = ImageDraw.Draw(self.image)

    def write(
        self,
        text: str,
        at: Point,
        size_px: int,
        *,
        colour: str = INK,
        bold: bool = False,
        anchor: str = "la",
        halo: str | None = None,
    ) -> PlacedText:
        """One line of text.

        Args:
            text: without line breaks.
            at: where the anchor lies.
            size_px: of the font.
            colour: of the letters.
            bold: the heavier cut.
            anchor: Pillow's two letters: l, m, r for across and a, m, s for ascender, middle and baseline.
            halo: colour of a rim around the letters, for text over pictures.
        """
        font = font_of(size_px, bold=bold)
        rim = 0 if halo is None else max(1, round(size_px / 8))
        self._canvas.text(at, text, fill=colour, font=font, anchor=anchor, stroke_width=rim, stroke_fill=halo)
        placed = PlacedText(text, self._canvas.textbbox(at, text, font, anchor=anchor, stroke_width=rim), size_px)
        self.texts.append(placed)
        return placed

    def paste(self, picture: Image.Image, corner: tuple[int, int]) -> None:
        """Put a picture's upper left corner there."""
        self.image.paste(picture, corner)

    def fill(self, box: Box, colour: str) -> None:
        """A filled rectangle."""
        self._canvas.rectangle(box, fill=colour)

    def line(self, points: Sequence[Point], colour: str, width_px: float = 2.0, dash: Dash = "solid") -> None:
        """A smooth line through the points; what leaves the sheet is cut."""
        rhythm = _DASHES[dash]
        strokes = [list(points)] if rhythm is None else _dashes(points, rhythm[0] * width_px, rhythm[1] * width_px)
        reach = width_px + 1
        xs, ys = [x for x, _ in points], [y for _, y in points]
        left, top = max(0, math.floor(min(xs) - reach)), max(0, math.floor(min(ys) - reach))
        right = min(self.image.width, math.ceil(max(xs) + reach))
        bottom = min(self.image.height, math.ceil(max(ys) + reach))
        if left >= right or top >= bottom:
            return
        size = right - left, bottom - top
        mask = Image.new("L", (size[0] * _SMOOTHING, size[1] * _SMOOTHING))
        pen = ImageDraw.Draw(mask)
        for stroke in strokes:
            enlarged = [((x + 0.5 - left) * _SMOOTHING, (y + 0.5 - top) * _SMOOTHING) for x, y in stroke]
            pen.line(enlarged, fill=255, width=max(1, round(width_px * _SMOOTHING)), joint="curve")
        self.image.paste(colour, (left, top), mask.resize(size, Image.Resampling.BOX))

    def frame(self, box: Box, colour: str, width_px: float = 2.0, dash: Dash = "solid") -> None:
        """A rectangle's outline; its line is centred on the box's edges."""
        left, top, right, bottom = box
        half = width_px / 2
        # Each side reaches into the corners, else these would be notched.
        for start, end in (
            ((left - half, top), (right + half, top)),
            ((right, top - half), (right, bottom + half)),
            ((right + half, bottom), (left - half, bottom)),
            ((left, bottom + half), (left, top - half)),
        ):
            self.line([start, end], colour, width_px, dash)

    def mark(self, marker: Marker, center: Point, size_px: float, colour: str) -> None:
        """A small sign, `size_px` across."""
        half = size_px / 2
        for stroke in _MARKERS[marker]:
            self.line([(center[0] + x * half, center[1] + y * half) for x, y in stroke], colour, max(1.5, size_px / 7))


@lru_cache(maxsize=64)
def font_of(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along; Pillow's own font has neither × nor −."""
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    # The basic layout gives the same letters at the same places with every build of Pillow.
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


def width_of(text: str, size_px: int, *, bold: bool = False) -> float:
    """Width of a line of text, px."""
    return float(font_of(size_px, bold=bold).getlength(text))


def fit_text(
    text: str, size_px: int, width_px: float, *, smallest_px: int | None = None, bold: bool = False
) -> tuple[str, int]:
    """The text and a size at which it is no wider than `width_px`.

    It shrinks to three quarters first (or to `smallest_px`); then its middle gives way to an ellipsis, because names
    differ most often at their ends.
    """
    least = min(size_px, smallest_px or max(1, size_px * 3 // 4))
    for size in range(size_px, least - 1, -1):
        if width_of(text, size, bold=bold) <= width_px:
            return text, size
    for kept in range(len(text) - 1, 0, -1):
        tail = kept - (kept + 1) // 2
        cut = text[: kept - tail] + _ELLIPSIS + text[len(text) - tail :]
        if width_of(cut, least, bold=bold) <= width_px:
            return cut, least
    return _ELLIPSIS, least


def common_size(texts: Iterable[str], size_px: int, width_px: float, *, bold: bool = False) -> int:
    """The size at which `fit_text` writes the widest of them, so that texts side by side look alike."""
    return min((fit_text(text, size_px, width_px, bold=bold)[1] for text in texts), default=size_px)


def wrap_text(text: str, size_px: int, width_px: float, *, bold: bool = False) -> list[str]:
    """Lines no wider than `width_px`, broken between words; a word that is wider alone is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size_px, bold=bold) <= width_px:
            lines[-1] = longer
        else:
            lines.append(fit_text(word, size_px, width_px, smallest_px=size_px, bold=bold)[0])
    return lines


def _dashes(points: Sequence[Point], stroke_px: float, gap_px: float) -> list[list[Point]]:
    """The strokes of a dashed line, each of two points; the rhythm starts anew at every corner."""
    strokes: list[list[Point]] = []
    for (x, y), (to_x, to_y) in pairwise(points):
        length = math.hypot(to_x - x, to_y - y)
        if length == 0.0:
            continue
        step_x, step_y = (to_x - x) / length, (to_y - y) / length
        # Whole periods that end with a stroke, so that both ends are drawn.
        periods = max(1, round((length + gap_px) / (stroke_px + gap_px)))
        scale = length / (periods * (stroke_px + gap_px) - gap_px)
        for number in range(periods):
            start = number * (stroke_px + gap_px) * scale
            end = start + stroke_px * scale
            strokes.append([(x + step_x * start, y + step_y * start), (x + step_x * end, y + step_y * end)])
    return strokes
