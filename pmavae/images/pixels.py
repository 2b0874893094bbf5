"""Pixels of 8 and of 16 bits a channel, from what a network gives and from each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

Pixels = NDArray[np.unsignedinteger[Any]]  # (H, W, 3) uint8, or uint16 from 0 to 65535

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
