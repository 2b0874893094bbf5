"""The directional scan on CUDA, as two Triton kernels: one forward, one backward.

A program owns a few lanes of one direction of one image and walks that image in tiles of steps. In
a tile the steps are composed in parallel; from tile to tile only the last state is carried. Each
direction walks the image in its own order, so no transposed or flipped copy is ever made.

The sequence is not split over programs: a GPU is filled by lanes (directions × images × M), and one
small image alone leaves most of it idle.

Importing this module runs a first small scan where there is a CUDA device. Raises ImportError where
Triton is missing, or cannot compile for that device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

STEPS = 128  # steps a tile
LANES = 16  # lanes a program: 64 bytes of float32 a step, two whole sectors of memory


@triton.jit
def _compose(a_first, b_first, a_second, b_second):  # type: ignore[no-untyped-def]
    """Two steps h -> a * h + b in a row, as one."""
    return a_first * a_second, a_second * b_first + b_second


@triton.jit
def _scan_tile(a, b, state):  # type: ignore[no-untyped-def]
    """States (STEPS, LANES) of a tile entered with `state` (LANES,), and the state it is left with."""
    a, b = tl.associative_scan((a, b), 0, _compose)
    h = a * state[None, :] + b
    last = tl.arange(0, h.shape[0]) == h.shape[0] - 1
    return h, tl.sum(tl.where(last[:, None], h, 0.0), 0)


@triton.jit
def _pixel(step, direction, height, width):  # type: ignore[no-untyped-def]
    """Index of the pixel that a direction visits at this step (row-major)."""
    step = tl.where(direction >= 2, height * width - 1 - step, step)
    return tl.where(direction % 2 == 0, step, step % height * width + step // height)


# Heights and widths of pictures vary freely, so no kernel is compiled anew for even ones. Offsets are
# 64-bit: tensors of more than 2^31 elements are ordinary in training. Tails need no neutral element:
# what follows the last step or lane is never stored.


@triton.jit(do_not_specialize=["batch", "height", "width"])
def _forward(  # type: ignore[no-untyped-def]
    a_pointer,
    b_pointer,
    h_pointer,
    batch,
    height,
    width,
    lanes,
    STEPS: tl.constexpr,
    LANES: tl.constexpr,
    DTYPE: tl.constexpr,
):
    groups = tl.cdiv(lanes, LANES)
    image = tl.program_id(0) // groups
    direction = image // batch
    length = height * width
    lane = tl.program_id(0) % groups * LANES + tl.arange(0, LANES)
    first = image.to(tl.int64) * length * lanes + lane
    state = tl.zeros((LANES,), DTYPE)
    for start in tl.range(0, length, STEPS, num_stages=2):
        step = start + tl.arange(0, STEPS)
        pixel = _pixel(step, direction, height, width).to(tl.int64)
        here = first[None, :] + (pixel * lanes)[:, None]
        inside = (step < length)[:, None] & (lane < lanes)[None, :]
        a = tl.load(a_pointer + here, inside, 0.0).to(DTYPE)
        b = tl.load(b_pointer + here, inside, 0.0).to(DTYPE)
        h, state = _scan_tile(a, b, state)
        tl.store(h_pointer + here, h, inside)


@triton.jit(do_not_specialize=["batch", "height", "width"])
def _backward(  # type: ignore[no-untyped-def]
    grad_h_pointer,
    a_pointer,
    h_pointer,
    grad_a_pointer,
    grad_b_pointer,
    batch,
    height,
    width,
    lanes,
    STEPS: tl.constexpr,
    LANES: tl.constexpr,
    DTYPE: tl.constexpr,
):
    groups = tl.cdiv(lanes, LANES)
    image = tl.program_id(0) // groups
    direction = image // batch
    length = height * width
    lane = tl.program_id(0) % groups * LANES + tl.arange(0, LANES)
    first = image.to(tl.int64) * length * lanes + lane
    within = (lane < lanes)[None, :]
    total = tl.zeros((LANES,), DTYPE)
    for start in tl.range(0, length, STEPS, num_stages=2):
        step = length - 1 - start - tl.arange(0, STEPS)
        pixel = _pixel(step, direction, height, width).to(tl.int64)
        pixel_after = _pixel(step + 1, direction, height, width).to(tl.int64)
        pixel_before = _pixel(step - 1, direction, height, width).to(tl.int64)
        here = first[None, :] + (pixel * lanes)[:, None]
        after = first[None, :] + (pixel_after * lanes)[:, None]
        before = first[None, :] + (pixel_before * lanes)[:, None]
        inside = (step >= 0)[:, None] & within
        has_after = ((step >= 0) & (step < length - 1))[:, None] & within
        grad_h = tl.load(grad_h_pointer + here, inside, 0.0).to(DTYPE)
        a_after = tl.load(a_pointer + after, has_after, 0.0).to(DTYPE)
        h_before = tl.load(h_pointer + before, (step >= 1)[:, None] & within, 0.0).to(DTYPE)
        totals, total = _scan_tile(a_after, grad_h, total)
        tl.store(grad_a_pointer + here, totals * h_before, inside)
        tl.store(grad_b_pointer + here, totals, inside)


def _launch(kernel, *tensors: Tensor) -> None:  # type: ignore[no-untyped-def]
    """Run one program for each direction, image and group of lanes of tensors (4, B, H, W, M)."""
    directions, batch, height, width, lanes = tensors[0].shape
    block = min(LANES, triton.next_power_of_2(lanes))
    steps = min(STEPS, triton.next_power_of_2(height * width))
    precision = tl.float64 if tensors[0].dtype == torch.float64 else tl.float32
    with torch.cuda.device_of(tensors[0]):
        kernel[(directions * batch * triton.cdiv(lanes, block),)](
            *tensors, batch, height, width, lanes, STEPS=steps, LANES=block, DTYPE=precision
        )


def scan_forward(a: Tensor, b: Tensor) -> Tensor:
    """See `operator.scan_forward`; any floating dtype, computed in float32 at least."""
    h = torch.empty_like(a)
    _launch(_forward, a, b, h)
    return h


def scan_backward(grad_h: Tensor, a: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """See `operator.scan_backward`; any floating dtype, computed in float32 at least."""
    grad_a, grad_b = torch.empty_like(a), torch.empty_like(a)
    _launch(_backward, grad_h, a, h, grad_a, grad_b)
    return grad_a, grad_b


if torch.cuda.is_available():
    try:
        scan_forward(torch.ones(4, 1, 1, 1, 1, device="cuda"), torch.ones(4, 1, 1, 1, 1, device="cuda"))
    except Exception as error:  # no C compiler, a device too old: each has its own exception
        raise ImportError(f"Triton cannot compile for this device: {error!r}") from error
