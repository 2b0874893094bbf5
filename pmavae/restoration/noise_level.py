"""How noisy a picture is."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pmavae.restoration.block_dct import DIAGONALS, SIDE, dct, sample_blocks, smoothest

_BLOCKS = 8192  # read at most
_MIN_BLOCKS = 1024  # taken closer together, and overlapping, in pictures that have fewer
_MIN_USABLE = 32  # blocks of one channel, below which there is nothing to go by

_MAX_FLAT = SIDE * (SIDE - 1) // 2  # pairs of equal neighbours: more than half means a deviation below 0.6
MAX_SATURATED = SIDE**2 // 4  # pixels at 0 or 255

MIDDLE = (DIAGONALS >= 6) & (DIAGONALS <= 8)
FINE = DIAGONALS >= 11

# Of the detail in the smoothest blocks of clean photographs, the fine frequencies have about this part of
# what the middle ones have more; and the grain that is left reads as about this deviation.
_DETAIL = 0.15
_GRAIN = 1.5


def noise_level(pixels: NDArray[np.uint8]) -> float:
    """The standard deviation of white noise in a picture (H, W, 3), both at least 16, in 8-bit units.

    It is the RMS over the channels, as before clipping to 0–255; 0 for pictures as clean as photographs
    usually are, and for those that have nothing but flat and saturated areas. Noise that was smoothed
    (by enlarging, or by JPEG) reads lower than it is.

    Read from the fine DCT coefficients of those blocks whose coarse ones are smallest (after Ponomarenko
    et al., "An automatic approach to lossy compression of AVIRIS images", IGARSS 2007).
    """
    spectra = [_spectrum(blocks) for blocks in _usable_blocks(pixels) if len(blocks) >= _MIN_USABLE]
    if not spectra:
        return 0.0
    spectrum = np.mean(spectra, axis=0)
    return noise_beside_detail(float(spectrum[FINE].mean()), float(spectrum[MIDDLE].mean()))


def noise_beside_detail(fine: float, middle: float) -> float:
    """The standard deviation of noise, from the variances of fine and middle frequencies in smooth blocks."""
    return max(0.0, fine - _DETAIL * max(0.0, middle - fine) - _GRAIN**2) ** 0.5


def _usable_blocks(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Blocks (N, 8, 8) of each channel, without those that are flat or saturated."""
    height, width = pixels.shape[:2]
    step = SIDE
    while step > 1 and (height // step) * (width // step) < _MIN_BLOCKS:
        step //= 2
    blocks = sample_blocks(pixels, _BLOCKS, step)
    flat = (blocks[..., 1:] == blocks[..., :-1]).sum(axis=(2, 3))
    usable = (flat <= _MAX_FLAT) & (saturated_pixels(blocks) <= MAX_SATURATED)
    return [blocks[usable[:, channel], channel] for channel in range(3)]


def _spectrum(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean power (8, 8) of the smoothest blocks (N, 8, 8), as before clipping."""
    coefficients = dct(blocks.astype(np.float32))
    unclipped = UNCLIPPED[saturated_pixels(blocks)]
    powers = [
        (coefficients[chosen] ** 2).mean(axis=0) / unclipped[chosen].mean()
        for chosen in smoothest(coefficients)
    ]
    mean: NDArray[np.float32] = np.mean(powers, axis=0)
    return mean


def saturated_pixels(blocks: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many pixels of each block (…, 8, 8) are at 0 or 255."""
    count: NDArray[np.intp] = ((blocks == 0) | (blocks == 255)).sum(axis=(-2, -1))
    return count


def _variance_clipped(part: float) -> float:
    """The variance of a standard normal variable of which the lower `part` (0–0.5) is clipped."""
    if part == 0:
        return 1.0
    normal = NormalDist()
    limit = normal.inv_cdf(part)
    mean = part * limit + normal.pdf(limit)
    square = part * limit**2 + (1 - part) + limit * normal.pdf(limit)
    return square - mean**2


# By the number of saturated pixels: what clipping leaves of the variance of noise in a block.
UNCLIPPED = np.array([_variance_clipped(count / SIDE**2) for count in range(MAX_SATURATED + 1)])
