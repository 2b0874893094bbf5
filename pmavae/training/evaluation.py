"""Reconstruction quality on a folder of pictures, as the product would give it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.autoencoder import PMAVAE

SUFFIXES = {".png", ".jpg", ".jpeg"}


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB, over all RGB values together."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def picture_paths(folder: Path) -> list[Path]:
    """The pictures in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def reconstruction_psnr(model: PMAVAE, folder: Path) -> dict[str, float]:
    """PSNR of decode(encode(picture)), rounded to 8 bits, by file name."""
    scores = {}
    for path in picture_paths(folder):
        picture = np.asarray(Image.open(path).convert("RGB"))
        decoded = model.decode(model.encode(picture))[0].permute(1, 2, 0)
        scores[path.name] = psnr(picture, (decoded * 255).round().byte().numpy())
    return scores
