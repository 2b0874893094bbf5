"""Encoding and decoding of pictures of any size; large ones in strips of rows, so that memory hardly grows
with their height.

The coarse stages see the picture as a whole: at a stride of 8 it is small, and their scans go everywhere. The
two fine stages are local, but for the gates of squeeze-and-excitation, which are means over the picture. A
sample of strips, spread over the picture, gives these gates once; then every strip is computed with them, and
with as many rows around it as its pixels depend on. So strips meet as if the picture had been computed whole,
and what differs from that is the sampling of the gates alone: no seam, no step from strip to strip.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.images.pixels import Pixels, RowSource, to_pixels
from pmavae.inference.fused import decoding_dtype, means_of
from pmavae.inference.layers import (
    after_gate,
    before_gate,
    fast_statistics,
    forward,
    shuffle_up,
    steps,
    with_noise,
)
from pmavae.inference.offload import Budget, added, both_in_strips, empty_map, in_strips, let_go, trim
from pmavae.latents import Latents, exchange, join_style, log_statistics, normalise, padded
from pmavae.model import Decoder, Encoder, MobileConv, PaintBlock, Posterior, exchanged_logvars, grain
from pmavae.scan import can_fuse

# Rows of 16 px around a strip, on which its pixels depend: of the encoder, and of the decoder without and
# with paint, whose strokes reach farthest.
ENCODER_HALO, HALO, PAINT_HALO = 2, 1, 3
SAMPLE = 2  # rows of 16 px of each of the strips that are sampled
SHARE = 4  # of the rows one in so many is computed for the sample at most
FEW = 3  # strips of the sample at least, whatever the memory


@dataclass(frozen=True)
class Strip:
    """Rows of a picture, in units of 16 px, and those that are computed for them."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    def outer(self, x: Tensor, stride: int) -> Tensor:
        """The rows of features (1, C, H, W) of a stride that are computed for the strip."""
        rows = BASE_STRIDE // stride
        return x[:, :, self.outer_first * rows : self.outer_last * rows]

    def inner(self, x: Tensor, stride: int) -> Tensor:
        """Of what was computed for the strip, (B, C, h, W), the rows that are its own."""
        rows = BASE_STRIDE // stride
        top = (self.first - self.outer_first) * rows
        return x[:, :, top : top + (self.last - self.first) * rows]


def plan_strips(rows: int, fitting: int, halo: int) -> list[Strip]:
    """Strips that cover so many rows once, each with `halo` around it, at most `fitting` with it."""
    count = -(-rows // max(1, fitting - 2 * halo))
    edges = [round(i * rows / count) for i in range(count + 1)]
    return [_around(first, last, rows, halo) for first, last in pairwise(edges)]


def sample_strips(rows: int, fitting: int, halo: int) -> list[Strip]:
    """Strips of one size, spread evenly over so many rows: a few, and as many as fit and SHARE allows.

    One, of all rows, where these are hardly more than a strip.
    """
    size = SAMPLE + 2 * halo
    if rows <= size:
        return [Strip(0, rows, 0, rows)]
    count = max(min(FEW, rows // size), min(fitting, rows // SHARE) // size)
    starts = [halo + round((i + 0.5) / count * (rows - size)) for i in range(count)]
    return [_around(start, start + SAMPLE, rows, halo) for start in starts]


def _around(first: int, last: int, rows: int, halo: int) -> Strip:
    return Strip(first, last, max(0, first - halo), min(rows, last + halo))


def widest(stage: nn.Module) -> int:
    """Channels inside the blocks of a fine stage."""
    return max(block.expand.out_channels for block in stage.modules() if isinstance(block, MobileConv))


class Gates:
    """The gates of squeeze-and-excitation, in the order in which the fine stages ask for them.

    First those of a sample are found: its strips of one size, which lie in the batch, are computed together
    where all of them fit, else one at a time.
    """

    def __init__(self, sample: Sequence[Strip], fitting: int) -> None:
        self.sample = sample
        self.found: list[Tensor] = []
        self._known = False
        self._together = sum(strip.outer_last - strip.outer_first for strip in sample) <= fitting
        self._next = 0

    def again(self) -> Self:
        """The same, now known, from the first on, for another strip."""
        self._known, self._next = True, 0
        return self

    def run(self, block: MobileConv, x: Tensor, style: Tensor | None, stride: int) -> Tensor:
        """A block on a strip, with known gates; or on the sample, to find its own."""
        if not self._known and not self._together:
            return self._one_at_a_time(block, x, style, stride)
        y = before_gate(block, x, style)
        if not self._known:
            mean = means_of(self.sample[0].inner(y, stride)).mean(0)
            self.found.append(block.squeeze_excite.gate(mean[None])[0])
        gate = self.found[self._next]
        self._next += 1
        return after_gate(block, y, x, gate)

    def _one_at_a_time(self, block: MobileConv, x: Tensor, style: Tensor | None, stride: int) -> Tensor:
        """A block on a sample whose inside is too large; what is gated is computed twice instead."""
        strip = self.sample[0]
        means = [means_of(strip.inner(before_gate(block, part, style), stride))[0] for part in x.split(1)]
        gate: Tensor = block.squeeze_excite.gate(torch.stack(means).mean(0)[None])[0]
        self.found.append(gate)
        result = torch.empty_like(x)
        for number, part in enumerate(x.split(1)):
            result[number] = after_gate(block, before_gate(block, part, style), part, gate)[0]
        return result


@torch.no_grad()
def encode(encoder: Encoder, picture: Tensor) -> Posterior:
    """What the encoder gives of pictures (B, 3, H, W), whose sides are multiples of 16, at once."""
    if not can_fuse(picture):
        return cast(Posterior, encoder(picture))
    fine: list[Tensor] = []
    # In the other layout oneDNN copies features into its own before most convolutions, and back after them.
    picture = picture.contiguous(memory_format=torch.channels_last)
    x = _encode_fine(encoder, picture, None, lambda _, x: fine.append(fast_statistics(x)))
    return _encode_coarse(encoder, x, fine, *encoder.linear(picture), budget=None)


@torch.no_grad()
def encode_rows(encoder: Encoder, source: RowSource, device: torch.device, budget: Budget) -> Posterior:
    """What the encoder gives of a picture (H, W, 3), uint8 or uint16, padded; in strips if it is large."""
    height, width = source.shape[:2]
    rows, columns = padded(height) // BASE_STRIDE, padded(width) // BASE_STRIDE
    fitting = budget.rows(columns * BASE_STRIDE, widest(encoder.stages[0]))
    if rows <= fitting:
        return encode(encoder, _padded_rows(source, Strip(0, rows, 0, rows), device))
    trim()
    sample = sample_strips(rows, fitting, ENCODER_HALO)
    gates = Gates(sample, fitting)
    _encode_fine(encoder, torch.cat([_padded_rows(source, strip, device) for strip in sample]), gates)
    sums = [Sums() for _ in range(2)]
    wholes: list[Tensor] = []  # filled in place: parts to be joined would be there twice
    for strip in plan_strips(rows, fitting, ENCODER_HALO):
        part = _padded_rows(source, strip, device)

        def collect(number: int, x: Tensor, strip: Strip = strip) -> None:
            sums[number].add(strip.inner(x, (2, 4)[number]))

        at8 = strip.inner(_encode_fine(encoder, part, gates.again(), collect), DETAIL_STRIDE)
        own = (at8, *encoder.linear(strip.inner(part, 1)))
        count = strip.last - strip.first
        if not wholes:
            shapes = [(1, x.shape[1], rows * x.shape[2] // count, x.shape[3]) for x in own]
            wholes = [empty_map(shape, x, budget) for shape, x in zip(shapes, own, strict=True)]
        for whole, x in zip(wholes, own, strict=True):
            top = strip.first * x.shape[2] // count
            whole[:, :, top : top + x.shape[2]] = x
        let_go(2 * at8.numel() * at8.element_size())
    del part, at8, own, whole, x
    trim()
    fine = [one.statistics() for one in sums]
    # Popped, so that each can go as soon as it has served.
    return _encode_coarse(encoder, wholes.pop(0), fine, wholes.pop(0), wholes.pop(0), budget=budget)


def _encode_fine(
    encoder: Encoder,
    x: Tensor,
    gates: Gates | None,
    collect: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """The two fine stages, and the step to the stride of z_detail, of a picture or, with gates, of a strip.

    collect: is given the features of each of the two stages.
    """
    x = x - 0.5
    for number, stage in enumerate(encoder.stages[:2]):
        for layer in cast(nn.Sequential, stage):
            if gates and isinstance(layer, MobileConv):
                x = gates.run(layer, x, None, (2, 4)[number])
            else:
                x = forward(layer, x)
        if collect:
            collect(number, x)
    coarser: Tensor = cast(nn.Sequential, encoder.stages[2])[0](x)
    return coarser


def _encode_coarse(
    encoder: Encoder,
    x: Tensor,
    fine: list[Tensor],
    linear_detail: Tensor,
    linear_base: Tensor,
    budget: Budget | None,
) -> Posterior:
    """The rest, from the features at the stride of z_detail on, before their blocks.

    fine: the statistics of the first two stages. linear_detail and linear_base: of `Encoder.linear`.
    """
    (_, *blocks), (step, *coarser) = (cast(nn.Sequential, stage) for stage in encoder.stages[2:])
    for block in blocks:
        x = forward(block, x, budget=budget)
    at8 = x
    at16 = in_strips(step, at8, encoder.config.encoder_channels[3], budget, reach=1, rows_in=2)
    for block in coarser:
        at16 = forward(block, at16, budget=budget)
    of_detail = in_strips(encoder.detail_head, at8, 2 * encoder.config.detail_channels, budget)
    of_base = in_strips(encoder.base_head, at16, 2 * encoder.config.base_channels, budget)
    detail, logvar_detail = of_detail.float().chunk(2, dim=1)
    base, logvar_base = of_base.float().chunk(2, dim=1)
    learned, logvar_style = encoder.style_head([*fine, fast_statistics(at8), fast_statistics(at16)])
    detail, base = detail + linear_detail, base + linear_base
    del of_detail, of_base, linear_detail, linear_base, x, at8, at16
    base_stats, detail_stats = fast_statistics(base), fast_statistics(detail)

    def means(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        return exchange(normalise(base, base_stats), normalise(detail, detail_stats))

    z_base, z_detail = both_in_strips(means, base, detail, budget)
    del base, detail
    logvar_base, logvar_detail = both_in_strips(exchanged_logvars, logvar_base, logvar_detail, budget)
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
        self.total: Any = 0.0  # (C,)
        self.squares: Any = 0.0

    def add(self, x: Tensor) -> None:
        """(1, C, h, W)."""
        variance, mean = torch.var_mean(x[0].float(), dim=(1, 2), correction=0)
        count, mean = x[0, 0].numel(), mean.double()
        self.count += count
        self.total = self.total + count * mean
        self.squares = self.squares + count * (variance.double() + mean**2)

    def statistics(self) -> Tensor:
        """(1, 2C), as `pmavae.latents.statistics` has it."""
        mean = self.total / self.count
        variance = (self.squares / self.count - mean**2).clamp(min=0)
        return log_statistics(mean[None].float(), variance[None].float())


def _padded_rows(source: RowSource, strip: Strip, device: torch.device) -> Tensor:
    """The rows that are computed for a strip, (1, 3, h, W) in [0, 1], reflected as `reflect_pad` does."""
    height, width = source.shape[:2]
    first, last = strip.outer_first * BASE_STRIDE, strip.outer_last * BASE_STRIDE
    part = source.rows(first, min(last, height))
    edges = ((0, max(0, last - height)), (0, padded(width) - width), (0, 0))
    picture = torch.from_numpy(np.pad(part, edges, mode="reflect")[None]).to(device)
    return picture.permute(0, 3, 1, 2).float() / np.iinfo(source.dtype).max  # channels last, the batch first


Codes = tuple[Tensor, Tensor | None, Tensor]  # style, brush and amount: what `Decoder.codes` gives


@torch.no_grad()
def decode(
    decoder: Decoder,
    z_base: Tensor,
    z_detail: Tensor,
    z_style: Tensor,
    paint: bool = True,
    fine: torch.dtype | None = None,
) -> Tensor:
    """What the decoder gives, (B, 3, H, W), at once.

    fine: the dtype of the two fine stages, of one picture without paint on the CPU; see `decoding_dtype`.
    """
    if not can_fuse(z_base):
        return cast(Tensor, decoder(z_base, z_detail, z_style, paint))
    base, detail = decoder.restored(z_base, z_detail, z_style)
    codes = decoder.codes(z_style, paint)
    picture = decoder.linear(base, detail)
    x = _decode_coarse(decoder, base, detail, codes, None)
    return _decode_fine(decoder, codes, x if fine is None else x.to(fine), picture)


def decode_rows(decoder: Decoder, latents: Latents, dtype: DTypeLike, budget: Budget) -> Iterator[Pixels]:
    """Latents of batch 1, float32 on the decoder's device, as strips (h, W, 3) of pixels from the top.

    The whole picture is one strip where it fits.
    """
    painted = bool(latents.z_style[:, -1].any())
    fine = decoding_dtype(latents.z_base.device, dtype, painted)
    rows, columns = latents.z_base.shape[2:]
    fitting = budget.rows(columns * BASE_STRIDE, widest(decoder.stage2))
    if rows <= fitting:
        picture = decode(decoder, latents.z_base, latents.z_detail, latents.z_style, painted, fine)
        yield to_pixels(picture[0, :, : latents.height, : latents.width].clamp_(0, 1), dtype)
        return
    halo = PAINT_HALO if painted else HALO
    with torch.no_grad():
        base, detail = decoder.restored(latents.z_base, latents.z_detail, latents.z_style)
        codes = decoder.codes(latents.z_style, painted)
        trim()
        x = _decode_coarse(decoder, base, detail, codes, budget)
        fine = fine or x.dtype
        trim()
        sample = sample_strips(rows, fitting, halo)
        gates = Gates(sample, fitting)
        sampled = torch.cat([strip.outer(x, DETAIL_STRIDE) for strip in sample]).to(fine)
        _decode_fine(decoder, codes, sampled, None, gates, sample)
    for strip in plan_strips(rows, fitting, halo):
        with torch.no_grad():
            of_strip = strip.outer(x, DETAIL_STRIDE).to(fine)
            part = decoder.linear(strip.outer(base, BASE_STRIDE), strip.outer(detail, DETAIL_STRIDE))
            part = _decode_fine(decoder, codes, of_strip, part, gates.again(), [strip])
            below = latents.height - strip.first * BASE_STRIDE
            pixels = to_pixels(strip.inner(part, 1)[0, :, :below, : latents.width].clamp_(0, 1), dtype)
        let_go(part.numel() * part.element_size())
        yield pixels
    trim()


def _decode_coarse(
    decoder: Decoder, base: Tensor, detail: Tensor, codes: Codes, budget: Budget | None
) -> Tensor:
    """The features at the stride of z_detail, after its blocks."""
    x = in_strips(decoder.base_in, base, decoder.base_in.out_channels, budget, reach=1)
    for step in steps(decoder.stage16, *codes, budget):
        x = step(x)
    beside = in_strips(decoder.detail_in, detail, decoder.detail_in.out_channels, budget, reach=1)
    x = added(in_strips(partial(shuffle_up, decoder.up8), x, beside.shape[1], budget, rows_out=2), beside)
    del beside
    for step in steps(decoder.stage8, *codes, budget):
        x = step(x)
    return x


def _decode_fine(
    decoder: Decoder,
    codes: Codes,
    x: Tensor,
    linear: Tensor | None,
    gates: Gates | None = None,
    strips: Sequence[Strip] = (),
) -> Tensor:
    """The two fine stages and the output, (B, 3, h, W), of a picture or, with gates, of strips of one size.

    linear: of `Decoder.linear`, to which the output is added in its place; nothing for a sample.
    """
    style, brush, amount = codes
    for up, stage, stride in ((decoder.up4, decoder.stage4, 4), (decoder.up2, decoder.stage2, 2)):
        x = shuffle_up(up, x)
        if not gates:
            for step in steps(stage, *codes):
                x = step(x)
            continue
        for block in stage.blocks:
            x = gates.run(cast(MobileConv, block), x, style, stride)
        if brush is None:
            continue
        height, width = x.shape[-2:]
        firsts = [strip.outer_first * BASE_STRIDE // stride for strip in strips]
        noise = torch.cat([grain(height, width, x.device, first) for first in firsts])
        for block in stage.paint:
            x = with_noise(cast(PaintBlock, block), x, noise, brush, amount)
    if linear is None:
        return x
    picture = linear.add_(0.5).add_(shuffle_up(decoder.out, x))
    if brush is not None:
        picture += amount * shuffle_up(decoder.paint_out, x).float()
    return picture
