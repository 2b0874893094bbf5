"""The pictures that models are judged by, what a codec makes of them, and grids to look at.

A codec is judged as the product would show it: through the bytes of a latent file.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae.autoencoder import PMAVAE, reflect_pad
from pmavae.errors import ImageError, PMAVAEError
from pmavae.files.latent_file import LatentHeader, latents_to_bytes, read_latents
from pmavae.images.metrics import psnr, ssim
from pmavae.images.pixels import to_pixels, to_unit
from pmavae.images.reading import SUFFIXES, decode_rgb
from pmavae.inference.engine import encode
from pmavae.latents import split_style
from pmavae.training.losses import ACTIVE_NATS, kl_per_channel

MAX_SIDE = 512  # px of a validation picture; larger ones are cropped in the middle
GRID_SIDE = 256  # px of a picture in a grid
SCORE = "psnr_kodak24"  # in the manifest; of a restoration network, one a condition: psnr_kodak24_noise25, …


def picture_paths(folder: Path) -> list[Path]:
    """The pictures in a folder, by name. Raises PMAVAEError where there is no such folder, or none in it."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    except OSError as error:
        raise PMAVAEError(f"{folder} cannot be read: {error.strerror}") from None
    if not (pictures := [path for path in files if path.suffix.lower() in SUFFIXES]):
        raise PMAVAEError(f"{folder} has no pictures")
    return pictures


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture, upright, as (H, W, 3) uint8. Raises ImageError, naming the file."""
    try:
        with path.open("rb") as file:
            return decode_rgb(file, str(path))
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from None


def validation_pictures(folder: Path, count: int) -> list[Tensor]:
    """The first pictures of a folder by name, (1, 3, H, W) in [0, 1], at most MAX_SIDE on each side.

    Raises PMAVAEError, naming the folder or the file, where there is none or one is unreadable.
    """
    return [middle(read_rgb(path)) for path in picture_paths(folder)[:count]]


def middle(pixels: NDArray[np.uint8]) -> Tensor:
    """The middle of (H, W, 3) as (1, 3, H, W) in [0, 1], at most MAX_SIDE on each side."""
    height, width = (min(side, MAX_SIDE) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return to_unit(pixels[top : top + height, left : left + width])


def preview_grid(rows: Sequence[Sequence[Tensor]]) -> Tensor | None:
    """Rows of as many pictures (1, 3, H, W), cut to squares of GRID_SIDE, as one (3, H, W) in [0, 1].

    None for no rows.
    """
    if not rows:
        return None
    return torch.cat([torch.cat([_square(picture) for picture in row], dim=3) for row in rows], dim=2)[0]


def _square(picture: Tensor) -> Tensor:
    side = min(picture.shape[-2:])
    top, left = ((length - side) // 2 for length in picture.shape[-2:])
    crop = picture[..., top : top + side, left : left + side]
    return F.interpolate(crop, size=(GRID_SIDE, GRID_SIDE), mode="bicubic", antialias=True).clamp(0, 1)


def save_grid(grid: Tensor, path: Path) -> None:
    """Write (3, H, W) in [0, 1] as a PNG, atomically."""
    partial = path.with_suffix(".partial")
    Image.fromarray(to_pixels(grid)).save(partial, format="PNG")
    partial.replace(path)


def psnr_and_ssim(result: Tensor, original: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of (1, 3, H, W) in [0, 1], rounded to 8 bits, against the original."""
    result = (result * 255).round() / 255
    return {"psnr": float(psnr(result, original)), "ssim": float(ssim(result, original))}


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of rows with the same names; nothing of none."""
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


def stored_decibels(value: float) -> float | None:
    """As the manifest has them; None for infinitely many, which JSON has not."""
    return round(value, 3) if math.isfinite(value) else None


def reconstruct(model: PMAVAE, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """What a latent file of the picture decodes to, (H, W, 3) uint8, and the bytes of that file (fp16)."""
    header = LatentHeader(model.config.preset, model.weights_id, model.weights_sha256)
    latents = model.encode(picture).replace(logvar_base=None, logvar_detail=None)
    data = latents_to_bytes(latents, header)
    read, _ = read_latents(data, {model.config.preset: model.config}.__getitem__, name="the latent file")
    decoded = model.decode(read)[0].permute(1, 2, 0)
    return (decoded * 255).round().byte().cpu().numpy(), len(data)


def reconstruction_scores(model: PMAVAE, folder: Path) -> dict[str, dict[str, float]]:
    """PSNR (dB) and SSIM of each picture of a folder against what its latent file decodes to, by name."""
    scores = {}
    for path in picture_paths(folder):
        picture = read_rgb(path)
        decoded, original = (
            to_unit(pixels, dtype=torch.float64) for pixels in (reconstruct(model, picture)[0], picture)
        )
        scores[path.name] = psnr_and_ssim(decoded, original)
    return scores


@dataclass(frozen=True)
class LatentUse:
    """How much one latent says."""

    nats: float  # KL to a standard normal, a channel and position
    active: int  # channels whose KL is above ACTIVE_NATS …
    channels: int  # … of so many


@torch.no_grad()
def latent_use(model: PMAVAE, paths: Iterable[Path]) -> dict[str, LatentUse]:
    """KL and active dimensions of z_base, z_detail and the learned part of z_style, over some pictures.

    Raises ImageError for one that cannot be read.
    """
    kls: dict[str, list[Tensor]] = {"z_base": [], "z_detail": [], "z_style": []}
    for path in paths:
        posterior = encode(model.encoder, reflect_pad(to_unit(read_rgb(path), model.device)))
        learned = split_style(posterior.z_style, model.config)[2][:, :, None, None]
        kls["z_base"].append(kl_per_channel(posterior.z_base, posterior.logvar_base))
        kls["z_detail"].append(kl_per_channel(posterior.z_detail, posterior.logvar_detail))
        kls["z_style"].append(kl_per_channel(learned, posterior.logvar_style))
    means = {name: torch.stack(values).mean(0) for name, values in kls.items()}
    return {
        name: LatentUse(float(kl.mean()), int((kl > ACTIVE_NATS).sum()), len(kl))
        for name, kl in means.items()
    }
