"""The network, in a module of its own, for it needs torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sharpener(nn.Module):
    """(B, 3, H, W) in [0, 1] to what is sharper, not clamped; untrained, it changes nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 5, padding=2, padding_mode="replicate")
        self.middle = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate")
        self.last = nn.Conv2d(channels, 3, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, picture: Tensor) -> Tensor:
        return picture + self.last(F.relu(self.middle(F.relu(self.first(picture)))))


def blur(pictures: Tensor, sigma: float = 1.0) -> Tensor:
    """A Gaussian blur of (B, 3, H, W)."""
    weights = torch.exp(-(torch.arange(-3, 4, device=pictures.device) ** 2) / (2 * sigma**2))
    kernel = torch.outer(weights, weights).expand(3, 1, 7, 7) / weights.sum() ** 2
    return F.conv2d(F.pad(pictures, (3, 3, 3, 3), mode="replicate"), kernel.to(pictures), groups=3)
