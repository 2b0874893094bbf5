"""What is under and around transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.images.pixels import Pixels, eight_bits, sixteen_bits, strips


def fill_hidden(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours (H, W, 3) with those under full transparency (H, W) replaced by their surroundings'.

    Nobody saw what lay there, often black, and a network would draw it into the edges of what is seen and
    into the picture's style. Where nothing is opaque the colours stay.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    filled, found = colours.copy(), _surroundings(colours, alpha)
    for row in np.flatnonzero(hidden.any(1)):
        columns = np.flatnonzero(hidden[row])
        filled[row, columns] = found[row // 2, columns // 2].round().astype(colours.dtype)
    return filled


def _surroundings(colours: Pixels, alpha: Pixels) -> NDArray[np.float32]:
    """The mean colour of what is seen nearby, at the finest scale at which anything is, for 2 × 2 px each."""
    sums = [_halves(colours, alpha)]  # means over blocks of 2, 4, 8, … px
    while (sums[-1][1] == 0).any():
        sums.append(tuple(map(_halved, sums[-1])))  # type: ignore[arg-type]
    found = sums[-1][0] / sums[-1][1]
    for summed, seen in reversed(sums[:-1]):
        height, width = seen.shape[:2]
        found = found.repeat(2, 0).repeat(2, 1)[:height, :width]
        found = np.where(seen > 0, summed / np.maximum(seen, 1e-9), found)
    return found


def _halves(colours: Pixels, alpha: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted colours and weights, as means over 2 × 2 px; of strips, for the whole is large in float32."""
    height, width = (-(-side // 2) for side in alpha.shape)
    summed, weights = np.empty((height, width, 3), np.float32), np.empty((height, width, 1), np.float32)
    for rows in strips(alpha.shape[0]):  # of an even number of rows each, but for the last
        weight = alpha[rows].astype(np.float32)[..., None] / np.float32(np.iinfo(alpha.dtype).max)
        half = slice(rows.start // 2, -(-rows.stop // 2))
        summed[half], weights[half] = _halved(colours[rows] * weight), _halved(weight)
    return summed, weights


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 × 2, of what there is at the right and the bottom."""
    height, width = values.shape[:2]
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).mean((1, 3))


def fit_alpha(alpha: Pixels, width: int, height: int, dtype: np.dtype[Any]) -> Pixels:
    """Transparency (H, W) for a picture of another size, by Lanczos, or of other bits."""
    if alpha.shape != (height, width):
        most = np.iinfo(alpha.dtype).max
        image = Image.fromarray(alpha.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS)
        alpha = np.asarray(image).round().clip(0, most).astype(alpha.dtype)
    return eight_bits(alpha) if dtype == np.uint8 else sixteen_bits(alpha)
