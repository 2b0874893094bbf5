"""What training has come to, on pictures that stay the same: scores, and grids to look at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pmavae.autoencoder import PMAVAE
from pmavae.images.metrics import psnr, ssim
from pmavae.latents import mix_style
from pmavae.restoration.network import Restorer
from pmavae.texture.network import TexturePrior
from pmavae.texture.sampling import vary
from pmavae.training.evaluation import picture_paths, read_rgb
from pmavae.training.objectives.base import Model
from pmavae.training.objectives.plugin import PluginNetwork
from pmavae.training.objectives.restoration import trial
from pmavae.training.objectives.texture import velocity_error
from pmavae.training.plugin import Example

MAX_SIDE = 512  # px; larger pictures are cropped in the middle
GRID_SIDE = 256  # px of a picture in a grid


def validation_pictures(folder: Path, count: int) -> list[Tensor]:
    """The first pictures of a folder by name, (1, 3, H, W) in [0, 1], at most MAX_SIDE on each side.

    Raises PMAVAEError, naming the folder or the file, where there is none or one is unreadable.
    """
    return [middle(read_rgb(path)) for path in picture_paths(folder)[:count]]


def middle(pixels: np.ndarray) -> Tensor:
    """The middle of (H, W, 3) uint8 as (1, 3, H, W) in [0, 1], at most MAX_SIDE on each side."""
    height, width = (min(side, MAX_SIDE) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255


def score(
    model: Model, pictures: Sequence[Tensor | Example], codec: PMAVAE | None = None
) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM, rounded to 8 bits, of reconstructions or of restored damage.

    Of a texture prior, the error of its velocity on the latents of `codec`; of a plugin's network, what the
    plugin says.
    """
    if isinstance(model, PluginNetwork):
        rows = [model.score(picture) for picture in pictures]
        return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]} if rows else {}
    if isinstance(model, TexturePrior):
        assert codec is not None
        plain = [x for x in pictures if isinstance(x, Tensor)]
        return {"velocity": statistics.fmean(velocity_error(model, codec, x) for x in plain)}
    scores: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for number, picture in enumerate(pictures):
        assert isinstance(picture, Tensor)
        if isinstance(model, Restorer):
            original, _, result = trial(model, picture, number)
        else:
            original, result = picture, model.decode(model.encode(picture)).cpu()
        result = (result * 255).round() / 255
        scores["psnr"].append(float(psnr(result, original)))
        scores["ssim"].append(float(ssim(result, original)))
    return {name: statistics.fmean(values) for name, values in scores.items()}


@torch.no_grad()
def preview(model: Model, pictures: Sequence[Tensor | Example], codec: PMAVAE | None = None) -> Tensor | None:
    """(3, rows × GRID_SIDE, 3 × GRID_SIDE) in [0, 1], a row for each picture.

    Of an autoencoder: input | reconstruction | in the next one's style. Of a restoration network:
    damaged | restored | clean. Of a texture prior: reconstruction | textures half | all anew. Of a plugin's
    network, what the plugin shows, in as many columns; None where it shows nothing.
    """
    rows = []
    for index, picture in enumerate(pictures):
        if isinstance(model, PluginNetwork):
            row = list(model.shown(picture))
        elif isinstance(picture, Example):
            raise TypeError(f"{type(model).__name__} has no use for examples")
        elif isinstance(model, Restorer):
            clean, damaged, restored = trial(model, picture, index)
            row = [damaged, restored, clean]
        elif isinstance(model, TexturePrior):
            assert codec is not None
            latents = codec.encode(picture)
            random = torch.Generator().manual_seed(0)
            row = [codec.decode(vary(model, latents, amount, random)).cpu() for amount in (0.0, 0.5, 1.0)]
        else:
            latents = model.encode(picture)
            other = pictures[(index + 1) % len(pictures)]
            assert isinstance(other, Tensor)
            style = model.encode(other).z_style
            swapped = latents.replace(z_style=mix_style(latents.z_style, [(style, 1.0)]))
            row = [picture, model.decode(latents).cpu(), model.decode(swapped).cpu()]
        if row:
            rows.append(torch.cat([_square(x) for x in row], dim=3))
    return torch.cat(rows, dim=2)[0] if rows else None


def _square(picture: Tensor) -> Tensor:
    side = min(picture.shape[-2:])
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    crop = picture[..., top : top + side, left : left + side]
    resized = F.interpolate(crop, size=(GRID_SIDE, GRID_SIDE), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def save_grid(grid: Tensor, path: Path) -> None:
    """Write (3, H, W) in [0, 1] as a PNG, atomically."""
    pixels = (grid.permute(1, 2, 0) * 255).round().byte().numpy()
    partial = path.with_suffix(".partial")
    Image.fromarray(pixels).save(partial, format="PNG")
    partial.replace(path)
