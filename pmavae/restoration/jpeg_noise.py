"""How noisy a picture was before it was compressed as JPEG."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pmavae.restoration.block_dct import LUMA, SIDE, dct, luma, sample_blocks, smoothest
from pmavae.restoration.noise_level import (
    FINE,
    MAX_SATURATED,
    MIDDLE,
    UNCLIPPED,
    noise_beside_detail,
    saturated_pixels,
)

_BLOCKS = 8192  # read at most
_MIN_USABLE = 32  # blocks, below which there is nothing to go by
_STRAYS = 0.01  # part of the coefficients in smooth blocks that detail makes nonzero

_DEVIATIONS = np.arange(0.25, 60, 0.125)
_Z = np.linspace(0, 8, 1601)
_WITHIN = np.array([2 * NormalDist().cdf(z) - 1 for z in _Z]).clip(1e-9, 1 - 1e-9)


def noise_before_jpeg(pixels: NDArray[np.uint8], table: NDArray[np.float64]) -> float:
    """The standard deviation of the white noise in a picture (H, W, 3) before JPEG, in 8-bit units.

    It is the RMS over the channels. pixels: as a JPEG file decodes, with the 8×8 grid at the top left.
    table: its 64 quantisation steps for luma, in natural order. 0 also where quantisation left too few
    fine coefficients to tell: noise under about a quarter of their steps.

    What decoding gives back is no measure of the noise: quantisation takes most of it from some
    frequencies and adds to others. But how many coefficients of a step came out as zero tells how wide
    they were spread before. This takes the most likely spread over all fine coefficients of luma in smooth
    blocks; colour is often stored at half the size, and its noise is inferred.
    """
    blocks = sample_blocks(pixels, _BLOCKS)
    saturated = saturated_pixels(blocks)
    usable = (saturated <= MAX_SATURATED).all(axis=1)
    if usable.sum() < _MIN_USABLE:
        return 0.0
    blocks, saturated = blocks[usable], saturated[usable]
    coefficients = dct(luma(blocks))
    chosen = np.concatenate(smoothest(coefficients))
    sizes, steps = np.abs(coefficients[chosen]), table.reshape(SIDE, SIDE)
    grey = bool((blocks == blocks[:, :1]).all())
    # What a variance of 1 in each channel adds to that of luma; in black and white, all have the same noise.
    shares = np.array([0, 1, 0]) if grey else np.array(LUMA) ** 2
    whole = float(shares.sum())
    unclipped = whole / float((UNCLIPPED[saturated[chosen]] @ shares).mean())
    fine, middle = (_spread(sizes[:, band], steps[band]) ** 2 * unclipped for band in (FINE, MIDDLE))
    return noise_beside_detail(fine, middle) / whole**0.5


def _spread(sizes: NDArray[np.float32], steps: NDArray[np.float64]) -> float:
    """The most likely standard deviation that normal values had before rounding to multiples of steps.

    sizes: (N, F), absolute; steps: (F).
    """
    limits = steps / 2
    deviation = _spread_within(sizes, limits)
    # Where steps are finer than the spread, the parts further out tell more than that of the zeros.
    limits = (np.maximum(0, np.round(deviation / steps)) + 0.5) * steps
    return _spread_within(sizes, limits)


def _spread_within(sizes: NDArray[np.float32], limits: NDArray[np.float64]) -> float:
    """The most likely standard deviation, given how many values are within which limits."""
    outside = np.maximum(0, (sizes > limits).mean(axis=0) - _STRAYS) / (1 - _STRAYS)
    inside = np.interp(limits / _DEVIATIONS[:, None], _Z, _WITHIN)
    likelihood = (outside * np.log(1 - inside) + (1 - outside) * np.log(inside)).sum(axis=1)
    return float(_DEVIATIONS[likelihood.argmax()])
