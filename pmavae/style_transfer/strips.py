"""A picture of any size, of which only some rows are there as numbers at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.config import MIN_SIZE
from pmavae.images.pixels import Pixels

STRIP_PIXELS = 1 << 19  # of a strip, about


@dataclass(frozen=True)
class Strips:
    """The pixels (H, W, 3), uint8 or uint16, and the device for which they are read."""

    pixels: Pixels
    device: torch.device

    @property
    def height(self) -> int:
        """Rows of the picture."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of the picture."""
        return int(self.pixels.shape[1])

    def slices(self) -> list[slice]:
        """The rows of its strips, from the top."""
        rows = max(1, STRIP_PIXELS // self.width)
        return [slice(top, min(top + rows, self.height)) for top in range(0, self.height, rows)]

    def rows(self, rows: slice) -> Tensor:
        """(1, 3, h, W) in [0, 1]."""
        part = torch.from_numpy(self.pixels[rows].copy()).to(self.device)
        return part.permute(2, 0, 1)[None].float().div_(np.iinfo(self.pixels.dtype).max)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.rows, self.slices())

    def resized(self, longer_side: int) -> Tensor:
        """What `resized` gives of the whole: rows become narrow one strip after the other, then few."""
        height, width = fitted(self.height, self.width, longer_side)
        narrow = [_shrunk(x, x.shape[2], width) for x in self]
        return _shrunk(torch.cat(narrow, 2), height, width).clamp_(0, 1)


def resized(picture: Tensor, longer_side: int) -> Tensor:
    """(1, 3, H, W) in [0, 1] with a longer side of so many px, and a shorter one of 16 at least."""
    return _shrunk(picture, *fitted(picture.shape[2], picture.shape[3], longer_side)).clamp(0, 1)


def fitted(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Height and width with a longer side of so many px, and a shorter one of 16 at least."""
    scale = longer_side / max(height, width)
    return max(MIN_SIZE, round(height * scale)), max(MIN_SIZE, round(width * scale))


def _shrunk(picture: Tensor, height: int, width: int) -> Tensor:
    if tuple(picture.shape[2:]) == (height, width):
        return picture
    return F.interpolate(picture, (height, width), mode="bicubic", antialias=True, align_corners=False)
