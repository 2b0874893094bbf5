"""How a picture is damaged, told from the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pmavae.restoration.jpeg_level import (
    MAX_QUALITY,
    luma_table,
    luma_table_of,
    quality_of_pixels,
    quality_of_tables,
)
from pmavae.restoration.jpeg_noise import noise_before_jpeg
from pmavae.restoration.levels import Levels
from pmavae.restoration.noise_level import noise_level


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
