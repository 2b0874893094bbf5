"""The selective scan of SS2D: which form of it serves an input, and the one for small maps in plain torch.

There are two compiled ones as well, for the value alone and with a gradient: selective_cpu.py.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.scan.operator import DIRECTIONS

# Longest side of a map that is scanned in plain torch. 32 is a picture of 256 pixels, at its finest scan.
# Which form runs must depend on nothing but the size: they round differently, and a picture's bytes must not
# depend on what was loaded or computed before it.
SMALL_SIDE = 32

FusedScan = Callable[..., Tensor]


def can_fuse(x: Tensor) -> bool:
    """Whether x is computed with on the CPU for its value alone: no gradient, no export, no autocast."""
    return not (
        torch.is_grad_enabled()
        or x.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch.compiler.is_exporting()
        or torch.is_autocast_enabled("cpu")
    )


def fused_scan_for(u: Tensor) -> FusedScan | None:
    """The scan for an input of SS2D (B, H, W, C), as `selective_cpu.selective_scan`, or None."""
    if u.dtype is not torch.float32 or u.device.type != "cpu" or torch.compiler.is_exporting():
        return None
    if torch.is_grad_enabled():
        return compiled_scan("differentiable_scan")
    if not can_fuse(u):
        return None
    return small_scan if max(u.shape[1:3]) <= SMALL_SIDE else compiled_scan("selective_scan")


@cache
def compiled_scan(name: str) -> FusedScan | None:
    """One of selective_cpu.py, None where it cannot be compiled."""
    try:
        scan: FusedScan = getattr(import_module("pmavae.scan.selective_cpu"), name)
    except ImportError:
        return None
    return scan


class _Lines(NamedTuple):
    """Views of the buffers in the order in which a direction goes."""

    states: Sequence[Tensor]  # for each step of a line, (lines, C)
    decays: Sequence[Tensor]
    last_states: Sequence[Tensor]  # for each line, (C,): those of its last step
    last_decays: Sequence[Tensor]
    starts: Sequence[Tensor]  # for each line, (C,): what comes in from the lines before it
    all_starts: Tensor  # the same for all pixels: (H or 1, W or 1, C)


def small_scan(
    u: Tensor,
    projected: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    rate: Tensor,
    skip: Tensor,
    *,
    out: Tensor | None = None,
    done: object = None,  # so small a map is in no file
) -> Tensor:
    """As `selective_cpu.selective_scan`: (B, H, W, C) to the same shape; any sizes, float32 on the CPU.

    Loading the compiled scan takes longer than a thumbnail does, so this is plain torch. A line of the
    picture, a row or a column, is a chunk of the scan:

    1. All lines are scanned at once, step by step, each from a state of zero, with the decay from its start
       to every step.
    2. The last state and the whole decay of each line are a recurrence again, over the lines: what each of
       them starts from.
    3. That, times the decay up to it, is added to every step.

    That is 2 · line + lines short operations for a direction instead of line · lines. Decays are products of
    numbers in [0, 1], so nothing overflows.
    """
    batch, height, width, channels = u.shape
    rank = dt_proj.shape[2]
    y = torch.mul(u, skip, out=out)
    falling = rate.neg()
    # One direction of one picture at a time: its numbers stay in the cache.
    states, decays = (u.new_empty(height, width, channels) for _ in range(2))
    flat = decays.view(-1, channels)
    orders = [_lines(states, decays, direction) for direction in range(DIRECTIONS)]
    for item in range(batch):
        for direction, lines in enumerate(orders):
            low_rank, drive, read = projected[item, :, :, direction].split((rank, 1, 1), dim=-1)
            torch.addmm(dt_bias[direction], low_rank.reshape(-1, rank), dt_proj[direction].t(), out=flat)
            F.softplus(flat, out=flat)  # type: ignore[call-arg]
            torch.mul(u[item], decays, out=states).mul_(drive)
            flat.mul_(falling[direction]).exp_()
            _scan(lines)
            states.addcmul_(decays, lines.all_starts)
            y[item].addcmul_(states, read)
    return y


def _lines(states: Tensor, decays: Tensor, direction: int) -> _Lines:
    """How a direction walks the buffers, (H, W, C) each."""
    by_columns, backwards = direction % 2 == 1, direction >= 2
    across, along = (1, 0) if by_columns else (0, 1)
    starts = torch.empty(states.shape[across], states.shape[2])
    last = 0 if backwards else -1
    turn = -1 if backwards else 1
    return _Lines(
        states.unbind(along)[::turn],
        decays.unbind(along)[::turn],
        states.select(along, last).unbind(0)[::turn],
        decays.select(along, last).unbind(0)[::turn],
        starts.unbind(0)[::turn],
        starts.unsqueeze(along),
    )


def _scan(lines: _Lines) -> None:
    """From drives and decays of single steps to states of each line and decays since its start, in place."""
    states, decays = lines.states, lines.decays
    for step in range(1, len(states)):
        states[step].addcmul_(decays[step], states[step - 1])
        decays[step].mul_(decays[step - 1])
    lines.starts[0].zero_()
    for line in range(1, len(lines.starts)):
        torch.addcmul(
            lines.last_states[line - 1],
            lines.last_decays[line - 1],
            lines.starts[line - 1],
            out=lines.starts[line],
        )
