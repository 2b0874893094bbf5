"""The selective scan of SS2D on the CPU for training, compiled by Numba: one operator with a gradient.

In plain torch the scan is a dozen passes over tensors of four directions, each written to memory and most of
them kept for the backward pass. Here a position is visited once forwards and once backwards for each
direction; step sizes, decays and states are kept, and the rest is computed again.

Raises ImportError where `pmavae.scan.cpu` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor, library

from pmavae.scan.cpu import _position, compiled, follow_torch_threads
from pmavae.scan.selective_cpu import DIRECTIONS, _exp, _softplus

LANES = 64  # channels of a task: a row of four AVX-512 registers; tasks share nothing but sums over channels

_FAST = {"contract", "nnan", "ninf", "nsz"}  # with "reassoc", the rounding of _exp would be taken apart
_SUMS = _FAST | {"reassoc"}  # a sum over channels is vectorised only where its order is free
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


# The rows are taken as slices because LLVM vectorises a loop over slices from zero.


@compiled(fastmath=_FAST)
def _forward(u, raw, reads, bias, rate, skip, y, h, delta, decay, height, width):  # type: ignore[no-untyped-def]
    batch, length, channels = u.shape
    groups = (channels + LANES - 1) // LANES
    for task in prange(batch * groups):
        item, first = task // groups, task % groups * LANES
        last = min(channels, first + LANES)
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
            before = _position(0, d, height, width)
            for step in range(length):
                p = _position(step, d, height, width)
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
    groups = (channels + LANES - 1) // LANES
    nothing = np.zeros(LANES, np.float32)
    for task in prange(batch * groups):
        item, group = task // groups, task % groups
        first = group * LANES
        last = min(channels, first + LANES)
        count = last - first
        carried, slopes = np.zeros(LANES, np.float32), np.zeros(count, np.float32)
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
                p = _position(step, d, height, width)
                h_before = nothing
                if step > 0:
                    h_before = h[d, item, _position(step - 1, d, height, width), first:last]
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
    groups = -(-channels // LANES)
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


def selective_scan(
    u: Tensor, projected: Tensor, dt_proj: Tensor, dt_bias: Tensor, rate: Tensor, skip: Tensor
) -> Tensor:
    """As `selective_cpu.selective_scan`, with a gradient for every argument."""
    rank = dt_proj.shape[-1]
    flat = projected.flatten(0, 2)  # (B·H·W, 4, R + 2)
    raw = torch.bmm(flat[..., :rank].transpose(0, 1), dt_proj.transpose(1, 2).to(u.dtype))  # (4, B·H·W, C)
    raw = raw.unflatten(1, (u.shape[0], -1))
    reads = projected[..., rank:].flatten(3).flatten(1, 2)  # (B, H·W, 8): B and C of each direction
    y: Tensor = _scan(u, raw, reads, *(x.to(u.dtype) for x in (dt_bias, rate, skip)))[0]
    return y
