"""More styles than there are paintings: other colours, other brush sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _random_colours(count: int) -> Tensor:
    """(count, 3, 3) colour matrices: half leave the picture alone, half mix and swap its channels."""
    matrices = torch.eye(3).repeat(count, 1, 1)
    for matrix in matrices:
        if torch.rand(()) < 0.5:
            matrix.copy_(matrix[torch.randperm(3)])
            matrix += 0.15 * torch.randn(3, 3)
            matrix /= matrix.sum(1, keepdim=True).clamp(min=0.5)  # grey stays about grey
    return matrices


def augment_styles(crops: Tensor, size: int) -> Tensor:
    """(B, 3, 2S, 2S) to (B, 3, S, S): a random window, shrunk by 1 to 2, in random colours.

    Uses torch's global generator. Values stay in [0, 1].
    """
    views = []
    for crop in crops:
        window = int(torch.randint(size, crop.shape[-1] + 1, ()))
        top, left = (int(torch.randint(crop.shape[-1] - window + 1, ())) for _ in range(2))
        view = crop[None, :, top : top + window, left : left + window]
        views.append(F.interpolate(view, size=(size, size), mode="bilinear", antialias=True))
    batch = torch.cat(views)
    return torch.einsum("bij,bjhw->bihw", _random_colours(len(batch)), batch).clamp(0, 1)
