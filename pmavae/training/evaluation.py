"""Reconstruction quality on a folder of pictures, as the product would give it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.autoencoder import PMAVAE
from pmavae.latent_file import LatentHeader, latents_to_bytes, read_latents

SUFFIXES = {".png", ".jpg", ".jpeg"}


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB, over all RGB values together."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def picture_paths(folder: Path) -> list[Path]:
    """The pictures in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


@dataclass(frozen=True)
class Reconstruction:
    """What became of one picture on its way through a latent file."""

    psnr: float  # dB, between 8-bit pictures
    bits_per_pixel: float  # of the whole latent file, fp16


def reconstructions(model: PMAVAE, folder: Path) -> dict[str, Reconstruction]:
    """Encode every picture of a folder to the bytes of a latent file and decode these; by file name."""
    header = LatentHeader(model.config.preset, model.weights_id, model.weights_sha256)
    config_for = {model.config.preset: model.config}.__getitem__
    results = {}
    for path in picture_paths(folder):
        picture = np.asarray(Image.open(path).convert("RGB"))
        latents = model.encode(picture).replace(logvar_base=None, logvar_detail=None)
        data = latents_to_bytes(latents, header)
        decoded = model.decode(read_latents(data, config_for, name=path.name)[0])[0].permute(1, 2, 0)
        results[path.name] = Reconstruction(
            psnr(picture, (decoded * 255).round().byte().cpu().numpy()),
            8 * len(data) / (picture.shape[0] * picture.shape[1]),
        )
    return results


def reconstruction_psnr(model: PMAVAE, folder: Path) -> dict[str, float]:
    """The PSNR of each of `reconstructions`."""
    return {name: result.psnr for name, result in reconstructions(model, folder).items()}
