"""A style by itself, and the picture it is taken from at the size that sets its brush."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae.config import MIN_SIZE

if TYPE_CHECKING:
    from pmavae.autoencoder import PMAVAE

STYLE_SIDE = 512  # longer side of a style picture at scale 1, in pixels
REDUCING_GAP = 3.0  # how much of a large reduction a box filter does first, which is faster


@dataclass(frozen=True)
class Style:
    """The style of one picture: what `mix_style` takes, without the picture."""

    z_style: Tensor  # (1, style_channels, 1, 1)
    width: int  # of the picture as it was encoded, in pixels
    height: int


def fit_side(image: Image.Image | NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture, (H, W, 3) uint8, resized by Lanczos so that its longer side has `side` px.

    The shorter side follows, and has 16 px at least.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    factor = side / max(picture.size)
    width, height = (max(MIN_SIZE, round(length * factor)) for length in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    return np.asarray(picture)


def style_view(image: Image.Image | NDArray[np.uint8], scale: float = 1.0) -> NDArray[np.uint8]:
    """A picture at the size at which its style is read, (H, W, 3) uint8: the longer side is 512 px × scale.

    z_style holds how long strokes are in pixels, so two files of one painting have one style only at
    one size. A larger scale makes a larger brush. The picture is a PIL picture of 8 bits, upright, or a
    uint8 array (H, W, 3).
    """
    return fit_side(image, round(STYLE_SIDE * scale))


def encode_style(model: PMAVAE, image: Image.Image | NDArray[np.uint8], scale: float = 1.0) -> Style:
    """The style of a picture by a model; see `style_view`."""
    view = style_view(image, scale)
    return Style(model.encode(view).z_style, width=view.shape[1], height=view.shape[0])
