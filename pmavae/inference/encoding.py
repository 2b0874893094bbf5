"""Encoding, of a whole picture and in bands; see strips.py."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.images.pixels import RowSource
from pmavae.inference.fused import in_channels_last
from pmavae.inference.layers import forward, statistics
from pmavae.inference.offload import both_in_strips, empty_map, in_strips, let_go, maps_in_memory_up_to, trim
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
    widest,
)
from pmavae.latents import exchange, join_style, log_statistics, normalise, padded
from pmavae.model import Encoder, MobileConv, Posterior, exchanged_logvars
from pmavae.scan import can_fuse


@torch.no_grad()
def encode(encoder: Encoder, picture: Tensor) -> Posterior:
    """What the encoder gives of pictures (B, 3, H, W)."""
    if not can_fuse(picture):
        return cast(Posterior, encoder(picture))
    x = in_channels_last(picture - 0.5)
    fine = []
    for stage in _stages(encoder)[:2]:
        for layer in stage:
            x = forward(layer, x)
        fine.append(statistics(x))
    return _finish(encoder, _to_coarse(encoder, x), fine, *encoder.linear(picture))


@torch.no_grad()
def encode_in_bands(
    encoder: Encoder, source: RowSource, device: torch.device, working_bytes: int = WORKING_BYTES
) -> Posterior:
    """(H, W, 3), uint8 or uint16, as the encoder gives it for the padded picture."""
    trim()
    height, width = source.shape[:2]
    rows, columns = padded(height) // BASE_STRIDE, padded(width) // BASE_STRIDE
    fitting = fitting_rows(columns * BASE_STRIDE, widest(encoder.stages[0]), working_bytes)
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
        return _finish(encoder, wholes.pop(0), fine, wholes.pop(0), wholes.pop(0))


def _stages(encoder: Encoder) -> list[nn.Sequential]:
    """Of the strides 2 and 4, which are local but for their gates, and of 8 and 16."""
    return cast(list[nn.Sequential], [*encoder.stages])


def _to_coarse(encoder: Encoder, x: Tensor) -> Tensor:
    """From the stride 4 to that of z_detail."""
    coarser: Tensor = _stages(encoder)[2][0](x)
    return coarser


def _finish(
    encoder: Encoder, x: Tensor, fine: list[Tensor], linear_detail: Tensor, linear_base: Tensor
) -> Posterior:
    """The rest, from the features at the stride of z_detail on, before their blocks.

    fine: the statistics of the first two stages. linear_detail and linear_base: of `Encoder.linear`.
    """
    _, _, (_, *blocks), (step, *coarser) = _stages(encoder)
    for block in blocks:
        x = forward(block, x)
    at8 = x
    at16 = in_strips(step, at8, encoder.config.encoder_channels[3], reach=1, rows_in=2)
    for block in coarser:
        at16 = forward(block, at16)
    of_detail = in_strips(encoder.detail_head, at8, 2 * encoder.config.detail_channels)
    of_base = in_strips(encoder.base_head, at16, 2 * encoder.config.base_channels)
    detail, logvar_detail = of_detail.float().chunk(2, dim=1)
    base, logvar_base = of_base.float().chunk(2, dim=1)
    learned, logvar_style = encoder.style_head([*fine, statistics(at8), statistics(at16)])
    detail, base = detail + linear_detail, base + linear_base
    del of_detail, of_base, linear_detail, linear_base, x, at8, at16
    base_stats, detail_stats = statistics(base), statistics(detail)

    def means(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        return exchange(normalise(base, base_stats), normalise(detail, detail_stats))

    z_base, z_detail = both_in_strips(means, base, detail)
    del base, detail
    logvar_base, logvar_detail = both_in_strips(exchanged_logvars, logvar_base, logvar_detail)
    return Posterior(
        z_base=z_base,
        z_detail=z_detail,
        z_style=join_style(base_stats, detail_stats, learned.float()),
        logvar_base=logvar_base,
        logvar_detail=logvar_detail,
        logvar_style=logvar_style.float()[:, :, None, None],
    )


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
    for number, (stage, stride) in enumerate(zip(_stages(encoder)[:2], (2, 4), strict=True)):
        for layer in stage:
            x = gates.run(layer, x, None, band, stride) if isinstance(layer, MobileConv) else layer(x)
        if sums is not None:
            sums[number].add(inner_of(x, band, stride))
    return _to_coarse(encoder, x)


def _padded_rows(source: RowSource, band: Band, device: torch.device) -> Tensor:
    """The rows that are computed for a band, (1, 3, h, W) in [0, 1], reflected as `reflect_pad` does."""
    height, width = source.shape[:2]
    first, last = band.outer_first * BASE_STRIDE, band.outer_last * BASE_STRIDE
    part = source.rows(first, min(last, height))
    edges = ((0, max(0, last - height)), (0, padded(width) - width), (0, 0))
    picture = torch.from_numpy(np.pad(part, edges, mode="reflect")).to(device)
    return picture.permute(2, 0, 1)[None].float() / np.iinfo(source.dtype).max
