"""More styles than there are paintings: other colours, other brush sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _random_colours(count: int, generator: torch.Generator | None) -> Tensor:
    """(count, 3, 3) colour matrices: half leave the picture alone, half mix and swap its channels."""
    matrices = torch.eye(3).repeat(count, 1, 1)
    for matrix in matrices:
        if torch.rand((), generator=generator) < 0.5:
            matrix.copy_(matrix[torch.randperm(3, generator=generator)])
            matrix += 0.15 * torch.randn(3, 3, generator=generator)
            matrix /= matrix.sum(1, keepdim=True).clamp(min=0.5)  # grey stays about grey
    return matrices


def augment_styles(crops: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """(B, 3, 2S, 2S) to (B, 3, S, S): a random window, shrunk by 1 to 2, in random colours.

    Runs where `crops` are. All random numbers come from `generator`, one of the CPU whatever the
    device (the global one if None), and decide the same everywhere. Values stay in [0, 1].
    """

    def draw(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    views = []
    for crop in crops:
        window = size + draw(crop.shape[-1] - size + 1)
        top, left = (draw(crop.shape[-1] - window + 1) for _ in range(2))
        view = crop[None, :, top : top + window, left : left + window]
        views.append(F.interpolate(view, size=(size, size), mode="bilinear", antialias=True))
    batch = torch.cat(views)
    colours = _random_colours(len(batch), generator).to(batch)
    return torch.einsum("bij,bjhw->bihw", colours, batch).clamp(0, 1)
