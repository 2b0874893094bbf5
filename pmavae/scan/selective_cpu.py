"""The selective scan of SS2D on the CPU for inference, compiled by Numba: nothing is kept for a gradient.

Decays, drives and states stay in registers, where `pmavae.ss2d` writes each of them to memory for all four
directions. exp and log are polynomials (relative error 3e-7), because those of the C library are not
vectorised.

Raises ImportError where `pmavae.scan.cpu` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic
from torch import Tensor

from pmavae.scan.cpu import compiled, follow_torch_threads

DIRECTIONS = 4
LANES = 32  # channels of a task; tasks share nothing
CHUNK_BYTES = 1 << 20  # of the step sizes that are there at a time, of some lines of the picture

# Not "reassoc", which would take the rounding of _exp apart.
_FAST = {"contract", "nnan", "ninf", "nsz"}
_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND = np.float32(12582912.0)  # 1.5 · 2²³: adding it leaves the nearest integer in the low bits
_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_SMALLEST = np.float32(-87.0)  # of an exponent, whose result is a normal float32
_E2, _E3, _E4, _E5, _E6 = (np.float32(1 / n) for n in (2, 6, 24, 120, 720))
_L3, _L5, _L7, _L9, _L11 = (np.float32(1 / n) for n in (3, 5, 7, 9, 11))


@intrinsic
def _power_of_two(typing_context: Any, shifted: Any) -> Any:
    """2ⁿ for an integer n from −126 to 127, given as the float32 n + _ROUND."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(32)
        bits = builder.shl(builder.bitcast(arguments[0], integer), ir.Constant(integer, 23))
        return builder.bitcast(builder.add(bits, ir.Constant(integer, 0x3F800000)), ir.FloatType())

    return types.float32(types.float32), generate


@njit(inline="always", fastmath=_FAST)
def _exp(x):  # type: ignore[no-untyped-def]
    """exp of a float32 from −∞ to 0: 2ⁿ times a polynomial of what is left."""
    x = max(x, _SMALLEST)
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    f = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _ONE + f * (_ONE + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return p * _power_of_two(shifted)


@njit(inline="always", fastmath=_FAST)
def _softplus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)) without overflow; the logarithm by the series of the inverse hyperbolic tangent."""
    t = _exp(-abs(x))
    s = t / (_TWO + t)
    s2 = s * s
    log = _TWO * s * (_ONE + s2 * (_L3 + s2 * (_L5 + s2 * (_L7 + s2 * (_L9 + s2 * _L11)))))
    return max(x, _ZERO) + log


# Arrays are flat and indices unsigned: signed ones may count from the end, and LLVM does not vectorise them.


@compiled(fastmath=_FAST)
def _add_direction(u, raw, reads, bias, rate, y, state, shape, direction, first_step, steps):  # type: ignore[no-untyped-def]
    batch, height, width, channels = shape
    length = height * width
    groups = (channels + LANES - 1) // LANES
    for task in prange(batch * groups):
        item = task // groups
        first = task % groups * LANES
        count = np.uintp(min(LANES, channels - first))
        lane = np.uintp(first)
        carried = np.uintp(item * channels + first)
        h = np.zeros(LANES, np.float32)
        for m in range(count):
            h[m] = state[carried + m]
        for step in range(steps):
            near = steps - 1 - step if direction >= 2 else step
            here = first_step + near
            if direction % 2 == 1:
                here = (here % height) * width + here // height
            at = np.uintp((item * length + here) * channels + first)
            pixel = item * steps + near
            raw_at = np.uintp(pixel * channels + first)
            drive, read = reads[2 * pixel], reads[2 * pixel + 1]
            for m in range(count):
                delta = _softplus(raw[raw_at + m] + bias[lane + m])
                h[m] = _exp(-(delta * rate[lane + m])) * h[m] + delta * u[at + m] * drive
                y[at + m] += h[m] * read
        for m in range(count):
            state[carried + m] = h[m]


def selective_scan(
    u: Tensor,
    projected: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    rate: Tensor,
    skip: Tensor,
    *,
    out: Tensor | None = None,
    done: Callable[[int], None] | None = None,
) -> Tensor:
    """The sum over four directions, (B, H, W, C), of scans of u (B, H, W, C), with one state a channel.

    All float32 on the CPU. projected: (B, H, W, 4, R + 2), for each direction the low-rank step sizes, B and
    C. dt_proj: (4, C, R). dt_bias: (4, C). rate: −A, (4, C), above 0. skip: the sum of D, (C,).

    out: what the sum is put into, with any values. done: told how many bytes of maps were read or written.
    """
    follow_torch_threads()
    u = u.contiguous()
    y = torch.empty_like(u) if out is None else out
    _multiply(u, skip, y, done)
    for direction in range(DIRECTIONS):
        own = projected[..., direction, :]  # (B, H, W, R + 2)
        _add_in_chunks(
            u,
            own.transpose(1, 2) if direction % 2 else own,
            dt_proj[direction],
            dt_bias[direction],
            rate[direction],
            y,
            direction,
            done,
        )
    return y


def _multiply(u: Tensor, skip: Tensor, y: Tensor, done: Callable[[int], None] | None) -> None:
    """Put u (B, H, W, C) times skip (C,) into y, some lines at a time."""
    at_once = max(1, CHUNK_BYTES // (u[:, :1].numel() * 4))
    for part, result in zip(u.split(at_once, dim=1), y.split(at_once, dim=1), strict=True):
        torch.mul(part, skip, out=result)
        if done:
            done(2 * part.numel() * 4)


def _add_in_chunks(
    u: Tensor,
    own: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    rate: Tensor,
    y: Tensor,
    direction: int,
    done: Callable[[int], None] | None,
) -> None:
    """Add the scan of one direction to y, with the step sizes of some lines at a time.

    own: (B, lines, steps of a line, R + 2) in the order in which the direction goes, or goes back.
    """
    rank = dt_proj.shape[1]
    (batch, lines, line), channels = own.shape[:3], u.shape[-1]
    at_once = max(1, CHUNK_BYTES // (batch * line * channels * 4))
    state = torch.zeros(batch * channels)
    starts = range(0, lines, at_once)
    for start in reversed(starts) if direction >= 2 else starts:
        part = own[:, start : start + at_once].flatten(0, 2)  # (B · steps, R + 2)
        raw = part[:, :rank] @ dt_proj.t()
        arrays = (u, raw, part[:, rank:], dt_bias, rate, y, state)
        flat = (x.contiguous().view(-1).numpy() for x in arrays)
        steps = part.shape[0] // batch
        _add_direction(*flat, tuple(u.shape), direction, start * line, steps)
        if done:
            done(2 * part.shape[0] * channels * 4)
