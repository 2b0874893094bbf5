"""A painted picture with the colours, or the fine detail, of another one of its size.

Pictures are (H, W, 3), uint8 or uint16, and a result is of the type of the first. Luma and chroma are those
of JPEG: BT.601, full range. The work is done in strips, so that of a large picture little more than the
result is held at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmavae.images.pixels import Pixels, luma, strips

DETAIL_SIGMA = 2.0  # px: what a Gaussian blur of this width takes away is detail
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def with_chroma_of(picture: Pixels, colours: Pixels) -> Pixels:
    """The luma of `picture` with the chroma of `colours`.

    Where no RGB colour has both, the chroma is brought towards grey just far enough: the luma, which
    carries the strokes, and the hue stay. Raises ValueError for pictures of two sizes.
    """
    _check_sizes(picture, colours)
    result, most = np.empty_like(picture), np.iinfo(picture.dtype).max
    for rows in strips(picture.shape[0]):
        light = picture[rows] @ _LUMA
        # The difference of RGB and luma is a linear function of Cb and Cr alone.
        chroma = colours[rows] - (colours[rows] @ _LUMA)[..., None]
        above = (most - light) / np.maximum(chroma.max(-1), 1e-3)
        below = light / np.maximum(-chroma.min(-1), 1e-3)
        kept = np.minimum(np.minimum(above, below), 1)
        result[rows] = _rounded(light[..., None] + chroma * kept[..., None], picture.dtype)
    return result


def with_detail_of(picture: Pixels, detailed: Pixels, amount: float) -> Pixels:
    """`picture` with the fine luma detail of `detailed` instead of its own, by an amount from 0 to 1.

    Detail is what differs from a Gaussian blur with a deviation of 2 px. Amount 0 gives the picture itself.
    Raises ValueError for pictures of two sizes and for another amount.
    """
    _check_sizes(picture, detailed)
    if not 0 <= amount <= 1:
        raise ValueError(f"an amount of detail of {amount} is outside 0..1")
    if amount == 0:
        return picture
    kernel = _gaussian(DETAIL_SIGMA)
    radius = len(kernel) // 2
    height = picture.shape[0]
    result = np.empty_like(picture)
    for rows in strips(height):
        top, bottom = max(rows.start - radius, 0), min(rows.stop + radius, height)
        missing = detailed[top:bottom] @ _LUMA - picture[top:bottom] @ _LUMA
        beyond = (radius - (rows.start - top), radius - (bottom - rows.stop))
        blurred = _blurred(np.pad(missing, (beyond, (radius, radius)), mode="edge"), kernel)
        detail = missing[rows.start - top : rows.stop - top] - blurred
        result[rows] = _rounded(picture[rows] + amount * detail[..., None], picture.dtype)
    return result


def without_chroma(picture: Pixels) -> Pixels:
    """The luma of a picture in all three channels."""
    return luma(picture)[..., None].repeat(3, axis=2)


def _check_sizes(picture: Pixels, other: Pixels) -> None:
    if picture.shape != other.shape:
        raise ValueError(f"pictures of two sizes, {picture.shape} and {other.shape}, cannot be combined")


def _rounded(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Pixels:
    rounded: Pixels = values.round().clip(0, np.iinfo(dtype).max).astype(dtype)
    return rounded


def _gaussian(sigma: float) -> NDArray[np.float32]:
    radius = round(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _blurred(values: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of (H + 2r, W + 2r) the (H, W) that the kernel of 2r + 1 numbers covers whole."""
    height, width = (side - len(kernel) + 1 for side in values.shape)
    down = np.zeros((height, values.shape[1]), np.float32)
    for i, weight in enumerate(kernel):
        down += weight * values[i : i + height]
    across = np.zeros((height, width), np.float32)
    for i, weight in enumerate(kernel):
        across += weight * down[:, i : i + width]
    return across
