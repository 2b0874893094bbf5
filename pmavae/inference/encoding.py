"""Encoding in bands; see strips.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pmavae.blocks import MobileConv
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.encoder import Encoder, Posterior
from pmavae.images.row_source import RowSource
from pmavae.inference.heap import trim
from pmavae.inference.offload import empty_map, let_go, maps_in_memory_up_to
from pmavae.inference.strips import (
    ENCODER_HALO,
    WORKING_BYTES,
    Band,
    Gates,
    fitting_rows,
    gates_of,
    inner_of,
    plan_bands,
    sample_bands,
)
from pmavae.latents import log_statistics, padded


@torch.no_grad()
def encode_in_bands(
    encoder: Encoder, source: RowSource, device: torch.device, working_bytes: int = WORKING_BYTES
) -> Posterior:
    """(H, W, 3), uint8 or uint16, as the encoder gives it for the padded picture."""
    trim()
    height, width = source.shape[:2]
    rows, columns = padded(height) // BASE_STRIDE, padded(width) // BASE_STRIDE
    fitting = fitting_rows(columns * BASE_STRIDE, encoder.widest, working_bytes)
    sample = sample_bands(rows, fitting, ENCODER_HALO)
    gates = gates_of(sample, fitting)
    parts = [_padded_rows(source, band, device) for band in sample]
    _fine(encoder, torch.cat(parts), sample[0], gates, None)
    del parts
    sums = [Sums() for _ in range(2)]
    wholes: list[Tensor] = []  # filled in place: parts to be joined would be there twice
    with maps_in_memory_up_to(working_bytes):
        for band in plan_bands(rows, fitting, ENCODER_HALO):
            part = _padded_rows(source, band, device)
            at8 = inner_of(_fine(encoder, part, band, gates.again(), sums), band, DETAIL_STRIDE)
            own = (at8, *encoder.linear(inner_of(part, band, 1)))
            if not wholes:
                shapes = [
                    (x.shape[1], rows * x.shape[2] // (band.last - band.first), x.shape[3]) for x in own
                ]
                wholes = [empty_map((1, *shape), x) for shape, x in zip(shapes, own, strict=True)]
            for whole, x in zip(wholes, own, strict=True):
                top = band.first * x.shape[2] // (band.last - band.first)
                whole[:, :, top : top + x.shape[2]] = x
            let_go(2 * at8.numel() * at8.element_size())
        fine = [one.statistics() for one in sums]
        del part, at8, own, whole, x
        trim()
        # Popped, so that each can go as soon as it has served.
        return encoder.finish(wholes.pop(0), fine, wholes.pop(0), wholes.pop(0))


class Sums:
    """Statistics of features that come in parts, in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | float = 0.0  # (C,)
        self.squares: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        """(1, C, h, W)."""
        variance, mean = torch.var_mean(x[0].float(), dim=(1, 2), correction=0)
        count, mean = x[0, 0].numel(), mean.double()
        self.count += count
        self.total = self.total + count * mean
        self.squares = self.squares + count * (variance.double() + mean**2)

    def statistics(self) -> Tensor:
        """(1, 2C), as `pmavae.latents.statistics` has it."""
        assert isinstance(self.total, Tensor) and isinstance(self.squares, Tensor)
        mean = self.total / self.count
        variance = (self.squares / self.count - mean**2).clamp(min=0)
        return log_statistics(mean[None].float(), variance[None].float())


def _fine(encoder: Encoder, x: Tensor, band: Band, gates: Gates, sums: list[Sums] | None) -> Tensor:
    """The two fine stages, and the step to the stride of z_detail, on bands of one size."""
    x = x - 0.5
    for number, (stage, stride) in enumerate(zip(encoder.fine_stages, (2, 4), strict=True)):
        for layer in stage:
            x = gates.run(layer, x, None, band, stride) if isinstance(layer, MobileConv) else layer(x)
        if sums is not None:
            sums[number].add(inner_of(x, band, stride))
    return encoder.to_coarse(x)


def _padded_rows(source: RowSource, band: Band, device: torch.device) -> Tensor:
    """The rows that are computed for a band, (1, 3, h, W) in [0, 1], reflected as `reflect_pad` does."""
    height, width = source.shape[:2]
    first, last = band.outer_first * BASE_STRIDE, band.outer_last * BASE_STRIDE
    part = source.rows(first, min(last, height))
    edges = ((0, max(0, last - height)), (0, padded(width) - width), (0, 0))
    picture = torch.from_numpy(np.pad(part, edges, mode="reflect")).to(device)
    return picture.permute(2, 0, 1)[None].float() / np.iinfo(source.dtype).max
