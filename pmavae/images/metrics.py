"""How near one picture is to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, px
K1, K2 = 0.01, 0.03


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures (B, 3, H, W) in [0, 1], (B,); infinite for equal ones."""
    return -10 * torch.log10((a - b).square().mean((1, 2, 3)))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of pictures (B, 3, H, W) in [0, 1], (B,); 1 for equal ones.

    As its authors define it (Wang et al. 2004): Gaussian windows that lie within the picture, population
    statistics, averaged over positions and the three channels. H and W are at least 11.
    """
    offsets = torch.arange(WINDOW, device=a.device, dtype=a.dtype) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)

    def local(x: Tensor) -> Tensor:
        rows = F.conv2d(x, weights, groups=3)
        return F.conv2d(rows, weights.transpose(2, 3), groups=3)

    mean_a, mean_b = local(a), local(b)
    variance_a = local(a * a) - mean_a.square()
    variance_b = local(b * b) - mean_b.square()
    covariance = local(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a.square() + mean_b.square() + K1**2)
    structure = (2 * covariance + K2**2) / (variance_a + variance_b + K2**2)
    return (luminance * structure).mean((1, 2, 3))


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Perceptual distance of two batches by their feature maps (B, C, h, w) of every layer, (B,).

    LPIPS (arXiv 1801.03924) without its learned weights: the squared distance of unit-length feature
    vectors, averaged over positions and layers. 0 for equal ones, 2 for unrelated ones.
    """
    layers = [
        (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).square().sum(1).mean((1, 2))
        for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(layers).mean(0)
