"""A contact sheet: pictures in a table with a heading for every column and row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pmavae.images.pixels import CELL_SIDE

Pixels = NDArray[np.uint8]

MIN_CELL_SIDE = 48  # less shows nothing
MAX_PIXELS = 64_000_000  # of a sheet: it can be read again as a picture
MAX_SIDE = 16_000  # px: every format holds it
_GAP = 8
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


@dataclass(frozen=True)
class Heading:
    """What stands at the head of a column or a row."""

    name: str
    picture: Pixels | None = None  # (H, W, 3) uint8


def contact_sheet(
    columns: Sequence[Heading], rows: Sequence[Heading], cell: Callable[[int, int], Pixels]
) -> Pixels:
    """A sheet, (H, W, 3) uint8, with the columns' headings above and the rows' on the left.

    `cell(row, column)` gives the picture of a place; it is asked once for each, row by row, and what it gave
    is not kept. Places have the size of the largest picture above, and what is larger is shrunk: to a longer
    side of 384 px, or fewer where a sheet of so many would have more than 64 million pixels or a side of more
    than 16,000. Names that are too long end in an ellipsis. Raises ValueError where fewer than 48 px would
    be left for a picture.
    """
    across, down = len(columns) + 1, len(rows) + 1
    side = _fitting_side(across, down)

    font = ImageFont.load_default(_font_size(side))
    label = _label_height(side)
    heads = [_shrunk(head.picture, (side, side)) for head in columns if head.picture is not None]
    width = max((picture.width for picture in heads), default=side)
    height = max((picture.height for picture in heads), default=side)
    step_x, step_y = width + _GAP, height + label + _GAP
    sheet = Image.new("RGB", (across * step_x + _GAP, down * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)

    def paste(row: int, column: int, picture: Pixels) -> None:
        image = _shrunk(picture, (width, height))
        x = _GAP + column * step_x + (width - image.width) // 2
        y = _GAP + row * step_y + label + (height - image.height) // 2
        sheet.paste(image, (x, y))

    def head(row: int, column: int, heading: Heading) -> None:
        text = shortened(heading.name, width, font)
        left = _GAP + column * step_x + (width - font.getlength(text)) / 2
        below = 0 if heading.picture is not None else height // 2
        draw.text((left, _GAP + row * step_y + below), text, _INK, font)
        if heading.picture is not None:
            paste(row, column, heading.picture)

    for column, heading in enumerate(columns, 1):
        head(0, column, heading)
    for row, heading in enumerate(rows, 1):
        head(row, 0, heading)
        for column in range(1, across):
            paste(row, column, cell(row - 1, column - 1))
    return np.asarray(sheet)


def _fitting_side(across: int, down: int) -> int:
    """The largest side of a place, in px, of which so many fit on a sheet."""
    for side in range(CELL_SIDE, MIN_CELL_SIDE - 1, -1):
        width, height = across * (side + _GAP) + _GAP, down * (side + _label_height(side) + _GAP) + _GAP
        if width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE:
            return side
    raise ValueError(f"a sheet of {across - 1} × {down - 1} pictures is too large: take fewer")


def _font_size(side: int) -> int:
    return max(10, side // 20)


def _label_height(side: int) -> int:
    return _font_size(side) * 3 // 2


def shortened(name: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A name on one line, with its end left out where it is wider than `width` px."""
    # A name may hold line breaks, and bytes that are no text at all.
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name
    )
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _shrunk(picture: Pixels, room: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail(room, Image.Resampling.LANCZOS)
    return image
