"""Decoding, of a whole picture and in bands; see strips.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from numpy.typing import DTypeLike
from torch import Tensor

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.images.pixels import Pixels, to_pixels
from pmavae.inference.fused import decoding_dtype
from pmavae.inference.layers import shuffle_up, steps, with_noise
from pmavae.inference.offload import added, in_strips, let_go, maps_in_memory_up_to, trim
from pmavae.inference.strips import (
    HALO,
    PAINT_HALO,
    WORKING_BYTES,
    Band,
    Gates,
    fitting_rows,
    gates_of,
    inner_of,
    plan_bands,
    rows_of,
    sample_bands,
    widest,
)
from pmavae.latents import Latents
from pmavae.model import Decoder, MobileConv, PaintBlock, Stage, grain
from pmavae.scan import can_fuse


@torch.no_grad()
def decode(
    decoder: Decoder,
    z_base: Tensor,
    z_detail: Tensor,
    z_style: Tensor,
    paint: bool = True,
    fine: torch.dtype | None = None,
) -> Tensor:
    """What the decoder gives, (B, 3, H, W).

    fine: the dtype of the two fine stages, of one picture without paint on the CPU; see `decoding_dtype`.
    """
    if not can_fuse(z_base):
        return cast(Tensor, decoder(z_base, z_detail, z_style, paint))
    base, detail = decoder.restored(z_base, z_detail, z_style)
    codes = Codes(*decoder.codes(z_style, paint))
    picture = decoder.linear(base, detail)
    x = _coarse(decoder, base, detail, codes)
    x = x if fine is None else x.to(fine)
    for up, stage in ((decoder.up4, decoder.stage4), (decoder.up2, decoder.stage2)):
        x = shuffle_up(up, x)
        for step in steps(stage, codes.style, codes.brush, codes.amount):
            x = step(x)
    picture = picture.add_(0.5).add_(shuffle_up(decoder.out, x))
    return picture + codes.amount * shuffle_up(decoder.paint_out, x).float() if paint else picture


def decode_in_bands(
    decoder: Decoder, latents: Latents, dtype: DTypeLike, working_bytes: int = WORKING_BYTES
) -> Iterator[Pixels]:
    """Latents of batch 1, float32 on the decoder's device, as strips (h, W, 3) of pixels from the top."""
    with torch.no_grad(), maps_in_memory_up_to(working_bytes):
        base, detail = decoder.restored(latents.z_base, latents.z_detail, latents.z_style)
        codes = Codes(*decoder.codes(latents.z_style, paint=bool(latents.z_style[:, -1].any())))
        trim()
        x = _coarse(decoder, base, detail, codes)
        fine = decoding_dtype(x.device, dtype, painted=codes.brush is not None) or x.dtype
        trim()
        rows = base.shape[2]
        fitting = fitting_rows(base.shape[3] * BASE_STRIDE, widest(decoder.stage2), working_bytes)
        halo = HALO if codes.brush is None else PAINT_HALO
        sample = sample_bands(rows, fitting, halo)
        gates = gates_of(sample, fitting)
        sampled = torch.cat([rows_of(x, band, DETAIL_STRIDE) for band in sample]).to(fine)
        _fine(decoder, codes, sampled, sample, gates)
    for band in plan_bands(rows, fitting, halo):
        with torch.no_grad():
            of_band = rows_of(x, band, DETAIL_STRIDE).to(fine)
            part = _fine(decoder, codes, of_band, [band], gates.again())
            part += decoder.linear(rows_of(base, band, BASE_STRIDE), rows_of(detail, band, DETAIL_STRIDE))
            inner = inner_of(part, band, 1)[
                0, :, : latents.height - band.first * BASE_STRIDE, : latents.width
            ]
            strip = to_pixels(inner.clamp_(0, 1), dtype)
        let_go(part.numel() * part.element_size())
        yield strip
    trim()


@dataclass(frozen=True)
class Codes:
    """What z_style says to the stages; see `Decoder.codes`."""

    style: Tensor
    brush: Tensor | None
    amount: Tensor


def _coarse(decoder: Decoder, base: Tensor, detail: Tensor, codes: Codes) -> Tensor:
    """The features at the stride of z_detail, after its blocks."""
    x = in_strips(decoder.base_in, base, decoder.base_in.out_channels, reach=1)
    for step in steps(decoder.stage16, codes.style, codes.brush, codes.amount):
        x = step(x)
    beside = in_strips(decoder.detail_in, detail, decoder.detail_in.out_channels, reach=1)
    x = added(in_strips(partial(shuffle_up, decoder.up8), x, beside.shape[1], rows_out=2), beside)
    del beside
    for step in steps(decoder.stage8, codes.style, codes.brush, codes.amount):
        x = step(x)
    return x


def _fine(decoder: Decoder, codes: Codes, x: Tensor, bands: list[Band], gates: Gates) -> Tensor:
    """The two fine stages and the output, but for what is linear, on bands of one size: (B, 3, h, W)."""
    x = _stage(decoder.stage4, codes, shuffle_up(decoder.up4, x), bands, gates, 4)
    x = _stage(decoder.stage2, codes, shuffle_up(decoder.up2, x), bands, gates, 2)
    picture = shuffle_up(decoder.out, x).float()
    if codes.brush is not None:
        picture += codes.amount * shuffle_up(decoder.paint_out, x)
    return picture.add_(0.5)


def _stage(stage: Stage, codes: Codes, x: Tensor, bands: list[Band], gates: Gates, stride: int) -> Tensor:
    for block in cast(Iterable[MobileConv], stage.blocks):
        x = gates.run(block, x, codes.style, bands[0], stride)
    if codes.brush is None:
        return x
    height, width = x.shape[-2:]
    firsts = [band.outer_first * BASE_STRIDE // stride for band in bands]
    noise = torch.cat([grain(height, width, x.device, first) for first in firsts])
    for brush in cast(Iterable[PaintBlock], stage.paint):
        x = with_noise(brush, x, noise, codes.brush, codes.amount)
    return x
