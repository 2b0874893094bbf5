"""What a network gives, as the pixels of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1], on any device, as (H, W, 3), rounded to 8 bits."""
    return picture.mul(255).round_().byte().permute(1, 2, 0).cpu().numpy()
