"""Results as pictures: a colour for each class, boxes and names."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from torch import Tensor

    from pmavae_vision.detector import Detection

_TURN = 0.6180339887  # of the colour wheel, from one class to the next
_MASK = 0.45  # share of an object's colour


def palette() -> NDArray[np.uint8]:
    """A colour for each of 256 numbers, (256, 3): black, then far apart from one to the next."""
    rows = [(0.0, 0.0, 0.0)]
    rows += [colorsys.hsv_to_rgb(i * _TURN % 1, 0.75 if i % 2 else 0.5, 1.0) for i in range(1, 256)]
    return np.round(np.array(rows) * 255).astype(np.uint8)


def index_picture(classes: NDArray[np.uint8]) -> Image.Image:
    """(H, W) as a picture of numbers that shows a colour for each."""
    image = Image.fromarray(classes)
    image.putpalette(palette().tobytes())
    return image


def overlaid(pixels: NDArray[np.uint8], classes: NDArray[np.uint8], share: float) -> Image.Image:
    """The colours of (H, W) over (H, W, 3), by so much of them."""
    mixed = pixels * (1 - share) + palette()[classes] * share
    return Image.fromarray(mixed.round().astype(np.uint8))


def painted(pictures: Tensor, classes: Tensor) -> Tensor:
    """The same for (1, 3, H, W) in [0, 1] and (1, H, W), half and half."""
    import torch

    colours = torch.from_numpy(palette()).to(pictures) / 255
    return (pictures + colours[classes.to(pictures.device)].permute(0, 3, 1, 2)) / 2


def drawn(pixels: NDArray[np.uint8], found: Sequence[Detection], labels: Sequence[str]) -> Image.Image:
    """Masks, boxes and names over (H, W, 3)."""
    colours, mixed = palette(), pixels.astype(np.float32)
    for detection in found:
        mask = detection.mask
        mixed[mask] = mixed[mask] * (1 - _MASK) + colours[detection.label % 255 + 1] * _MASK
    image = Image.fromarray(mixed.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    thick = max(1, min(image.size) // 250)
    for detection in found:
        colour = tuple(colours[detection.label % 255 + 1].tolist())
        draw.rectangle(detection.box, outline=colour, width=thick)
        text = f"{labels[detection.label]} {detection.score:.2f}"
        corner = detection.box[0], max(0.0, detection.box[1] - 12)
        draw.rectangle(draw.textbbox(corner, text), fill=colour)
        draw.text(corner, text, fill="black")
    return image
