"""The 8×8 blocks of a picture and their DCT: what the levels of noise and JPEG are read from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 8  # px
_POINTS = np.arange(SIDE)
DIAGONALS = _POINTS[:, None] + _POINTS  # 0 for the mean of a block, 14 for its finest frequency

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue

_COARSE = (DIAGONALS >= 1) & (DIAGONALS <= 5)
_TONES = 8  # groups of blocks of equal size, from dark to bright
_SMOOTHEST = 0.05  # part of a group that is taken
_MIN_SMOOTHEST = 16  # blocks of a group that are taken at least

_BASIS = np.cos(np.pi * np.outer(_POINTS, 2 * _POINTS + 1) / (2 * SIDE)) / 2
_BASIS[0] /= 2**0.5


def sample_blocks(pixels: NDArray[np.uint8], most: int, step: int = SIDE) -> NDArray[np.uint8]:
    """At most `most` blocks of (H, W, 3), spread over the whole picture: (N, 3, 8, 8).

    They begin at multiples of `step` px, so with 8 they are those that JPEG codes.
    """
    height, width = pixels.shape[:2]
    stride = step
    while len(range(0, height - SIDE + 1, stride)) * len(range(0, width - SIDE + 1, stride)) > most:
        stride += step
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (SIDE, SIDE), axis=(0, 1))
    return windows[::stride, ::stride].reshape(-1, 3, SIDE, SIDE)


def luma(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 3, 8, 8) to the (N, 8, 8) that JPEG codes in full size."""
    weights = np.array(LUMA, np.float32)[:, None, None]
    mixed: NDArray[np.float32] = (blocks * weights).sum(axis=1, dtype=np.float32)
    return mixed


def dct(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The orthonormal DCT-II of (…, 8, 8): white noise has the same variance in every coefficient."""
    basis = _BASIS.astype(np.float32)
    return np.asarray(basis @ blocks @ basis.T, np.float32)


def smoothest(coefficients: NDArray[np.float32]) -> list[NDArray[np.intp]]:
    """Which blocks (N, 8, 8) have the smallest coarse coefficients, in each of 8 groups of like tone.

    White noise has coarse and fine coefficients independently, so choosing by the ones does not bias the
    others. Groups of like tone, as a sensor's noise grows with the light.
    """
    coarse = (coefficients[:, _COARSE] ** 2).sum(axis=1)
    chosen = []
    for group in np.array_split(np.argsort(coefficients[:, 0, 0], kind="stable"), _TONES):
        count = max(_MIN_SMOOTHEST, round(_SMOOTHEST * len(group)))
        chosen.append(group[np.argsort(coarse[group], kind="stable")[:count]])
    return chosen
