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

import torch
from torch import Tensor, nn

from pmavae.config import BASE_STRIDE
from pmavae.inference.fused import means_of
from pmavae.inference.layers import after_gate, before_gate
from pmavae.model import MobileConv

# Rows of 16 px around a band, on which its pixels depend: of the encoder, and of the decoder without and with
# paint, whose strokes reach farthest.
ENCODER_HALO, HALO, PAINT_HALO = 2, 1, 3
WORKING_BYTES = 144 << 20  # that the features of a band may take, about, where nobody says otherwise
SAMPLE = 2  # rows of 16 px of each of the bands that are sampled
SHARE = 4  # of the rows one in so many is computed for the sample at most
FEW = 3  # bands of the sample at least, whatever the memory
LIVE = 2.0  # maps of the widest features that live at the same time


@dataclass(frozen=True)
class Band:
    """Rows of a picture, in units of 16 px, and those that are computed for them."""

    first: int
    last: int
    outer_first: int
    outer_last: int


def plan_bands(rows: int, fitting: int, halo: int) -> list[Band]:
    """Bands that cover so many rows once, each with `halo` around it, at most `fitting` with it."""
    count = -(-rows // max(1, fitting - 2 * halo))
    edges = [round(i * rows / count) for i in range(count + 1)]
    return [_around(first, last, rows, halo) for first, last in pairwise(edges)]


def _around(first: int, last: int, rows: int, halo: int) -> Band:
    return Band(first, last, max(0, first - halo), min(rows, last + halo))


def sample_bands(rows: int, fitting: int, halo: int) -> list[Band]:
    """Bands of one size, spread evenly over so many rows: a few, and as many as fit and SHARE allows.

    One, of all rows, where these are hardly more than a band.
    """
    size = SAMPLE + 2 * halo
    if rows <= size:
        return [Band(0, rows, 0, rows)]
    count = max(min(FEW, rows // size), min(fitting, rows // SHARE) // size)
    starts = [halo + round((i + 0.5) / count * (rows - size)) for i in range(count)]
    return [_around(start, start + SAMPLE, rows, halo) for start in starts]


def gates_of(sample: Sequence[Band], fitting: int) -> Gates:
    """The gates to be found with a sample, of which so many rows of 16 px fit."""
    return Gates(together=sum(band.outer_last - band.outer_first for band in sample) <= fitting)


def fitting_rows(width: int, channels: int, working_bytes: int) -> int:
    """Rows of 16 px whose features, of so many channels at a stride of 2, take working_bytes."""
    row_bytes = width / 2 * channels * 4 * (BASE_STRIDE / 2) * LIVE
    return max(1, int(working_bytes / row_bytes))


def widest(stage: nn.Module) -> int:
    """Channels inside the blocks of a fine stage."""
    return max(block.expand.out_channels for block in stage.modules() if isinstance(block, MobileConv))


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

    def __init__(self, known: Sequence[Tensor] | None = None, *, together: bool = True) -> None:
        """Without known ones, those of the sample that is computed: its bands together, or one at a time."""
        self.found = list(known or ())
        self._known = known is not None
        self._together = together
        self._next = 0

    def again(self) -> Gates:
        """The same, from the first on, for another band."""
        return Gates(self.found)

    def run(self, block: MobileConv, x: Tensor, style: Tensor | None, sample: Band, stride: int) -> Tensor:
        """A block on a band; or on bands of a sample of one size, one in each row of the batch."""
        if not self._known and not self._together:
            return self._one_at_a_time(block, x, style, sample, stride)
        y = before_gate(block, x, style)
        if not self._known:
            mean = means_of(inner_of(y, sample, stride)).mean(0)
            self.found.append(block.squeeze_excite.gate(mean[None])[0])
        gate = self.found[self._next]
        self._next += 1
        return after_gate(block, y, x, gate)

    def _one_at_a_time(
        self, block: MobileConv, x: Tensor, style: Tensor | None, sample: Band, stride: int
    ) -> Tensor:
        """A block on a sample whose inside is too large; what is gated is computed twice instead."""
        means = [
            means_of(inner_of(before_gate(block, part, style), sample, stride))[0] for part in x.split(1)
        ]
        gate: Tensor = block.squeeze_excite.gate(torch.stack(means).mean(0)[None])[0]
        self.found.append(gate)
        result = torch.empty_like(x)
        for number, part in enumerate(x.split(1)):
            result[number] = after_gate(block, before_gate(block, part, style), part, gate)[0]
        return result
