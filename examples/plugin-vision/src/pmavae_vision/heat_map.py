"""Numbers as colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# From dark to light, in even steps of lightness, so that it reads in grey too.
STOPS = (
    (0, 0, 4),
    (27, 12, 66),
    (75, 12, 107),
    (120, 28, 109),
    (165, 44, 96),
    (207, 68, 70),
    (237, 105, 37),
    (251, 155, 6),
    (247, 209, 61),
    (252, 255, 164),
)


def palette() -> NDArray[np.uint8]:
    """256 colours, (256, 3)."""
    at, stops = np.linspace(0, len(STOPS) - 1, 256), np.array(STOPS, np.float64)
    channels = [np.interp(at, np.arange(len(STOPS)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_map(values: NDArray[np.float64]) -> Image.Image:
    """(H, W) of values from 0 on, the largest of which is the lightest, as a picture with a palette."""
    largest = values.max() or 1.0
    levels = (255 * values / largest).round().astype(np.uint8)
    indexed = Image.frombytes("P", (values.shape[1], values.shape[0]), levels.tobytes())
    indexed.putpalette(palette().tobytes())
    return indexed
