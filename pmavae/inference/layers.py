"""The blocks of a network for one picture on the CPU and without a gradient: fewer passes over memory, and
large maps in strips of rows. Modulations and gates become part of the weights.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae import latents
from pmavae.inference.fused import (
    conv_add,
    conv_alone,
    conv_silu,
    means_of,
    strips_of,
    sums_of,
    with_neighbours,
)
from pmavae.inference.offload import Budget, empty_map, in_strips, let_go
from pmavae.model import FiLM, MobileConv, PaintBlock, ParallelMambaBlock, ShuffleUp, Stage, grain
from pmavae.scan import DIRECTIONS, can_fuse, fused_scan_for
from pmavae.ss2d import SS2D, by_fused_scan

PART = 1 << 18  # numbers whose statistics are taken at a time


def forward(module: nn.Module, x: Tensor, *codes: Tensor | None, budget: Budget | None = None) -> Tensor:
    """module(x, *codes), by its fast form where it has one and x (B, C, H, W) is one picture to be fused.

    budget: what a picture has to keep that is too large to be computed at once.
    """
    fast = _FORWARDS.get(type(module)) if x.shape[0] == 1 and can_fuse(x) else None
    result: Tensor = fast(module, x, *codes, budget=budget) if fast else module(x, *codes)
    return result


def steps(
    stage: Stage, style: Tensor, brush: Tensor | None, amount: Tensor, budget: Budget | None = None
) -> list[Callable[[Tensor], Tensor]]:
    """The blocks, one after the other: who calls them need not hold what went into the first."""

    def step(block: nn.Module, *codes: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: forward(block, x, *codes, budget=budget)

    plain = [step(block, style) for block in stage.blocks]
    return plain if brush is None else [*plain, *(step(block, brush, amount) for block in stage.paint)]


def shuffle_up(up: ShuffleUp, x: Tensor) -> Tensor:
    """(B, C, H, W) to twice the height and width, in the dtype of x."""
    conv, shuffle = up
    result: Tensor = shuffle(conv_alone(x, cast(nn.Conv2d, conv)))
    return result


def mobile_conv(
    block: MobileConv, x: Tensor, style: Tensor | None = None, budget: Budget | None = None
) -> Tensor:
    """A block of one picture."""
    strips = strips_of(x, block.expand.out_channels)
    if len(strips) == 1 or not x.is_contiguous(memory_format=torch.channels_last):
        y = before_gate(block, x, style)
        return after_gate(block, y, x, block.squeeze_excite.gate(means_of(y))[0])
    weight, bias = modulated(block.depthwise, block.film, style)
    parts = [_before_gate_of(block, x, rows, weight, bias) for rows in strips]
    total = torch.stack([sums_of(part) for part in parts]).sum(0)
    gate = block.squeeze_excite.gate(total / (x.shape[2] * x.shape[3]))[0]
    result = empty_map(tuple(x.shape), x, budget)
    parts.reverse()
    for rows in strips:  # popped, so that a strip's memory serves the next
        result[:, :, rows] = after_gate(block, parts.pop(), x[:, :, rows], gate)
    return result


def _before_gate_of(block: MobileConv, x: Tensor, rows: slice, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Rows of what `before_gate` gives."""
    outer, inner = with_neighbours(x, rows)
    y = conv_silu(outer, block.expand, block.expand.weight, block.expand.bias)
    top, bottom = int(inner.start == 0), int(inner.stop == outer.shape[2])
    if top or bottom:
        y = F.pad(y, (0, 0, top, bottom))
    return conv_silu(y, block.depthwise, weight, bias, padding=(0, 1))


def modulated(conv: nn.Conv2d, film: FiLM | None, code: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution with the modulation of one picture, by its code, in them."""
    if film is None:
        return conv.weight, conv.bias
    scale, shift = film.to_scale_shift(code)[0].chunk(2)  # (C,) each
    moved = shift if conv.bias is None else conv.bias * (1 + scale) + shift
    return conv.weight * (1 + scale)[:, None, None, None], moved


def before_gate(block: MobileConv, x: Tensor, style: Tensor | None) -> Tensor:
    """What is to be gated; x: one picture, or parts of one, whose style code is (1, style_dim)."""
    y = conv_silu(x, block.expand, block.expand.weight, block.expand.bias)
    return conv_silu(y, block.depthwise, *modulated(block.depthwise, block.film, style))


def after_gate(block: MobileConv, y: Tensor, x: Tensor, gate: Tensor) -> Tensor:
    """The output, from what `before_gate` made of x and the gate (C,) of the whole picture."""
    return conv_add(y, x, block.project.weight * gate[:, None, None], block.project.bias)


def mamba_block(
    block: ParallelMambaBlock, x: Tensor, style: Tensor | None = None, budget: Budget | None = None
) -> Tensor:
    """A block of one picture.

    Large ones in strips of rows, but for the scan: of whole maps there are then x, two of the scan and no
    more, and what is local is computed twice rather than kept.
    """
    layers: list[Any] = [*block.local, *block.mlp]
    depthwise, _, squeeze_excite, project, expand, _, narrow = layers
    weight, bias = expand.weight, expand.bias
    if block.film is not None:
        scale, shift = block.film.to_scale_shift(style)[0].chunk(2)
        weight, bias = weight * (1 + scale)[None, :, None, None], bias + weight[..., 0, 0] @ shift

    def local(y: Tensor) -> Tensor:
        return conv_silu(y, depthwise, depthwise.weight, depthwise.bias)

    def finished(z: Tensor, x: Tensor, scanned: Tensor, gated: Tensor) -> Tensor:
        x = conv_add(z, x, gated, project.bias)
        scanned = block.ss2d.out_norm(scanned).permute(0, 3, 1, 2)
        x = conv_add(scanned, x, block.ss2d.out_proj.weight, None)
        z = conv_silu(block.norm2(x), expand, weight, bias)
        return conv_add(z, x, narrow.weight, narrow.bias)

    strips = strips_of(x, expand.out_channels)
    if len(strips) == 1:
        y = block.norm1(x)
        z = local(y)
        gated = project.weight * squeeze_excite.gate(means_of(z))[0][:, None, None]
        return finished(z, x, scan_map(block.ss2d, _scanned_in(block.ss2d, y), budget), gated)

    u = empty_map(tuple(x.shape), x, budget)
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    for rows in strips:
        outer, inner = with_neighbours(x, rows)
        y = block.norm1(outer)
        u[:, :, rows] = _scanned_in(block.ss2d, y)[:, :, inner]
        total += local(y)[0, :, inner].sum((1, 2)).double()
        let_go(2 * y.numel() * y.element_size())
    mean = (total / (x.shape[2] * x.shape[3])).to(x.dtype)
    gated = project.weight * squeeze_excite.gate(mean[None])[0][:, None, None]
    scanned = scan_map(block.ss2d, u, budget)
    result = u  # what was scanned is not needed again
    for rows in strips:
        outer, inner = with_neighbours(x, rows)
        z = local(block.norm1(outer))[:, :, inner]
        result[:, :, rows] = finished(z, x[:, :, rows], scanned[:, rows], gated)
        let_go(3 * z.numel() * z.element_size())
    return result


def _scanned_in(ss2d: SS2D, x: Tensor) -> Tensor:
    """What is scanned: x (B, C, H, W), projected and convolved."""
    return conv_silu(conv_alone(x, ss2d.in_proj), ss2d.conv, ss2d.conv.weight, ss2d.conv.bias)


def scan_map(ss2d: SS2D, u: Tensor, budget: Budget | None = None) -> Tensor:
    """What `SS2D.selective_scan` gives, (B, H, W, C), of u (B, C, H, W); large maps are in files."""
    by_channel, u = u, u.permute(0, 2, 3, 1)
    scan = fused_scan_for(u)
    if scan is None:
        return ss2d.selective_scan(u)
    weight = ss2d.x_proj.flatten(0, 1)

    def project(x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)

    projected = in_strips(project, by_channel, weight.shape[0], budget).permute(0, 2, 3, 1)
    out = empty_map(tuple(by_channel.shape), u, budget).permute(0, 2, 3, 1)
    return by_fused_scan(
        scan,
        u,
        projected.unflatten(-1, (DIRECTIONS, -1)),
        ss2d.dt_proj,
        ss2d.dt_bias,
        ss2d.A_log,
        ss2d.D,
        out=out,
        done=let_go,
    )


def paint_block(
    block: PaintBlock, x: Tensor, brush: Tensor, amount: Tensor, budget: Budget | None = None
) -> Tensor:
    """A block of one picture; a large one in strips of rows."""
    if block.training:
        return cast(Tensor, block(x, brush, amount))
    height, width = x.shape[-2:]
    strips = strips_of(x, 2 * x.shape[1])
    if len(strips) == 1:
        return with_noise(block, x, grain(height, width, x.device), brush, amount)
    result = empty_map(tuple(x.shape), x, budget)
    for rows in strips:
        outer, inner = with_neighbours(x, rows, block.stroke.kernel_size[0] // 2)
        noise = grain(outer.shape[2], width, x.device, rows.start - inner.start)
        result[:, :, rows] = with_noise(block, outer, noise, brush, amount)[:, :, inner]
        let_go(2 * outer.numel() * outer.element_size())
    return result


def with_noise(block: PaintBlock, x: Tensor, noise: Tensor, brush: Tensor, amount: Tensor) -> Tensor:
    """A block of one picture, or of parts of one, with this grain."""
    weight, bias = modulated(block.mix, block.film, brush)
    y = conv_silu(torch.cat((x, noise), dim=1), block.mix, weight, bias)
    reach = block.stroke.kernel_size[0] // 2
    y = F.pad(y, (reach,) * 4, mode="replicate")
    y = conv_silu(y, block.stroke, block.stroke.weight, block.stroke.bias, padding=(0, 0))
    gain = amount.flatten()
    moved = None if block.project.bias is None else block.project.bias * gain
    return conv_add(y, x, block.project.weight * gain, moved)


def fast_statistics(z: Tensor) -> Tensor:
    """What `pmavae.latents.statistics` gives.

    torch's var_mean is not vectorised; this is, in parts that stay in the cache, joined in double precision.
    """
    if z.shape[0] != 1 or not can_fuse(z):
        return latents.statistics(z)
    pixels = z[0].permute(1, 2, 0).flatten(0, 1).float()  # (H·W, C)
    counts, means, squares = [], [], []
    for part in pixels.split(max(1, PART // pixels.shape[1])):
        mean = part.mean(0)
        counts.append(part.shape[0])
        means.append(mean)
        squares.append((part - mean).square_().sum(0))
        let_go(part.numel() * part.element_size())
    share = torch.tensor(counts, dtype=torch.float64, device=z.device)[:, None] / pixels.shape[0]
    each = torch.stack(means).double()
    whole = (share * each).sum(0, keepdim=True)
    within = torch.stack(squares).double().sum(0, keepdim=True) / pixels.shape[0]
    variance = within + (share * (each - whole) ** 2).sum(0, keepdim=True)
    return latents.log_statistics(whole.float(), variance.float())


_FORWARDS: dict[type[nn.Module], Callable[..., Tensor]] = {
    MobileConv: mobile_conv,
    ParallelMambaBlock: mamba_block,
    PaintBlock: paint_block,
}
