"""Pixels of 8 and of 16 bits a channel, from a network and from each other, whole or row by row."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike, NDArray
from PIL import Image
from torch import Tensor

from pmavae.config import MIN_SIZE

Pixels = NDArray[np.unsignedinteger[Any]]  # (H, W, 3) uint8, or uint16 from 0 to 65535

CELL_SIDE = 384  # px, the longer side of a picture on a contact sheet
STYLE_SIDE = 512  # longer side of a style picture at scale 1, in pixels
REDUCING_GAP = 3.0  # how much of a large reduction a box filter does first, which is faster
STRIP = 128  # rows
STRIP_PIXELS = 1 << 19  # about, of strips of as many pixels whatever the width
STEP = 257  # of 65535 that one of 255 is
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: BT.601, full range, as in JPEG
_PARTS = [np.uint32(round(weight * 65536)) for weight in LUMA]
_Kind = TypeVar("_Kind", bound=np.unsignedinteger[Any])


def to_unit(pixels: Pixels, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """(H, W, 3), uint8 or uint16, as (1, 3, H, W) in [0, 1], in memory of its own."""
    picture = torch.from_numpy(pixels.copy()).to(device)
    return picture.permute(2, 0, 1)[None].to(dtype).div_(np.iinfo(pixels.dtype).max)


def to_pixels(picture: Tensor, dtype: DTypeLike = np.uint8) -> Pixels:
    """(3, H, W) in [0, 1], on any device, as (H, W, 3), rounded to dtype, which is uint8 or uint16."""
    kind = torch.uint8 if np.dtype(dtype) == np.uint8 else torch.uint16
    whole = picture.mul(np.iinfo(dtype).max).round_()
    return whole.to(kind).permute(1, 2, 0).cpu().numpy()


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
        red, green, blue = (pixels[rows, ..., i].astype(np.uint32) * part for i, part in enumerate(_PARTS))
        total = red + green + blue
        result[rows] = (total + np.uint32(1 << 15)) >> np.uint32(16)
    return result


def gaussian(
    sigma: float, radius: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """A Gaussian kernel, (2 · radius + 1,), with the sum 1."""
    offsets = torch.arange(-radius, radius + 1, dtype=dtype, device=device)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def blurred(x: Tensor, kernel: Tensor) -> Tensor:
    """(B, 3, H, W) by a kernel of 2r + 1 numbers along both sides, without a border of r px."""
    weights = kernel.expand(3, 1, 1, -1)
    return F.conv2d(F.conv2d(x, weights, groups=3), weights.transpose(2, 3), groups=3)


def strips(height: int, width: int | None = None) -> Iterator[slice]:
    """The rows of a picture in parts, so that numbers larger than its own are there of a part at a time.

    Each has STRIP rows, or, of a picture that may be wide, about STRIP_PIXELS.
    """
    step = STRIP if width is None else max(1, STRIP_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with a longer side of so many px, and a shorter one of 16 at least."""
    factor = side / max(height, width)
    return max(MIN_SIZE, round(height * factor)), max(MIN_SIZE, round(width * factor))


def fit_side(image: Image.Image | NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture, (H, W, 3) uint8, resized by Lanczos to the size that `fitted` gives."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    height, width = fitted(picture.height, picture.width, side)
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
