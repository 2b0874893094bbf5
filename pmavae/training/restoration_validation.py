"""What a restoration network has come to, on pictures that stay the same, damaged in the same way."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer, enlarge, level_numbers
from pmavae.training.degradation import recompress, shrink

# One after the other, from picture to picture.
DAMAGES = (Levels(noise=25), Levels(jpeg=20), Levels(noise=50), Levels(jpeg=10), Levels(noise=10))


@torch.no_grad()
def trial(model: Restorer, picture: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """A clean picture, (1, 3, H, W) in [0, 1], cut to what the network takes; damaged; restored.

    All of one size; a picture that was shrunk is shown enlarged.
    """
    scales = model.config.scales
    scale = scales[number % len(scales)]
    step = model.config.multiple * scale
    height, width = (side // step * step for side in picture.shape[-2:])
    clean = picture[..., :height, :width]
    pixels = (clean[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    levels = Levels() if scale > 1 else DAMAGES[number % len(DAMAGES)]
    damaged = _unit(shrink(pixels, scale) if scale > 1 else worsen(pixels, levels, number))
    numbers = torch.tensor([level_numbers(levels)], device=model.device)
    restored = model(damaged.to(model.device), numbers, scale=scale).clamp(0, 1).cpu()
    return clean.cpu(), enlarge(damaged, scale).clamp(0, 1), restored


def worsen(pixels: NDArray[np.uint8], levels: Levels, seed: int) -> NDArray[np.float32]:
    """(H, W, 3) with Gaussian noise, not clipped, or after JPEG with 4:2:0; in 8-bit units."""
    if levels.jpeg is not None:
        return recompress(pixels, levels.jpeg, halve=True).astype(np.float32)
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    return np.asarray(pixels + levels.noise * noise, np.float32)


def _unit(pixels: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(pixels, np.float32)).permute(2, 0, 1)[None] / 255
