"""Convolutions with what follows them in one pass over memory, where nothing needs a gradient.

At the fine strides a pass over the features costs as much as a convolution, so an activation, a modulation or
an addition of its own is worth avoiding. oneDNN does them while a result is still in the cache. torch offers
that to its compiler only, under names without a promise: where they are missing, plain torch serves.
Below, in which numbers a network may compute.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike
from torch import Tensor, nn

# That a map takes of the rows that are computed at a time, where a pass is local: they stay in the cache, and
# malloc has the memory for the next rows at hand, where that of a large map is fetched page by page.
STRIP_BYTES = 8 << 20
SUM_BYTES = 1 << 20  # of a narrow map, widened, that are summed at a time

_ONES = [1, 1]


@cache
def fused() -> Any:
    """oneDNN's convolution with something after it, None where this torch lacks it or it fails."""
    try:
        operator = torch.ops.mkldnn._convolution_pointwise
        x = torch.ones(1, 1, 1, 1)
        silu = operator(x, x, None, [0, 0], _ONES, _ONES, 1, "swish", [], "")
        total = operator.binary(x, x, x, None, [0, 0], _ONES, _ONES, 1, "add", 1.0, None, [], None)
    except (AttributeError, RuntimeError, TypeError):
        return None
    right = torch.allclose(silu, F.silu(x)) and torch.allclose(total, 2 * x)
    return operator if right else None


def conv_silu(
    x: Tensor,
    conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int | str] | None = None,
) -> Tensor:
    """SiLU of a convolution of stride 1; weight, bias and what zeros are put around, instead of its own."""
    return _conv(x, weight, bias, padding or conv.padding, conv.groups, "swish")


def conv_alone(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution of stride 1; torch's own is slower where it is 1 × 1 and in float32."""
    return _conv(x, conv.weight, conv.bias, conv.padding, conv.groups, "none")


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int | str],
    groups: int,
    then: Literal["swish", "none"],
) -> Tensor:
    weight, bias = _like(x, weight, bias)
    sides = [int(side) for side in padding]
    if x.device.type == "cpu" and (operator := fused()):
        result: Tensor = operator(x, weight, bias, sides, _ONES, _ONES, groups, then, [], "")
        return result
    y = F.conv2d(x, weight, bias, padding=sides, groups=groups)
    return F.silu(y, inplace=True) if then == "swish" else y


def conv_add(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 × 1 convolution and what is added to it."""
    weight, bias = _like(x, weight, bias)
    if x.device.type == "cpu" and (operator := fused()):
        result: Tensor = operator.binary(
            x, other, weight, bias, [0, 0], _ONES, _ONES, 1, "add", 1.0, None, [], None
        )
        return result
    return F.conv2d(x, weight, bias).add_(other)


def _like(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weights in the dtype of the features, which is what a convolution is computed in."""
    return weight.to(x.dtype), None if bias is None else bias.to(x.dtype)


def sums_of(x: Tensor) -> Tensor:
    """Sums (B, C) over the positions of a map, in float32 at least.

    A narrow map is widened in parts that stay in the cache: torch would widen it whole, in new memory.
    """
    if x.dtype in (torch.float32, torch.float64):
        return x.sum((2, 3))
    rows = max(1, SUM_BYTES // (4 * x[:, :, :1].numel()))
    return torch.stack([part.float().sum((2, 3)) for part in x.split(rows, dim=2)]).sum(0)


def means_of(x: Tensor) -> Tensor:
    """Means (B, C) over the positions of a map, in float32 at least."""
    if x.dtype in (torch.float32, torch.float64):
        return x.mean((2, 3))
    return sums_of(x) / (x.shape[2] * x.shape[3])


def strips_of(x: Tensor, widest: int) -> list[slice]:
    """Rows of x (B, C, H, W) that can be computed one after the other, with `widest` channels at most."""
    row_bytes = x.shape[0] * widest * x.shape[3] * x.element_size()
    rows = max(1, STRIP_BYTES // row_bytes)
    return [slice(start, min(start + rows, x.shape[2])) for start in range(0, x.shape[2], rows)]


def with_neighbours(x: Tensor, rows: slice, reach: int = 1) -> tuple[Tensor, slice]:
    """The rows of x with `reach` more above and below, where there are any, and where they lie in these."""
    top, bottom = max(0, rows.start - reach), min(x.shape[2], rows.stop + reach)
    return x[:, :, top:bottom], slice(rows.start - top, rows.stop - top)


Precision = Literal["auto", "float32"]

_precision: Precision = "auto"


def set_precision(precision: Precision) -> None:
    """Where convolutions may be in a dtype that the device is fast in: "auto", or nowhere, "float32".

    For the whole process, like `torch.set_num_threads`. Raises ValueError for another word.
    """
    global _precision
    if precision not in get_args(Precision):
        raise ValueError(f"no precision {precision!r}, only {' and '.join(get_args(Precision))}")
    _precision = precision


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of convolutions that a device is fast in, None for float32; see `set_precision`.

    A CPU that has instructions for it is about twice as fast in it. What is added to a picture may be
    computed so; not the picture, nor what is kept or added up over many positions: latents, statistics,
    scans.
    """
    if _precision == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Where there are no such instructions torch emulates them, slowly; older versions cannot tell.
    native = device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return torch.bfloat16 if native else None


def decoding_dtype(device: torch.device, pixels: DTypeLike, painted: bool) -> torch.dtype | None:
    """The dtype of the decoder's fine stages for pixels of a type, None for float32.

    Float32 for 16-bit pixels, which would show the difference, and for painted ones.
    """
    narrow = device.type == "cpu" and np.dtype(pixels) == np.uint8 and not painted and fused()
    return fast_dtype(device) if narrow else None
