"""Where the selective scan runs as one kernel, for want of a gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pmavae.inference import is_plain_inference

FusedScan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def fused_scan_for(u: Tensor) -> FusedScan | None:
    """The kernel for an input of SS2D, see `selective_cpu.selective_scan`; None where there is none."""
    if u.dtype is torch.float32 and is_plain_inference(u):
        return _cpu()
    return None


@cache
def _cpu() -> FusedScan | None:
    try:
        from pmavae.scan.selective_cpu import selective_scan
    except ImportError:
        return None
    return selective_scan
