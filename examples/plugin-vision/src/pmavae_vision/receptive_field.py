"""The effective receptive field of a feature map (Luo et al., arXiv 1701.04128)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from pmavae_vision.pictures import read_picture

Features = Callable[[Tensor], Tensor]  # (1, 3, S, S) in [0, 1] to (1, C, h, w)
Map = NDArray[np.float64]


def receptive_field(features: Features, pictures: Iterable[Tensor]) -> Map:
    """How much the feature vector in the middle depends on each pixel, (S, S), a mean over pictures.

    The gradient of the sum of the vector's components, its absolute value, summed over the colours.
    """
    total: Map | None = None
    count = 0
    for picture in pictures:
        x = picture.detach().clone().requires_grad_()
        with torch.enable_grad():
            y = features(x)
            (gradient,) = torch.autograd.grad(y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum(), x)
        found = gradient[0].cpu().double().abs().sum(0).numpy()
        total = found if total is None else total + found
        count += 1
    if total is None:
        raise ValueError("there is no picture")
    return total / count


def square_of(path: Path, side: int) -> Tensor:
    """What is in the middle of a picture, (1, 3, side, side) in [0, 1]. Raises ImageError."""
    picture = Image.fromarray(read_picture(path))
    square = np.array(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS))
    return torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255


def compressed(field: Map) -> Map:
    """log10(x + 1), which shows small values too, as RepLKNet (arXiv 2203.06717) and VMamba have it."""
    shown: Map = np.log10(field + 1)
    return shown


def decades(field: Map, number: int) -> Map:
    """The logarithm of x over its largest value, from 0, `number` powers of ten below it, to 1 at it."""
    largest = field.max()
    if largest == 0:
        return field
    shown: Map = np.log10(np.maximum(field / largest, 10.0**-number)) / number + 1
    return shown


def squares(field: Map, shares: Sequence[float]) -> list[int]:
    """Sides in px of the smallest squares around the pixel in the middle that hold these shares of a field.

    The middle is the pixel at half the side, over which the middle of every map lies where steps between
    strides are convolutions of 3 × 3 with a border of 1. At most the side of the field: what of a square
    lies outside of it does not count.
    """
    side = len(field)
    distance = np.abs(np.arange(side) - side // 2)
    sums = np.bincount(np.maximum(distance[:, None], distance[None]).ravel(), field.ravel()).cumsum()
    if sums[-1] == 0:
        return [0] * len(shares)
    found = [int(np.argmax(sums >= share * sums[-1] * (1 - 1e-12))) for share in shares]
    return [min(side, 2 * reach + 1) for reach in found]


@dataclass(frozen=True)
class FarPart:
    """What of a field is further from its middle than a quarter of its side."""

    share: float  # of the whole field
    above: float  # the rest are shares of this part
    below: float
    left: float
    right: float


def far_part(field: Map) -> FarPart:
    """How much of a field is far from its middle, and on which sides of it."""
    distance = np.arange(len(field)) - len(field) // 2
    near = np.abs(distance) <= len(field) // 4
    far = np.where(near[:, None] & near[None], 0.0, field)
    total = far.sum() or 1.0
    above, below = far[distance < 0].sum(), far[distance > 0].sum()
    left, right = far[:, distance < 0].sum(), far[:, distance > 0].sum()
    parts = (float(part / total) for part in (above, below, left, right))
    return FarPart(float(far.sum() / (field.sum() or 1.0)), *parts)
