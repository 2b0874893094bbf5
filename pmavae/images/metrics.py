"""How near one picture is to another: measures of tensors, and of two picture files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.images.pixels import STEP, Pixels, blurred, gaussian, strips, to_unit

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
    local = partial(blurred, kernel=gaussian(SIGMA, WINDOW // 2, a.dtype, a.device))
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


@dataclass(frozen=True)
class Comparison:
    """What lies between two pictures; lists are of red, green and blue."""

    psnr: float  # dB, infinite for equal pictures
    ssim: float  # 1 for equal pictures
    largest: list[float]  # absolute difference, 0–255, whole for pictures of 8 bits
    shift: list[float]  # mean of b − a, −255 to 255


def compare_pictures(a: Pixels, b: Pixels) -> Comparison:
    """Compare two pictures (H, W, 3), both uint8 or both uint16, of at least 11 px a side.

    The values are those of `psnr` and `ssim` on the whole pictures, computed strip by strip, so that memory
    does not grow with them. Raises ValueError for pictures of different sizes or types.
    """
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        raise ValueError(f"pictures of {a.dtype} {a.shape} and {b.dtype} {b.shape} cannot be compared")
    most, step = np.iinfo(a.dtype).max, STEP if a.dtype == np.uint16 else 1
    height, width = a.shape[:2]
    squares, similarity = 0, 0.0
    largest = np.zeros(3, np.int64)
    total = np.zeros(3, np.int64)
    for rows in strips(height, width):
        difference = b[rows].astype(np.int64) - a[rows]
        largest = np.maximum(largest, np.abs(difference).max((0, 1)))
        total += difference.sum((0, 1), dtype=np.int64)
        squares += int(np.square(difference).sum(dtype=np.int64))
    windows = height - WINDOW + 1  # rows of positions of SSIM's window
    for rows in strips(windows, width):
        here = slice(rows.start, rows.stop + WINDOW - 1)
        similarity += float(ssim(to_unit(a[here]), to_unit(b[here]))) * (rows.stop - rows.start)
    return Comparison(
        psnr=10 * math.log10(most**2 * a.size / squares) if squares else math.inf,
        ssim=similarity / windows,
        largest=[int(value) if step == 1 else int(value) / step for value in largest],
        shift=[float(value) / step / (height * width) for value in total],
    )


def amplified_difference(a: Pixels, b: Pixels, gain: float) -> Pixels:
    """|b − a| times `gain`, clipped: black where the pictures (H, W, 3), uint8, are equal."""
    difference = np.abs(b.astype(np.int16) - a)
    table = np.minimum(np.arange(256) * gain, 255).round().astype(np.uint8)
    return table[difference]
