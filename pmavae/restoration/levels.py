"""How a picture is damaged, told from its pixels and from the quantisation tables of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmavae.restoration.noise import DIAGONALS, dct, luma_of, noise_before_jpeg, noise_level, sample_blocks

MOST_NOISE, WORST_JPEG = 55.0, 10  # what the networks have met


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

    def describe(self) -> str:
        """The damage in a few words, for a message."""
        noise = f"noise of σ {self.noise:.1f}" if self.noise else "no noise"
        return f"{noise}, " + ("no trace of JPEG" if self.jpeg is None else f"JPEG of quality {self.jpeg}")


MAX_QUALITY = 95  # above, the steps of the low frequencies are 1 and leave no trace

# ISO/IEC 10918-1, table K.1, for luminance.
# fmt: off
_LUMA = np.array([
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

_BLOCKS = 4096  # read at most
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
    return ((_LUMA * scale + 50) // 100).clip(1, 255)


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
    blocks = sample_blocks(pixels, _BLOCKS)
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
