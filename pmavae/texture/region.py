"""A mask as the region of a picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def fit_region(mask: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """Greys (h, w) as shares (height, width) in [0, 1], scaled to the picture.

    Raises ValueError where the mask has not the picture's proportions: scaled so that one side fits, the
    other may be off by a pixel of either.
    """
    rows, columns = mask.shape
    off = abs(rows * width - columns * height)  # is 0 for equal proportions
    if off > max(rows, columns, height, width):
        raise ValueError(
            f"the mask has {columns}×{rows} px and the picture {width}×{height}: "
            "they must have the same proportions"
        )
    if (rows, columns) != (height, width):
        # Bilinear does not ring: what is black all around stays 0.
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.array(mask)).float() / 255
