"""The grid that upsampling leaves."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def grid_share(picture: Tensor, period: int = 16) -> Tensor:
    """The share of a picture's fine structure that repeats with a fixed period; 0..1.

    Upsampling networks paint flat areas with a block grid because it is the cheapest texture. Fine
    structure is the picture less its local mean; folding it over the period leaves what repeats.
    """
    fine = picture - F.avg_pool2d(picture, 5, stride=1, padding=2, count_include_pad=False)
    height, width = (side // period * period for side in fine.shape[-2:])
    folded = fine[..., :height, :width].unflatten(-1, (-1, period)).unflatten(-3, (-1, period)).mean((-4, -2))
    return (folded.square().mean((1, 2, 3)) / (fine.square().mean((1, 2, 3)) + 1e-5)).mean()
