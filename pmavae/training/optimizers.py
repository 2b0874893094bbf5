"""The optimizers of a run: AdamW, and Muon for matrices; what each is given, in which precision."""

from collections.abc import Collection, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from pmavae.pretrained.network import Pretrained
from pmavae.training.config import TrainConfig
from pmavae.training.distributed import Processes

# A quintic that takes singular values from (0, 1] to about 1, by Jordan: few steps, since "about" is enough.
_A, _B, _C = 3.4445, -4.7750, 2.0315
RMS = 0.2  # of an update, times the rate: that of AdamW, so both live with one rate
LINEAR = ("encoder.linear_", "decoder.lapped_")
# What Muon leaves to AdamW: the scan's own parameters, and layers that end in latents or pixels, whose
# singular values mean something.
NO_MATRIX = ("x_proj", "dt_proj", "A_log", "out.0", "paint_out.0", "base_head", "detail_head", *LINEAR)
SMALLEST_MATRIX = 12  # rows or columns, whichever are fewer: depthwise kernels are no matrices


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


def make_optimizers(model: Pretrained, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """One or two by name; groups have a `scale`, by which their rate is that of the schedule times it."""
    chosen = config.optimizer
    taken = {n for n, p in model.named_parameters() if chosen.kind == "muon" and is_matrix(n, p)}
    # Fused: one pass over all parameters, and no Python for each of them.
    made: dict[str, torch.optim.Optimizer] = {
        "optimizer": torch.optim.AdamW(
            parameter_groups(model, config, taken),
            betas=(0.9, chosen.beta2),
            fused=model.device.type != "mps",
        )
    }
    if taken:
        matrices = [p for name, p in model.named_parameters() if name in taken]
        group = {"params": matrices, "scale": 1.0}
        made["muon"] = Muon([group], lr=0.0, weight_decay=chosen.weight_decay)
    return made


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains it: a matrix, or a dense kernel as one."""
    if parameter.dim() not in (2, 4) or min(parameter.flatten(1).shape) < SMALLEST_MATRIX:
        return False
    return not any(part in name for part in NO_MATRIX)


def parameter_groups(
    model: Pretrained, config: TrainConfig, taken: Collection[str] = ()
) -> list[dict[str, Any]]:
    """All parameters but those that are `taken`, by rate and weight decay.

    No decay for biases, norms, linear maps, A_log and D; the linear maps learn at a rate of their own.
    """
    optimizer = config.optimizer
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in taken:
            continue
        linear = name.startswith(LINEAR)
        exempt = linear or parameter.dim() < 2 or name.endswith(("A_log", ".D", "dt_bias"))
        key = (optimizer.linear_rate if linear else 1.0, 0.0 if exempt else optimizer.weight_decay)
        groups.setdefault(key, []).append(parameter)
    return [{"params": p, "scale": s, "weight_decay": d, "lr": 0.0} for (s, d), p in groups.items()]


def choose_precision(config: TrainConfig, processes: Processes) -> torch.dtype | None:
    """The dtype of autocast, None for none: what was asked for, or what the hardware is fast in."""
    asked = config.precision
    if asked == "auto" and processes.mixed_precision in ("bf16", "fp16"):
        asked = cast(Any, processes.mixed_precision)
    if asked == "auto" and processes.device.type == "cuda":
        # An older GPU is fast in fp16 only, and emulates bf16 slowly.
        asked = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif asked == "auto":
        fast = processes.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        asked = "bf16" if fast else "fp32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[asked]
