"""Where a network may compute in narrower numbers than float32: one notion for all of them."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import DTypeLike

from pmavae.inference import fused as inference

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
    narrow = device.type == "cpu" and np.dtype(pixels) == np.uint8 and not painted and inference.fused()
    return fast_dtype(device) if narrow else None
