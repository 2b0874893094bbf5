"""How a picture is damaged, told from its pixels and from the quantisation tables of its file.

Both the noise and the quality of a JPEG are read from the DCT of the picture's 8×8 blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pmavae.images.pixels import LUMA

MOST_NOISE, WORST_JPEG = 55.0, 10  # what the networks have met
NOISE_UNIT = 50.0  # standard deviation in 8-bit units that the condition of a network calls 1


@dataclass(frozen=True)
class Levels:
    """How a picture is damaged."""

    noise: float = 0.0  # standard deviation in 8-bit units, RMS over the channels
    jpeg: int | None = None  # IJG quality, 1–100; None: no trace of JPEG

    @property
    def none(self) -> bool:
        """Whether there is nothing to take out."""
        return self.noise == 0 and self.jpeg in (None, 100)

    def times(self, strength: float) -> Levels:
        """So much more, or less, of both kinds of damage."""
        jpeg = None if self.jpeg is None else round(100 - strength * (100 - self.jpeg))
        return Levels(strength * self.noise, jpeg if jpeg is None else max(1, jpeg))

    def within(self, noise: float = MOST_NOISE, jpeg: int = WORST_JPEG) -> Levels:
        """These levels, or the worst that a network has met."""
        return Levels(min(self.noise, noise), None if self.jpeg is None else max(self.jpeg, jpeg))

    def numbers(self) -> tuple[float, float]:
        """The two numbers in [0, 1], about, that condition a network: noise, and what JPEG took away."""
        return self.noise / NOISE_UNIT, 0.0 if self.jpeg is None else 1 - self.jpeg / 100

    def describe(self) -> str:
        """The damage in a few words, for a message."""
        noise = f"noise of σ {self.noise:.1f}" if self.noise else "no noise"
        return f"{noise}, " + ("no trace of JPEG" if self.jpeg is None else f"JPEG of quality {self.jpeg}")


def estimate_levels(pixels: NDArray[np.uint8], tables: Mapping[int, Sequence[int]] | None = None) -> Levels:
    """The noise and JPEG quality of a picture (H, W, 3), both at least 16.

    tables: the quantisation tables of the JPEG file that the pixels were decoded from, as Pillow's
    `image.quantization`; the pixels then have to be as it decodes, neither turned nor cropped. None looks
    for an older JPEG in the pixels. Qualities above 95 count as no JPEG. Where there is one, the noise is
    that before it, so that artefacts are not read as noise. Raises ValueError for damaged tables.
    """
    if tables is not None:
        quality, table = quality_of_tables(tables), luma_table_of(tables)
        jpeg = quality if quality <= MAX_QUALITY else None
        return Levels(noise_before_jpeg(pixels, table), jpeg)
    jpeg = quality_of_pixels(pixels)
    if jpeg is None:
        return Levels(noise_level(pixels))
    return Levels(noise_before_jpeg(pixels, luma_table(jpeg).astype(np.float64)), jpeg)


SIDE = 8  # px
_POINTS = np.arange(SIDE)
DIAGONALS = _POINTS[:, None] + _POINTS  # 0 for the mean of a block, 14 for its finest frequency

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


MAX_QUALITY = 95  # above, the steps of the low frequencies are 1 and leave no trace

# ISO/IEC 10918-1, table K.1, for luminance.
# fmt: off
_LUMA_STEPS = np.array([
    16, 11, 10, 16,  24,  40,  51,  61,
    12, 12, 14, 19,  26,  58,  60,  55,
    14, 13, 16, 24,  40,  57,  69,  56,
    14, 17, 22, 29,  51,  87,  80,  62,
    18, 22, 37, 56,  68, 109, 103,  77,
    24, 35, 55, 64,  81, 104, 113,  92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103,  99,
])
# fmt: on

_JPEG_BLOCKS = 4096  # read at most, for the quality
_LOW = (DIAGONALS >= 1) & (DIAGONALS <= 6)  # frequencies that survive at any quality
# Decoding rounds luma and then three colours, which moves a coefficient by about this much (standard
# deviation); a small part lies elsewhere for other reasons.
_ROUNDING = 0.4
_STRAYING = 0.05
_NONZERO = 1.5  # what is smaller may be a zero, which lies on every lattice
_MIN_MEAN = 0.1  # nats for a coefficient
_MIN_SUM = 20.0  # nats; by chance, one of 95 lattices fits this well in a picture out of five million


def luma_table(quality: int) -> NDArray[np.int64]:
    """The 64 quantisation steps that libjpeg gives luma at an IJG quality of 1–100, in natural order."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((_LUMA_STEPS * scale + 50) // 100).clip(1, 255)


_TABLES = np.stack([luma_table(quality) for quality in range(1, 101)])


def quality_of_tables(tables: Mapping[int, Sequence[int]]) -> int:
    """The IJG quality, 1–100, whose luma table is nearest to that of a JPEG file.

    tables: as Pillow's `image.quantization`, each in natural order; table 0 is luma's and decides. The
    distance is that of the steps' logarithms, so tables that are not libjpeg's get the quality that does
    about as much harm. Raises ValueError where table 0 is missing or is not 64 positive numbers.
    """
    table = luma_table_of(tables)
    distance = np.abs(np.log(table) - np.log(_TABLES)).sum(axis=1)
    return int(distance.argmin()) + 1


def luma_table_of(tables: Mapping[int, Sequence[int]]) -> NDArray[np.float64]:
    """The 64 steps of luma in `tables`. Raises as `quality_of_tables` does."""
    table = np.asarray(tables.get(0, ()), dtype=np.float64)
    if table.shape != (64,) or not (np.isfinite(table) & (table > 0)).all():
        raise ValueError("the luma quantisation table (0) of a JPEG must be 64 positive numbers")
    return table


def quality_of_pixels(pixels: NDArray[np.uint8]) -> int | None:
    """The IJG quality, 1–95, of a JPEG that a picture (H, W, 3) was decoded from; None: no trace of one.

    What was a JPEG has its luma coefficients on multiples of the quantisation steps. This finds the table
    on whose lattice they lie most likely, and finds it only if the 8×8 grid begins at the top left and
    nothing was changed since (after Fan and de Queiroz, "Identification of bitmap compression history",
    IEEE TIP 2003).
    """
    blocks = sample_blocks(pixels, _JPEG_BLOCKS)
    clipped = ((blocks == 0) | (blocks == 255)).any(axis=(1, 2, 3))  # moves coefficients anywhere
    blocks = np.unique(blocks[~clipped], axis=0)  # repetition is not evidence
    coefficients = dct(luma_of(blocks))[:, _LOW]
    nonzero = np.abs(coefficients) > _NONZERO
    count = int(nonzero.sum())
    if not count:
        return None
    evidence = np.zeros(MAX_QUALITY)
    for frequency, values, kept in zip(np.flatnonzero(_LOW), coefficients.T, nonzero.T, strict=True):
        steps, quality_steps = np.unique(_TABLES[:MAX_QUALITY, frequency], return_inverse=True)
        evidence += _lattice_evidence(values[kept], steps)[quality_steps]
    best = int(evidence.argmax())
    if evidence[best] < max(_MIN_SUM, _MIN_MEAN * count):
        return None
    return best + 1


def _lattice_evidence(values: NDArray[np.float32], steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each step, how much likelier (log) values are near its multiples than spread evenly."""
    step = steps[:, None].astype(np.float32)
    off = values - step * np.round(values / step)
    peak = step / (_ROUNDING * (2 * np.pi) ** 0.5)
    ratio = _STRAYING + (1 - _STRAYING) * peak * np.exp(-0.5 * (off / _ROUNDING) ** 2)
    return np.where(steps > 1, np.log(ratio).sum(axis=1, dtype=np.float64), 0.0)


_NOISE_BLOCKS = 8192  # read at most, for the noise
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
    blocks = sample_blocks(pixels, _NOISE_BLOCKS, step)
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
    blocks = sample_blocks(pixels, _NOISE_BLOCKS)
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
