"""What repainting needs beside distances: styles seen otherwise, and the share of what repeats."""

from __future__ import annotations

import torch
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
