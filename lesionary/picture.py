"""Pictures of slices: windowed, enlarged, with a lesion's diameters and box, or many on one sheet.

Coordinates are zero-based pixel centres here, as numpy counts; callers shift one-based ones first. Captions carry our
own pseudonyms and figures only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Small matrices are enlarged so that lines and text can be read.
MIN_PICTURE_SIDE_PX = 768
_CAPTION_HEIGHT_PX = 30
_LONG_COLOUR, _SHORT_COLOUR, _BOX_COLOUR = (255, 80, 80), (80, 200, 255), (255, 220, 60)
_CAPTION_SIZE_PX = 17
_LABEL_SIZE_PX = 13


def window_to_grey(hu: NDArray[np.int16], window_hu: tuple[float, float]) -> NDArray[np.uint8]:
    """HU to 8-bit grey: black at and below the window's lower end, white at and above its upper end."""
    low, high = window_hu
    scaled = (hu.astype(np.float32) - low) * (255.0 / (high - low))
    grey: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return grey


def draw_lesion(
    hu: NDArray[np.int16],
    points_xy_px: NDArray[np.float64],
    box_xyxy_px: tuple[float, float, float, float],
    window_hu: tuple[float, float],
    caption: str,
) -> Image.Image:
    """A slice with the long diameter (red), the short one (blue) if any, the box (yellow) and a caption below."""
    rows, columns = hu.shape
    scale = max(1, -(-MIN_PICTURE_SIDE_PX // max(rows, columns)))
    picture = Image.new("RGB", (columns * scale, rows * scale + _CAPTION_HEIGHT_PX))
    grey = Image.fromarray(window_to_grey(hu, window_hu))
    picture.paste(grey.resize((columns * scale, rows * scale), Image.Resampling.BICUBIC), (0, 0))
    canvas = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        # A pixel's centre stays the centre of its enlarged square.
        return (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5

    x_min, y_min, x_max, y_max = box_xyxy_px
    canvas.rectangle([place(x_min, y_min), place(x_max, y_max)], outline=_BOX_COLOUR, width=2)
    for start, colour in zip(range(0, len(points_xy_px), 2), (_LONG_COLOUR, _SHORT_COLOUR), strict=False):
        end = start + 1
        canvas.line([place(*points_xy_px[start]), place(*points_xy_px[end])], fill=colour, width=2)
    canvas.rectangle([0, rows * scale, picture.width, picture.height], fill=(0, 0, 0))
    font = ImageFont.load_default(_CAPTION_SIZE_PX)
    canvas.text((8, rows * scale + 5), caption, fill=(235, 235, 235), font=font)
    return picture


def contact_sheet(
    slices: Sequence[NDArray[np.int16]],
    labels: Sequence[str],
    window_hu: tuple[float, float],
    *,
    columns: int = 8,
    tile_px: int = 192,
) -> Image.Image:
    """Many slices side by side, each with a label in its corner.

    Raises:
        ValueError: there is no slice, or not one label for each.
    """
    if not slices or len(slices) != len(labels):
        raise ValueError(f"{len(slices)} slices and {len(labels)} labels")
    rows = -(-len(slices) // columns)
    sheet = Image.new("RGB", (min(columns, len(slices)) * tile_px, rows * tile_px))
    canvas = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL_SIZE_PX)
    for number, (hu, label) in enumerate(zip(slices, labels, strict=True)):
        corner = number % columns * tile_px, number // columns * tile_px
        tile = Image.fromarray(window_to_grey(hu, window_hu))
        sheet.paste(tile.resize((tile_px, tile_px), Image.Resampling.BICUBIC), corner)
        canvas.text((corner[0] + 4, corner[1] + 2), label, fill=(255, 220, 60), font=font)
    return sheet
