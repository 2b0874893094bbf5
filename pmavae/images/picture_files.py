"""What has to be known of picture files, wherever one is opened."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What Pillow raises for a file that is damaged, as its own fuzz test has it.
UNREADABLE = (
    OSError,
    SyntaxError,
    MemoryError,
    ValueError,
    NotImplementedError,
    OverflowError,
    Image.DecompressionBombError,
)

# What turns a picture upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_Any = TypeVar("_Any", bound=np.generic)


def upright(pixels: NDArray[_Any], orientation: int) -> NDArray[_Any]:
    """(H, W) or (H, W, C) turned by its EXIF orientation; one that is not from 2 to 8 changes nothing."""
    if orientation not in TURNS:
        return pixels
    found: NDArray[_Any] = np.swapaxes(pixels, 0, 1) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        found = found[::-1]
    if orientation in (2, 3, 6, 7):
        found = found[:, ::-1]
    return np.ascontiguousarray(found)
