"""The directional scan on the CPU, compiled by Numba.

The recurrence is serial in time but independent per lane, so the innermost loop runs over
neighbouring lanes (one SIMD register after another) and threads share out the groups of lanes.
Each direction walks the image in its own order, so no transposed or flipped copy is ever made.

Importing this module compiles a probe of the threading layer, the first call its kernel. Numba keeps
both on disk where a folder for them can be written.
Raises ImportError where Numba, or a thread-safe threading layer for it, is missing.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

# Batches load, compute and save in Python threads; Numba's `workqueue` layer would crash there.
numba.config.THREADING_LAYER = "threadsafe"

LANES = 64  # lanes a task walks together: one row of four AVX-512 registers, measured best of 16–128


def compiled(*, fastmath: set[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile for all threads, and cache unless nowhere (a read-only installation, no home)."""
    options: dict[str, Any] = {"parallel": True, "fastmath": fastmath, "nogil": True}

    def compile_it(function: Callable[..., None]) -> Callable[..., None]:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return compile_it


_compiled = compiled(fastmath={"contract"})


@njit(inline="always")
def position(step: int, direction: int, height: int, width: int) -> int:
    """Index of the pixel that a direction visits at this step (row-major)."""
    if direction >= 2:
        step = height * width - 1 - step
    if direction % 2 == 0:
        return step
    return (step % height) * width + step // height


# The rows are taken as slices because LLVM vectorises a loop over slices from zero; with offset
# indices it does not, and the same recurrence takes ten times as long.


@_compiled
def _forward(a, b, h, height, width):  # type: ignore[no-untyped-def]
    directions, batch, length, lanes = a.shape
    groups = (lanes + LANES - 1) // LANES
    for task in prange(directions * batch * groups):
        direction = task // (batch * groups)
        item = task // groups % batch
        first = task % groups * LANES
        last = min(lanes, first + LANES)
        before = position(0, direction, height, width)
        h[direction, item, before, first:last] = b[direction, item, before, first:last]
        for step in range(1, length):
            here = position(step, direction, height, width)
            a_here = a[direction, item, here, first:last]
            b_here = b[direction, item, here, first:last]
            h_here = h[direction, item, here, first:last]
            h_before = h[direction, item, before, first:last]
            for m in range(last - first):
                h_here[m] = a_here[m] * h_before[m] + b_here[m]
            before = here


@_compiled
def _backward(grad_h, a, h, grad_a, grad_b, height, width):  # type: ignore[no-untyped-def]
    directions, batch, length, lanes = a.shape
    groups = (lanes + LANES - 1) // LANES
    for task in prange(directions * batch * groups):
        direction = task // (batch * groups)
        item = task // groups % batch
        first = task % groups * LANES
        last = min(lanes, first + LANES)
        here = position(length - 1, direction, height, width)
        grad_b[direction, item, here, first:last] = grad_h[direction, item, here, first:last]
        for step in range(length - 2, -1, -1):
            before = position(step, direction, height, width)
            total_here = grad_b[direction, item, here, first:last]
            total_before = grad_b[direction, item, before, first:last]
            grad_before = grad_h[direction, item, before, first:last]
            grad_a_here = grad_a[direction, item, here, first:last]
            a_here = a[direction, item, here, first:last]
            h_before = h[direction, item, before, first:last]
            for m in range(last - first):  # two loops: in one, LLVM gives up on proving no overlap
                total_before[m] = grad_before[m] + a_here[m] * total_here[m]
            for m in range(last - first):
                grad_a_here[m] = total_here[m] * h_before[m]
            here = before
        grad_a[direction, item, here, first:last] = 0.0


def _pixels(x: Tensor) -> NDArray[Any]:
    """(4, B, H, W, M) as a NumPy view (4, B, H*W, M); copies only if x is not contiguous."""
    return x.detach().contiguous().flatten(2, 3).numpy()


def follow_torch_threads() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


def scan_forward(a: Tensor, b: Tensor) -> Tensor:
    """See `operator.scan_forward`; float32 or float64 on the CPU."""
    follow_torch_threads()
    h = torch.empty(a.shape, dtype=a.dtype)
    _forward(_pixels(a), _pixels(b), _pixels(h), a.shape[2], a.shape[3])
    return h


def scan_backward(grad_h: Tensor, a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """See `operator.scan_backward`; float32 or float64 on the CPU."""
    follow_torch_threads()
    grad_a, grad_b = torch.empty(a.shape, dtype=a.dtype), torch.empty(a.shape, dtype=a.dtype)
    _backward(
        _pixels(grad_h), _pixels(a), _pixels(h), _pixels(grad_a), _pixels(grad_b), a.shape[2], a.shape[3]
    )
    return grad_a, grad_b


@_compiled
def _probe(out):  # type: ignore[no-untyped-def]
    for i in prange(out.shape[0]):
        out[i] = 1.0


_threads = torch.get_num_threads()
try:
    _probe(np.empty(2))
except ValueError as error:  # Numba's answer when neither TBB nor OpenMP can be loaded
    raise ImportError(f"Numba has no thread-safe threading layer: {error}") from error
# Numba's first loop sets the number of threads of all OpenMP code to its own, and with another number a
# matrix product is rounded differently: a picture would depend on what was computed before it.
torch.set_num_threads(_threads)
