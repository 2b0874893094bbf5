"""Pixels of 8 and of 16 bits a channel, from a network and from each other, whole or row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from PIL import Image
from torch import Tensor

from pmavae.config import MIN_SIZE

Pixels = NDArray[np.unsignedinteger[Any]]  # (H, W, 3) uint8, or uint16 from 0 to 65535

STYLE_SIDE = 512  # longer side of a style picture at scale 1, in pixels
REDUCING_GAP = 3.0  # how much of a large reduction a box filter does first, which is faster
STRIP = 128  # rows
STEP = 257  # of 65535 that one of 255 is
_LUMA = (19_595, 38_470, 7_471)  # BT.601 in parts of 65536
_Kind = TypeVar("_Kind", bound=np.unsignedinteger[Any])


def to_pixels(picture: Tensor, dtype: DTypeLike = np.uint8) -> Pixels:
    """(3, H, W) in [0, 1], on any device, as (H, W, 3), rounded to dtype, which is uint8 or uint16."""
    kind = torch.uint8 if np.dtype(dtype) == np.uint8 else torch.uint16
    whole = picture.mul(np.iinfo(dtype).max).round_()
    pixels: Pixels = whole.to(kind).permute(1, 2, 0).cpu().numpy()
    return pixels


def eight_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """uint8 or uint16 of any shape as uint8, rounded."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    result = np.empty(pixels.shape, np.uint8)
    for rows in strips(len(pixels)):
        result[rows] = (pixels[rows].astype(np.uint32) + STEP // 2) // STEP
    return result


def sixteen_bits(pixels: Pixels) -> NDArray[np.uint16]:
    """uint8 or uint16 of any shape as uint16."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(STEP)
    return pixels.astype(np.uint16, copy=False)


def luma(pixels: NDArray[_Kind]) -> NDArray[_Kind]:
    """(H, W, 3), uint8 or uint16, as the greys (H, W) of JPEG, rounded; the sum fits 32 bits in both."""
    result = np.empty(pixels.shape[:-1], pixels.dtype)
    for rows in strips(len(pixels)):
        red, green, blue = (pixels[rows, ..., channel].astype(np.uint32) for channel in range(3))
        total = red * np.uint32(_LUMA[0]) + green * np.uint32(_LUMA[1]) + blue * np.uint32(_LUMA[2])
        result[rows] = (total + np.uint32(1 << 15)) >> np.uint32(16)
    return result


def strips(height: int) -> Iterator[slice]:
    """The rows of a picture in parts, so that numbers larger than its own are there of a part at a time."""
    return (slice(top, min(top + STRIP, height)) for top in range(0, height, STRIP))


def fit_side(image: Image.Image | NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture, (H, W, 3) uint8, resized by Lanczos so that its longer side has `side` px.

    The shorter side follows, and has 16 px at least.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    factor = side / max(picture.size)
    width, height = (max(MIN_SIZE, round(length * factor)) for length in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    return np.asarray(picture)


def style_view(image: Image.Image | NDArray[np.uint8], scale: float = 1.0) -> NDArray[np.uint8]:
    """A picture at the size at which its style is read, (H, W, 3) uint8: the longer side is 512 px × scale.

    z_style holds how long strokes are in pixels, so two files of one painting have one style only at
    one size. A larger scale makes a larger brush. The picture is a PIL picture of 8 bits, upright, or a
    uint8 array (H, W, 3).
    """
    return fit_side(image, round(STYLE_SIDE * scale))


@runtime_checkable
class RowSource(Protocol):
    """What `PMAVAE.encode` takes instead of an array; it reads the picture twice, from the top each time."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, or uint16 from 0 to 65535."""

    def rows(self, first: int, last: int) -> Pixels:
        """The rows from `first` up to, not including, `last`: (last - first, W, 3), not to be written to.

        `first` does not decrease within a pass, so what lies above it may be forgotten; a smaller one begins
        the next pass. Raises ImageError where the picture cannot be read.
        """


class ArrayRows:
    """An array (H, W, 3) as a source of rows."""

    def __init__(self, pixels: Pixels) -> None:
        self.dtype: np.dtype[Any] = pixels.dtype
        self.shape: tuple[int, int, int] = (pixels.shape[0], pixels.shape[1], 3)
        self._pixels = pixels

    def rows(self, first: int, last: int) -> Pixels:
        """A view of the array."""
        return self._pixels[first:last]
