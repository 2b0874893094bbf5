"""Other textures for a picture: samples of its z_detail that go with its z_base and z_style."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae.config import BASE_STRIDE
from pmavae.latents import Latents
from pmavae.texture.coefficients import Texture, spread, surface_share, take_apart
from pmavae.texture.network import TexturePrior

STEPS = 12  # Euler's, of equal length


@torch.no_grad()
def vary(
    model: TexturePrior,
    latents: Latents,
    amount: float,
    generator: torch.Generator,
    region: Tensor | None = None,
    steps: int = STEPS,
) -> Latents:
    """The same picture (batch 1) with other textures; z_base, z_style and edges are its own.

    The pattern of z_detail is mixed with noise, the more the larger the amount, and led back to a likely one
    (SDEdit, arXiv 2108.01073). amount: 0, which changes nothing, to 1, which draws every surface anew.
    generator: on the CPU; every call takes the same number of draws from it. region: (height, width) of the
    picture, 0 where it is to be kept to 1; what is between lowers the amount there. Raises ValueError for an
    amount outside 0..1 and a region of another size.
    """
    if not 0.0 <= amount <= 1.0:
        raise ValueError(f"amount {amount} is outside 0..1")
    texture = take_apart(latents.z_base, latents.z_detail)
    noise = torch.randn(texture.pattern.shape, generator=generator).to(texture.pattern.device)
    levels = amount * surface_share(texture)
    if region is not None:
        levels = levels * _in_cells(region, latents).to(levels.device)
    if not levels.any():
        return latents
    known = model.known(latents.z_base, texture)
    pattern = noised(texture, noise, amount)
    stations = [amount * (1 - step / steps) for step in range(steps + 1)]
    for now, then in pairwise(stations):
        # Cells of a lower amount stay what they were, and as noisy as the rest, until it comes down to them.
        pattern = torch.where(levels >= now, pattern, noised(texture, noise, now))
        time, change = times(now), times(then) - times(now)
        velocity = model(pattern, time.to(noise.device), known, latents.z_style)
        pattern = pattern + velocity * spread(change[..., None, None].to(noise.device), noise.shape[1])
    moved = F.interpolate(levels, scale_factor=2.0, mode="nearest") > 0
    varied = replace(texture, pattern=pattern).join()
    return latents.replace(z_detail=torch.where(moved, varied, latents.z_detail))


def times(level: float) -> Tensor:
    """Shares of noise in means and in differences, (1, 2), at an amount.

    The fine texture of the means comes first and goes last, or every edge of a leaf would move as soon as its
    veins do.
    """
    return torch.tensor([[level, level**2]])


def noised(texture: Texture, noise: Tensor, level: float) -> Tensor:
    """The pattern with as much of the noise as there is at an amount."""
    share = spread(times(level)[..., None, None].to(noise.device), noise.shape[1])
    return torch.lerp(texture.pattern, noise, share)


def _in_cells(region: Tensor, latents: Latents) -> Tensor:
    """The mean of the region in every cell, (1, 1, h, w); the picture's edge goes on into its padding."""
    if tuple(region.shape) != (latents.height, latents.width):
        raise ValueError(
            f"the region has {region.shape[1]}×{region.shape[0]} px and the picture "
            f"{latents.width}×{latents.height}"
        )
    bottom, right = latents.padding
    full = F.pad(region[None, None].float(), (0, right, 0, bottom), mode="replicate")
    return F.avg_pool2d(full, BASE_STRIDE)


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
