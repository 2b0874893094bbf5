"""Which form of the selective scan serves an input: compiled for its value alone, or with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pmavae.scan import selective_small

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
        return _training()
    if not can_fuse(u):
        return None
    if max(u.shape[1:3]) <= SMALL_SIDE:
        return selective_small.selective_scan
    return _cpu()


@cache
def _cpu() -> FusedScan | None:
    try:
        from pmavae.scan.selective_cpu import selective_scan
    except ImportError:
        return None
    return selective_scan


@cache
def _training() -> FusedScan | None:
    try:
        from pmavae.scan.selective_training import selective_scan
    except ImportError:
        return None
    return selective_scan
