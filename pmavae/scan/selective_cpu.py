"""The selective scan of SS2D on the CPU, compiled by Numba: for its value alone, and with a gradient.

In plain torch (`pmavae.ss2d`) the scan is a dozen passes over tensors of four directions, each written to
memory. For its value alone, decays, drives and states stay in registers. For a gradient a position is visited
once forwards and once backwards for each direction; step sizes, decays and states are kept, and the rest is
computed again. exp and log are polynomials (relative error 3e-7), because those of the C library are not
vectorised.

Raises ImportError where `pmavae.scan.cpu` does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic
from torch import Tensor, library

from pmavae.scan.cpu import compiled, follow_torch_threads, position
from pmavae.scan.operator import DIRECTIONS

LANES = 32  # channels of a task for the value alone; tasks share nothing
GRADIENT_LANES = 64  # with a gradient: a row of four AVX-512 registers; tasks share only sums over channels
CHUNK_BYTES = 1 << 20  # of the step sizes that are there at a time, of some lines of the picture

_FAST = {"contract", "nnan", "ninf", "nsz"}  # with "reassoc", the rounding of _exp would be taken apart
_SUMS = _FAST | {"reassoc"}  # a sum over channels is vectorised only where its order is free
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
    (batch, _, _, channels), rank = u.shape, dt_proj.shape[2]
    at_once = max(1, CHUNK_BYTES // (u[:, :1].numel() * 4))
    for part, result in zip(u.split(at_once, dim=1), y.split(at_once, dim=1), strict=True):
        torch.mul(part, skip, out=result)
        if done:
            done(2 * part.numel() * 4)
    for direction in range(DIRECTIONS):
        own = projected[..., direction, :]
        own = own.transpose(1, 2) if direction % 2 else own  # (B, lines, steps of a line, R + 2)
        lines, line = own.shape[1:3]
        at_once = max(1, CHUNK_BYTES // (batch * line * channels * 4))
        state = torch.zeros(batch * channels)
        starts = range(0, lines, at_once)
        for start in reversed(starts) if direction >= 2 else starts:
            part = own[:, start : start + at_once].flatten(0, 2)  # (B · steps, R + 2)
            raw = part[:, :rank] @ dt_proj[direction].t()
            arrays = (u, raw, part[:, rank:], dt_bias[direction], rate[direction], y, state)
            flat = (x.contiguous().view(-1).numpy() for x in arrays)
            steps = part.shape[0] // batch
            _add_direction(*flat, tuple(u.shape), direction, start * line, steps)
            if done:
                done(2 * part.shape[0] * channels * 4)
    return y


# The rows are taken as slices because LLVM vectorises a loop over slices from zero.


@compiled(fastmath=_FAST)
def _forward(u, raw, reads, bias, rate, skip, y, h, delta, decay, height, width):  # type: ignore[no-untyped-def]
    batch, length, channels = u.shape
    groups = (channels + GRADIENT_LANES - 1) // GRADIENT_LANES
    for task in prange(batch * groups):
        item, first = task // groups, task % groups * GRADIENT_LANES
        last = min(channels, first + GRADIENT_LANES)
        count = last - first
        for p in range(length):
            y_p, u_p = y[item, p, first:last], u[item, p, first:last]
            for m in range(count):
                y_p[m] = u_p[m] * skip[first + m]
        for d in range(DIRECTIONS):
            bias_d, rate_d = bias[d, first:last], rate[d, first:last]
            for p in range(length):  # apart from the recurrence: nothing here waits for the step before
                raw_p, delta_p = raw[d, item, p, first:last], delta[d, item, p, first:last]
                decay_p = decay[d, item, p, first:last]
                for m in range(count):
                    step_size = _softplus(raw_p[m] + bias_d[m])
                    delta_p[m] = step_size
                    decay_p[m] = _exp(-(step_size * rate_d[m]))
            before = position(0, d, height, width)
            for step in range(length):
                p = position(step, d, height, width)
                drive, read = reads[item, p, 2 * d], reads[item, p, 2 * d + 1]
                delta_p, decay_p = delta[d, item, p, first:last], decay[d, item, p, first:last]
                u_p, y_p = u[item, p, first:last], y[item, p, first:last]
                h_p, h_before = h[d, item, p, first:last], h[d, item, before, first:last]
                if step == 0:
                    for m in range(count):
                        h_p[m] = delta_p[m] * u_p[m] * drive
                else:
                    for m in range(count):
                        h_p[m] = decay_p[m] * h_before[m] + delta_p[m] * u_p[m] * drive
                for m in range(count):
                    y_p[m] += h_p[m] * read
                before = p


@njit(fastmath=_FAST)
def _slopes(delta, out):  # type: ignore[no-untyped-def]
    """The derivative of softplus where its value is delta."""
    for m in range(len(out)):
        out[m] = _ONE - _exp(-delta[m])


@compiled(fastmath=_SUMS)
def _backward(given, kept, grad_u, grad_raw, grad_reads, grad_rate, height, width):  # type: ignore[no-untyped-def]
    (grad_y, u, reads, rate, skip), (h, delta, decay) = given, kept
    batch, length, channels = u.shape
    groups = (channels + GRADIENT_LANES - 1) // GRADIENT_LANES
    nothing = np.zeros(GRADIENT_LANES, np.float32)
    for task in prange(batch * groups):
        item, group = task // groups, task % groups
        first = group * GRADIENT_LANES
        last = min(channels, first + GRADIENT_LANES)
        count = last - first
        carried, slopes = np.zeros(GRADIENT_LANES, np.float32), np.zeros(count, np.float32)
        for p in range(length):
            grad_u_p, grad_y_p = grad_u[item, p, first:last], grad_y[item, p, first:last]
            for m in range(count):
                grad_u_p[m] = grad_y_p[m] * skip[first + m]
        for d in range(DIRECTIONS):
            rate_d, grad_rate_d = rate[d, first:last], grad_rate[item, d, first:last]
            for m in range(count):
                carried[m] = _ZERO
                grad_rate_d[m] = _ZERO
            for step in range(length - 1, -1, -1):
                p = position(step, d, height, width)
                h_before = nothing
                if step > 0:
                    h_before = h[d, item, position(step - 1, d, height, width), first:last]
                drive, read = reads[item, p, 2 * d], reads[item, p, 2 * d + 1]
                delta_p, decay_p = delta[d, item, p, first:last], decay[d, item, p, first:last]
                u_p, g_p, h_p = u[item, p, first:last], grad_y[item, p, first:last], h[d, item, p, first:last]
                grad_u_p, grad_raw_p = grad_u[item, p, first:last], grad_raw[d, item, p, first:last]
                of_drive, of_read = _ZERO, _ZERO
                for m in range(count):
                    of_read += g_p[m] * h_p[m]
                    of_drive += (g_p[m] * read + carried[m]) * delta_p[m] * u_p[m]
                _slopes(delta_p, slopes)
                for m in range(count):
                    g = g_p[m] * read + carried[m]  # all of the gradient that reaches this state
                    kept = decay_p[m] * g
                    carried[m] = kept
                    fall = kept * h_before[m]
                    grad_u_p[m] += g * delta_p[m] * drive
                    grad_raw_p[m] = (g * u_p[m] * drive - fall * rate_d[m]) * slopes[m]
                    grad_rate_d[m] -= fall * delta_p[m]
                grad_reads[group, item, p, 2 * d] = of_drive
                grad_reads[group, item, p, 2 * d + 1] = of_read


@library.custom_op("pmavae::selective_scan", mutates_args=())
def _scan(
    u: Tensor, raw: Tensor, reads: Tensor, bias: Tensor, rate: Tensor, skip: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y (B, H, W, C), and what the gradient needs: states, step sizes and decays, (4, B, H·W, C) each.

    u (B, H, W, C), raw (4, B, H·W, C), reads (B, H·W, 8), bias and rate (4, C), skip (C,).
    """
    follow_torch_threads()
    height, width = u.shape[1:3]
    u, raw, reads, bias, rate, skip = (x.contiguous() for x in (u, raw, reads, bias, rate, skip))
    y, h, delta, decay = torch.empty_like(u), *(torch.empty_like(raw) for _ in range(3))
    arrays: Any = (u.flatten(1, 2), raw, reads, bias, rate, skip, y.flatten(1, 2), h, delta, decay)
    _forward(*(x.numpy() for x in arrays), height, width)
    return y, h, delta, decay


@library.custom_op("pmavae::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    u: Tensor,
    reads: Tensor,
    rate: Tensor,
    skip: Tensor,
    h: Tensor,
    delta: Tensor,
    decay: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, raw, reads and rate."""
    follow_torch_threads()
    batch, height, width, channels = u.shape
    grad_y, u, reads, rate, skip = (x.contiguous() for x in (grad_y, u, reads, rate, skip))
    groups = -(-channels // GRADIENT_LANES)
    grad_u, grad_raw = torch.empty_like(u), torch.empty_like(h)
    grad_reads = reads.new_empty(groups, *reads.shape)
    grad_rate = rate.new_empty(batch, *rate.shape)
    given = tuple(x.numpy() for x in (grad_y.flatten(1, 2), u.flatten(1, 2), reads, rate, skip))
    kept = tuple(x.numpy() for x in (h, delta, decay))
    results = (x.numpy() for x in (grad_u.flatten(1, 2), grad_raw, grad_reads, grad_rate))
    _backward(given, kept, *results, height, width)
    return grad_u, grad_raw, grad_reads.sum(0), grad_rate.sum(0)


@_scan.register_fake
def _(u: Tensor, raw: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return u.new_empty(u.shape), *(raw.new_empty(raw.shape) for _ in range(3))  # type: ignore[return-value]


@_scan_backward.register_fake
def _(
    grad_y: Tensor, u: Tensor, reads: Tensor, rate: Tensor, skip: Tensor, h: Tensor, *others: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (u, h, reads, rate))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    u, _, reads, _, rate, skip = inputs
    ctx.save_for_backward(u, reads, rate, skip, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 6
    u = ctx.saved_tensors[0]
    grad_u, grad_raw, grad_reads, grad_rate = _scan_backward(grad_y, *ctx.saved_tensors)
    return grad_u, grad_raw, grad_reads, grad_raw.sum((1, 2)), grad_rate, (grad_y * u).sum((0, 1, 2))


_scan.register_autograd(_gradients, setup_context=_keep)


def differentiable_scan(
    u: Tensor, projected: Tensor, dt_proj: Tensor, dt_bias: Tensor, rate: Tensor, skip: Tensor
) -> Tensor:
    """As `selective_scan`, with a gradient for every argument."""
    rank = dt_proj.shape[-1]
    flat = projected.flatten(0, 2)  # (B·H·W, 4, R + 2)
    raw = torch.bmm(flat[..., :rank].transpose(0, 1), dt_proj.transpose(1, 2).to(u.dtype))  # (4, B·H·W, C)
    raw = raw.unflatten(1, (u.shape[0], -1))
    reads = projected[..., rank:].flatten(3).flatten(1, 2)  # (B, H·W, 8): B and C of each direction
    return _scan(u, raw, reads, *(x.to(u.dtype) for x in (dt_bias, rate, skip)))[0]
