"""The optimizers of a run, what each of them is given, and how precisely gradients are computed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import torch
from torch import nn

from pmavae.training.config import TrainConfig
from pmavae.training.distributed import Processes
from pmavae.training.muon import Muon
from pmavae.training.objectives.models import Model

LINEAR = ("encoder.linear_", "decoder.lapped_")
# What Muon leaves to AdamW: the scan's own parameters, and layers that end in latents or pixels, whose
# singular values mean something.
NO_MATRIX = ("x_proj", "dt_proj", "A_log", "out.0", "paint_out.0", "base_head", "detail_head", *LINEAR)
SMALLEST_MATRIX = 12  # rows or columns, whichever are fewer: depthwise kernels are no matrices


def make_optimizers(model: Model, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
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


def parameter_groups(model: Model, config: TrainConfig, taken: Collection[str] = ()) -> list[dict[str, Any]]:
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
