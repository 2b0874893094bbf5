"""Encoding and decoding of large pictures in bands of rows, so that memory hardly grows with their height.

The coarse stages see the picture as a whole: at a stride of 8 it is small, and their scans go everywhere. The
two fine stages are local, but for the gates of squeeze-and-excitation, which are means over the picture. A
sample of bands, spread over the picture, gives these gates once; then every band is computed with them, and
with as many rows around it as its pixels depend on. So bands meet as if the picture had been computed whole,
and what differs from that is the sampling of the gates alone: no seam, no step from band to band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from pmavae.blocks import MobileConv
from pmavae.config import BASE_STRIDE

HALO = 3  # rows of 16 px around a band: what the fine stages reach with paint; without, one would do
WORKING_BYTES = 128 << 20  # that the features of a band may take, about, where nobody says otherwise
SAMPLE = 2  # rows of 16 px of each of the bands that are sampled
LIVE = 2.5  # maps of the widest features that live at the same time


@dataclass(frozen=True)
class Band:
    """Rows of a picture, in units of 16 px, and those that are computed for them."""

    first: int
    last: int
    outer_first: int
    outer_last: int


def plan_bands(rows: int, height: int) -> list[Band]:
    """Bands of about `height` that cover so many rows once, each with HALO around it where there is more."""
    count = -(-rows // max(1, height))
    edges = [round(i * rows / count) for i in range(count + 1)]
    return [_around(first, last, rows) for first, last in pairwise(edges)]


def _around(first: int, last: int, rows: int) -> Band:
    return Band(first, last, max(0, first - HALO), min(rows, last + HALO))


def sample_bands(rows: int, height: int) -> list[Band]:
    """Bands of one size, which together are a band of `height`, spread evenly over so many rows.

    One, of all rows, where they are no more.
    """
    count = max(1, height // (SAMPLE + 2 * HALO))
    if rows <= max(height, SAMPLE + 2 * HALO):
        return [Band(0, rows, 0, rows)]
    room = rows - 2 * HALO - SAMPLE
    starts = [HALO + round((i + 0.5) / count * room) for i in range(count)]
    return [_around(start, start + SAMPLE, rows) for start in starts]


def band_height(width: int, channels: int, working_bytes: int) -> int:
    """Rows of 16 px of a band whose features, of so many channels at a stride of 2, take working_bytes."""
    row_bytes = width / 2 * channels * 4 * (BASE_STRIDE / 2) * LIVE
    return max(SAMPLE + 2 * HALO, int(working_bytes / row_bytes) - 2 * HALO)


def rows_of(x: Tensor, band: Band, stride: int) -> Tensor:
    """The rows of features (1, C, H, W) of a stride that are computed for a band."""
    rows = BASE_STRIDE // stride
    return x[:, :, band.outer_first * rows : band.outer_last * rows]


def inner_of(x: Tensor, band: Band, stride: int) -> Tensor:
    """Of what was computed for a band, (B, C, h, W), the rows that are its own."""
    rows = BASE_STRIDE // stride
    top = (band.first - band.outer_first) * rows
    return x[:, :, top : top + (band.last - band.first) * rows]


class Gates:
    """The gates of squeeze-and-excitation, in the order in which the fine stages ask for them."""

    def __init__(self, known: Sequence[Tensor] | None = None) -> None:
        """Without known ones, those of the sample that is computed."""
        self.found = list(known or ())
        self._known = known is not None
        self._next = 0

    def again(self) -> Gates:
        """The same, from the first on, for another band."""
        return Gates(self.found)

    def run(self, block: MobileConv, x: Tensor, style: Tensor | None, sample: Band, stride: int) -> Tensor:
        """A block on a band; or on bands of a sample of one size, one in each row of the batch."""
        y = block.before_gate(x, style)
        if not self._known:
            mean = inner_of(y, sample, stride).mean((0, 2, 3))
            self.found.append(block.squeeze_excite.gate(mean[None])[0])
        gate = self.found[self._next]
        self._next += 1
        return block.after_gate(y, x, gate)
