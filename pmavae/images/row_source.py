"""A picture that is read row by row, because it is too large to be in memory as a whole."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from pmavae.images.pixels import Pixels


@runtime_checkable
class RowSource(Protocol):
    """What `PMAVAE.encode` takes instead of an array; it reads the picture twice, from the top each time."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, or uint16 from 0 to 65535."""

    def rows(self, first: int, last: int) -> Pixels:
        """The rows from `first` up to, not including, `last`: (last - first, W, 3), not to be written to.

        `first` does not decrease within a pass, so what lies above it may be forgotten; a smaller one begins
        the next pass. Raises ImageError where the picture cannot be read.
        """


class ArrayRows:
    """An array (H, W, 3) as a source of rows."""

    def __init__(self, pixels: Pixels) -> None:
        self.dtype: np.dtype[Any] = pixels.dtype
        self.shape: tuple[int, int, int] = (pixels.shape[0], pixels.shape[1], 3)
        self._pixels = pixels

    def rows(self, first: int, last: int) -> Pixels:
        """A view of the array."""
        return self._pixels[first:last]
