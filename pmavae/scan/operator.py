"""`directional_scan` as one torch operator with a gradient, and the backends behind it.

To autograd, `torch.compile` and export the scan is a single node, `pmavae::directional_scan`.
Which code runs is looked up by device type when it is called: a compiled kernel on the CPU and on
CUDA, the torch reference elsewhere, or whatever `register_backend` put there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, library

from pmavae.scan import reference


class Backend(NamedTuple):
    """A kernel for one device type. All tensors are contiguous (4, B, H, W, M) of one dtype."""

    forward: Callable[[Tensor, Tensor], Tensor]  # (a, b) -> h
    backward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # (grad_h, a, h) -> grad_a, grad_b


_REFERENCE = Backend(reference.scan_forward, reference.scan_backward)
_registered: dict[str, Backend] = {}


def register_backend(device_type: str, backend: Backend) -> None:
    """Make `backend` serve all scans on this device type ("mps", "xpu", …) from now on."""
    _registered[device_type] = backend


@cache
def _cpu_backend() -> Backend:
    try:
        from pmavae.scan import cpu
    except ImportError:
        return _REFERENCE
    return Backend(cpu.scan_forward, cpu.scan_backward)


@cache
def _cuda_backend() -> Backend:
    try:
        from pmavae.scan import cuda
    except ImportError as error:
        # One launch a step: too slow for anyone to put down to the GPU.
        missing = isinstance(error, ModuleNotFoundError)
        reason = "install its kernel's compiler with `pip install triton`" if missing else error
        warnings.warn(f"the scan runs as a slow torch loop on CUDA: {reason}", RuntimeWarning, stacklevel=2)
        return _REFERENCE
    return Backend(cuda.scan_forward, cuda.scan_backward)


_COMPILED = {"cpu": _cpu_backend, "cuda": _cuda_backend}


def backend_for(device: torch.device) -> Backend:
    """The backend that scans on this device will use."""
    if device.type in _registered:
        return _registered[device.type]
    return _COMPILED[device.type]() if device.type in _COMPILED else _REFERENCE


@library.custom_op("pmavae::directional_scan", mutates_args=())
def _scan(a: Tensor, b: Tensor) -> Tensor:
    return backend_for(a.device).forward(a.contiguous(), b.contiguous())


@library.custom_op("pmavae::directional_scan_backward", mutates_args=())
def _scan_backward(grad_h: Tensor, a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return backend_for(a.device).backward(grad_h.contiguous(), a.contiguous(), h)


@_scan.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return torch.empty_like(a, memory_format=torch.contiguous_format)


@_scan_backward.register_fake
def _(grad_h: Tensor, a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(h), torch.empty_like(h)


def _save_for_backward(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[0], output)


def _backward(ctx, grad_h: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    a, h = ctx.saved_tensors
    grads: tuple[Tensor, Tensor] = _scan_backward(grad_h, a, h)
    return grads


_scan.register_autograd(_backward, setup_context=_save_for_backward)


def directional_scan(a: Tensor, b: Tensor) -> Tensor:
    """Run h[t] = a[t] * h[t-1] + b[t] over an image along four directions at once.

    a, b: (4, B, H, W, M), the same floating dtype and device; M independent lanes. Direction 0
    visits the pixels row by row, 1 column by column, 2 and 3 are these two reversed (VMamba's
    cross-scan, arXiv 2401.10166). Returns h of the same shape: the states, each at its pixel.
    Raises ValueError if the shapes or dtypes differ.
    """
    if a.shape != b.shape or a.dim() != 5 or a.shape[0] != 4:
        raise ValueError(
            f"expected two tensors of shape (4, B, H, W, M), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.dtype != b.dtype:
        raise ValueError(f"expected one dtype, got {a.dtype} and {b.dtype}")
    h: Tensor = _scan(a, b)
    return h
