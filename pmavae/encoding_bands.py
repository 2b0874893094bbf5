"""Encoding in bands; see bands.py."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmavae.bands import (
    ENCODER_HALO,
    WORKING_BYTES,
    Band,
    Gates,
    fitting_rows,
    inner_of,
    plan_bands,
    sample_bands,
)
from pmavae.blocks import MobileConv
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.encoder import Encoder, Posterior
from pmavae.heap import trim
from pmavae.latents import padded
from pmavae.pixels import Pixels
from pmavae.style import log_statistics


@torch.no_grad()
def encode_in_bands(
    encoder: Encoder, pixels: Pixels, device: torch.device, working_bytes: int = WORKING_BYTES
) -> Posterior:
    """(H, W, 3), uint8 or uint16, as the encoder gives it for the padded picture."""
    trim()
    height, width = pixels.shape[:2]
    rows, columns = padded(height) // BASE_STRIDE, padded(width) // BASE_STRIDE
    fitting = fitting_rows(columns * BASE_STRIDE, encoder.widest, working_bytes)
    sample, gates = sample_bands(rows, fitting, ENCODER_HALO), Gates()
    parts = [_padded_rows(pixels, band, device) for band in sample]
    _fine(encoder, torch.cat(parts), sample[0], gates, None)
    sums = [Sums() for _ in range(2)]
    at8: Tensor | None = None  # (1, C, H/8, W/8), filled in place: parts to be joined would be there twice
    linear: list[tuple[Tensor, Tensor]] = []
    for band in plan_bands(rows, fitting, ENCODER_HALO):
        part = _padded_rows(pixels, band, device)
        own = inner_of(_fine(encoder, part, band, gates.again(), sums), band, DETAIL_STRIDE)
        if at8 is None:
            shape = (1, own.shape[1], rows * BASE_STRIDE // DETAIL_STRIDE, own.shape[3])
            at8 = torch.empty(shape, device=device).contiguous(memory_format=torch.channels_last)
        top = band.first * BASE_STRIDE // DETAIL_STRIDE
        at8[:, :, top : top + own.shape[2]] = own
        linear.append(encoder.linear(inner_of(part, band, 1)))
    details, bases = zip(*linear, strict=True)
    fine = [one.statistics() for one in sums]
    assert at8 is not None
    trim()
    return encoder.finish(at8, fine, torch.cat(details, 2), torch.cat(bases, 2))


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
        """(1, 2C), as `pmavae.style.statistics` has it."""
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


def _padded_rows(pixels: Pixels, band: Band, device: torch.device) -> Tensor:
    """The rows that are computed for a band, (1, 3, h, W) in [0, 1], reflected as `reflect_pad` does."""
    rows = _reflected(
        np.arange(band.outer_first * BASE_STRIDE, band.outer_last * BASE_STRIDE), pixels.shape[0]
    )
    columns = _reflected(np.arange(padded(pixels.shape[1])), pixels.shape[1])
    part = torch.from_numpy(pixels[rows][:, columns]).to(device)
    return part.permute(2, 0, 1)[None].float() / np.iinfo(pixels.dtype).max


def _reflected(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.where(index < length, index, 2 * (length - 1) - index)
