"""Muon: momentum as a matrix, made orthogonal before it is a step (Jordan 2024, arXiv 2502.16982)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# A quintic that takes singular values from (0, 1] to about 1, by Jordan: few steps, since "about" is enough.
_A, _B, _C = 3.4445, -4.7750, 2.0315
RMS = 0.2  # of an update, times the rate: that of AdamW, so both live with one rate


class Muon(torch.optim.Optimizer):
    """For matrices and kernels: a parameter of more than two axes is (first, product of the others).

    Rows of one shape are made orthogonal together, because a step is many small matrix products otherwise.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | list[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        iterations: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.flatten(1).shape), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                wanted = torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
                if rows > columns:
                    wanted = wanted.transpose(1, 2)
                updates = orthogonal(wanted, group["iterations"])
                if rows > columns:
                    updates = updates.transpose(1, 2)
                scale = RMS * max(rows, columns) ** 0.5 * group["lr"]
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-scale)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's: the average of gradients, with the newest once more, as a matrix."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum_buffer"]
        average.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum).flatten(1)


def orthogonal(x: Tensor, iterations: int = 5) -> Tensor:
    """Matrices (N, rows, columns), rows ≤ columns, with the same singular vectors and values of about 1.

    Newton-Schulz in bfloat16; the result is float32.
    """
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-9)).bfloat16()
    for _ in range(iterations):
        square = x @ x.transpose(1, 2)
        x = _A * x + (_B * square + _C * (square @ square)) @ x
    return x.float()
