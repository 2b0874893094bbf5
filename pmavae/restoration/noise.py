"""How noisy a picture is, or was before it was compressed as JPEG, from the DCT of its 8×8 blocks."""

from statistics import NormalDist

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


def luma_of(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 3, 8, 8) to the (N, 8, 8) that JPEG codes in full size."""
    weights = np.array(LUMA, np.float32)[:, None, None]
    return (blocks * weights).sum(axis=1, dtype=np.float32)


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


_BLOCKS = 8192  # read at most
_MIN_BLOCKS = 1024  # taken closer together, and overlapping, in pictures that have fewer
_MIN_USABLE = 32  # blocks, below which there is nothing to go by

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
    return np.asarray(np.mean(powers, axis=0), np.float32)


def saturated_pixels(blocks: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many pixels of each block (…, 8, 8) are at 0 or 255."""
    return ((blocks == 0) | (blocks == 255)).sum(axis=(-2, -1))


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
    coefficients = dct(luma_of(blocks))
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
