"""What training does to clean crops: noise, JPEG, and shrinking, each with the level that it used.

Every row follows from nothing but seed, step and its number, as in dataset.py.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pmavae.network_configs import RestorationConfig
from pmavae.restoration.levels import Levels
from pmavae.training.config import DamageConfig

GRID = 16  # px that crops are larger, so that a JPEG's grid (of 4:2:0) may begin anywhere
_STREAM = 2**63  # keeps these numbers apart from those that the dataset draws from the same seed


@dataclass(frozen=True)
class Damaged:
    """Crops, what was done to them, and how far the network may look past its bottleneck."""

    inputs: NDArray[np.float32]  # (B, S, S, 3), about in [0, 1]: noise is not always clipped
    targets: NDArray[np.uint8]  # (B, scale·S, scale·S, 3)
    levels: NDArray[np.float32]  # (B, 2), as `Levels.numbers` has them
    fidelity: NDArray[np.float32]  # (B,) in [0, 1]
    scale: int


def scale_of(network: RestorationConfig, seed: int, step: int) -> int:
    """The scale that a step trains: all rows of a batch have one."""
    return network.scales[_generator(seed, step, 2**32).integers(len(network.scales))]


def crop_side(crop: int, scale: int) -> int:
    """The side of the clean crop, in px, that an input of `crop` px is made of."""
    return scale * crop + GRID


def damage(
    clean: NDArray[np.uint8], scale: int, config: DamageConfig, *, seed: int, step: int, first: int = 0
) -> Damaged:
    """Damage (B, S, S, 3) uint8 crops of `crop_side`, which are rows `first` and on of a step."""
    rows = [_row(crop, scale, config, _generator(seed, step, first + i)) for i, crop in enumerate(clean)]
    inputs, targets, levels, fidelity = (np.stack(column) for column in zip(*rows, strict=True))
    return Damaged(inputs, targets, levels, fidelity, scale)


def _row(
    crop: NDArray[np.uint8], scale: int, config: DamageConfig, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    side = len(crop) - GRID
    kind = random.choice(5, p=np.array(config.shares) / sum(config.shares))
    clean, noisy, jpeg, poisson = kind == 0, kind in (1, 4), kind in (3, 4), kind == 2
    if grey := random.random() < config.grey:
        crop = np.asarray(Image.fromarray(crop).convert("L").convert("RGB"))
    # A camera's JPEG has its grid at the corner; one that was cropped has it anywhere.
    moved = jpeg and random.random() < config.moved_grid
    top, left = random.integers(GRID, size=2) if moved else (0, 0)
    target = crop[top : top + side, left : left + side] if scale == 1 else crop[:side, :side]
    damaged = crop if scale == 1 else shrink(target, scale)
    noise = config.noise * random.random() if noisy or poisson else 0.0
    if kind == 4:
        noise *= 0.6  # what was that noisy and then compressed is mush
    pixels = damaged.astype(np.float32)
    if poisson and not grey:
        pixels = photon_noise(pixels, noise, random)
    elif noise:
        channels = 1 if grey else 3
        pixels += noise * random.standard_normal((*pixels.shape[:2], channels), np.float32)
    if jpeg or clean or random.random() < config.rounded:
        pixels = pixels.round().clip(0, 255)
    quality = None
    if jpeg:
        low, high = config.jpeg
        # Half of them in the lowest quarter, where there is most to repair.
        quality = low + int(random.random() ** 2 * (high - low + 1))
        stored, _ = recompress(pixels.astype(np.uint8), quality, halve=bool(random.integers(2)))
        pixels = stored.astype(np.float32)
    if scale == 1:
        pixels = pixels[top : top + side, left : left + side]
    fidelity = random.random() if random.random() < config.gated else 1.0
    return (
        pixels / np.float32(255),
        target,
        np.array(Levels(noise, quality).numbers(), np.float32),
        np.array(fidelity, np.float32),
    )


def shrink(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """(H, W, 3) to (H / scale, W / scale, 3) as MATLAB's imresize does: antialiased bicubic, a = −0.5."""
    height, width = (side // scale for side in pixels.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(pixels[: height * scale, : width * scale]))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def photon_noise(
    pixels: NDArray[np.float32], noise: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Poisson noise, of a variance that grows with the light and is `noise`² on average."""
    if not noise:
        return pixels
    gain = noise**2 / max(1.0, float(pixels.mean()))
    return (random.poisson(pixels / gain) * gain).astype(np.float32)


def recompress(
    pixels: NDArray[np.uint8], quality: int, halve: bool
) -> tuple[NDArray[np.uint8], dict[int, list[int]]]:
    """The pixels after a JPEG file of an IJG quality, with colour at half the size (4:2:0) or in full.

    And the file's quantisation tables.
    """
    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(stream, "JPEG", quality=quality, subsampling=2 if halve else 0)
    stream.seek(0)
    with JpegImageFile(stream) as decoded:
        return np.asarray(decoded), decoded.quantization


def _generator(seed: int, step: int, row: int) -> np.random.Generator:
    key = np.array([(seed % 2**63) + _STREAM, step % 2**64], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, row, 0], np.uint64)))
