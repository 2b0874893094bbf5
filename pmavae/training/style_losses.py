"""How near a picture is to a style, and how much of its content it has kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SWD_SCALES = (1, 2, 4)  # patches of 5, 10 and 20 px of the picture
SWD_PATCH = 5
SWD_PROJECTIONS = 32
SWD_POSITIONS = 2048  # patches drawn per picture and scale


def _relative(difference: Tensor, reference: Tensor) -> Tensor:
    """Squared norm of a difference over that of the reference, per item, averaged."""
    return (difference.flatten(1).square().sum(1) / (reference.flatten(1).square().sum(1) + 1e-8)).mean()


def gram(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, C): second moments of the channels (arXiv 1508.06576)."""
    flat = x.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def gram_distance(a: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Relative squared distance of Gram matrices, averaged over layers; 0 is the same texture."""
    return torch.stack([_relative(gram(x) - gram(y), gram(y)) for x, y in zip(a, style, strict=True)]).mean()


def moment_distance(a: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Relative squared distance of channel means and deviations (AdaIN's style loss)."""

    def moments(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
        return torch.cat((mean, (variance + 1e-6).sqrt()), dim=1)

    return torch.stack(
        [_relative(moments(x) - moments(y), moments(y)) for x, y in zip(a, style, strict=True)]
    ).mean()


def content_distance(a: Sequence[Tensor], content: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """Squared distance of instance-normalised deep features: structure without palette; 0..4.

    `layers` are those that are compared: `content_layers` of the network that made the features.
    """
    distances = [
        (F.instance_norm(a[i].float()) - F.instance_norm(content[i].float())).square().mean() for i in layers
    ]
    return torch.stack(distances).mean()


def grid_share(picture: Tensor, period: int = 16) -> Tensor:
    """The share of a picture's fine structure that repeats with a fixed period; 0..1.

    Upsampling networks paint flat areas with a block grid because it is the cheapest texture. Fine
    structure is the picture less its local mean; folding it over the period leaves what repeats.
    """
    fine = picture - F.avg_pool2d(picture, 5, stride=1, padding=2, count_include_pad=False)
    height, width = (side // period * period for side in fine.shape[-2:])
    folded = fine[..., :height, :width].unflatten(-1, (-1, period)).unflatten(-3, (-1, period)).mean((-4, -2))
    return (folded.square().mean((1, 2, 3)) / (fine.square().mean((1, 2, 3)) + 1e-5)).mean()


def sliced_wasserstein(a: Tensor, style: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Distance of the distributions of 5×5 patches at three scales; (B, 3, H, W) each, sizes may differ.

    Random projections of the patches are sorted and compared (arXiv 2006.07229). Palette and
    strokes without any network.
    """
    total = a.new_zeros(())
    for scale in SWD_SCALES:
        small, small_style = (F.avg_pool2d(x, scale) if scale > 1 else x for x in (a, style))
        kernels = torch.randn(SWD_PROJECTIONS, 3, SWD_PATCH, SWD_PATCH, generator=generator).to(a)
        kernels = kernels / kernels.flatten(1).norm(dim=1)[:, None, None, None]
        projected, projected_style = (
            F.conv2d(x, kernels).flatten(2) for x in (small, small_style)
        )  # (B, projections, positions)
        count = min(SWD_POSITIONS, projected.shape[2], projected_style.shape[2])
        draws = [
            x[:, :, torch.randperm(x.shape[2], generator=generator)[:count]].sort(dim=2).values
            for x in (projected, projected_style)
        ]
        total = total + (draws[0] - draws[1]).abs().mean()
    return total / len(SWD_SCALES)
