"""The directional scan in plain torch: what every kernel is tested against.

It runs on any device and dtype, one small tensor operation per step, and serves where no
compiled kernel can be loaded.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    """h[t] = a[t] * h[t-1] + b[t] with h[-1] = 0; all tensors (4, B, H, W, M)."""
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
