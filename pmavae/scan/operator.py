"""`directional_scan` as one torch operator with a gradient, and the backends behind it.

To autograd, `torch.compile` and export the scan is a single node, `pmavae::directional_scan`.
Which code runs is looked up by device type when it is called: a compiled kernel on the CPU and on
CUDA, the torch reference elsewhere, or whatever `register_backend` put there.

The reference, one small torch operation a step on any device and dtype, is what every kernel is tested
against.
"""

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, library

DIRECTIONS = 4  # row by row, column by column, and back on both


def unroll(x: Tensor) -> Tensor:
    """(4, B, H, W, M) to (4, B, H*W, M): each direction's positions in the order it visits them."""
    rows = x[0].flatten(1, 2)  # left to right, line by line
    columns = x[1].transpose(1, 2).flatten(1, 2)  # top to bottom, column by column
    rows_back = x[2].flatten(1, 2).flip(1)
    columns_back = x[3].transpose(1, 2).flatten(1, 2).flip(1)
    return torch.stack((rows, columns, rows_back, columns_back))


def roll(x: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `unroll`: (4, B, H*W, M) to (4, B, H, W, M)."""
    rows = x[0].unflatten(1, (height, width))
    columns = x[1].unflatten(1, (width, height)).transpose(1, 2)
    rows_back = x[2].flip(1).unflatten(1, (height, width))
    columns_back = x[3].flip(1).unflatten(1, (width, height)).transpose(1, 2)
    return torch.stack((rows, columns, rows_back, columns_back))


def scan_forward(a: Tensor, b: Tensor) -> Tensor:
    """h[t] = a[t] * h[t-1] + b[t] with h[-1] = 0, one step after the other; all tensors (4, B, H, W, M)."""
    height, width = a.shape[2:4]
    steps_a, steps_b = unroll(a), unroll(b)
    state = torch.zeros_like(steps_a[:, :, 0])
    states = []
    for t in range(height * width):
        state = torch.addcmul(steps_b[:, :, t], steps_a[:, :, t], state)
        states.append(state)
    return roll(torch.stack(states, dim=2), height, width)


def scan_backward(grad_h: Tensor, a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to a and b, given the gradient of h: the same recurrence backwards.

    With g the total gradient that reaches h[t]: g[t] = grad_h[t] + a[t+1] * g[t+1],
    grad_b[t] = g[t] and grad_a[t] = g[t] * h[t-1].
    """
    height, width = a.shape[2:4]
    steps_grad, steps_a, steps_h = unroll(grad_h), unroll(a), unroll(h)
    carried = torch.zeros_like(steps_a[:, :, 0])
    grads = []
    for t in reversed(range(height * width)):
        total = steps_grad[:, :, t] + carried
        grads.append(total)
        carried = steps_a[:, :, t] * total
    grad_b = torch.stack(grads[::-1], dim=2)
    before = torch.cat((torch.zeros_like(steps_h[:, :, :1]), steps_h[:, :, :-1]), dim=2)
    return roll(grad_b * before, height, width), roll(grad_b, height, width)


class Backend(NamedTuple):
    """A kernel for one device type. All tensors are contiguous (4, B, H, W, M) of one dtype."""

    forward: Callable[[Tensor, Tensor], Tensor]  # (a, b) -> h
    backward: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # (grad_h, a, h) -> grad_a, grad_b


_REFERENCE = Backend(scan_forward, scan_backward)
_registered: dict[str, Backend] = {}


def register_backend(device_type: str, backend: Backend) -> None:
    """Make `backend` serve all scans on this device type ("mps", "xpu", …) from now on."""
    _registered[device_type] = backend


@cache
def _compiled(module: str) -> Backend:
    try:
        kernel = import_module(f"pmavae.scan.{module}")
    except ImportError as error:
        if module == "cuda":  # one launch a step: too slow for anyone to put down to the GPU
            missing = isinstance(error, ModuleNotFoundError)
            reason = "install its kernel's compiler with `pip install triton`" if missing else error
            warning = f"the scan runs as a slow torch loop on CUDA: {reason}"
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        return _REFERENCE
    return Backend(kernel.scan_forward, kernel.scan_backward)


def backend_for(device: torch.device) -> Backend:
    """The backend that scans on this device will use."""
    if device.type in _registered:
        return _registered[device.type]
    return _compiled(device.type) if device.type in ("cpu", "cuda") else _REFERENCE


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
    return _scan_backward(grad_h, a, h)


_scan.register_autograd(_backward, setup_context=_save_for_backward)


def directional_scan(a: Tensor, b: Tensor) -> Tensor:
    """Run h[t] = a[t] * h[t-1] + b[t] over an image along four directions at once.

    a, b: (4, B, H, W, M), the same floating dtype and device; M independent lanes. Direction 0
    visits the pixels row by row, 1 column by column, 2 and 3 are these two reversed (VMamba's
    cross-scan, arXiv 2401.10166). Returns h of the same shape: the states, each at its pixel.
    Raises ValueError if the shapes or dtypes differ.
    """
    if a.shape != b.shape or a.dim() != 5 or a.shape[0] != DIRECTIONS:
        raise ValueError(
            f"expected two tensors of shape (4, B, H, W, M), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.dtype != b.dtype:
        raise ValueError(f"expected one dtype, got {a.dtype} and {b.dtype}")
    return _scan(a, b)
