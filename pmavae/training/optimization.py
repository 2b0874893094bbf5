"""What the optimizer is given, and how precisely its gradients are computed."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from pmavae.training.config import TrainConfig
from pmavae.training.models import Model
from pmavae.training.processes import Processes

LINEAR = ("encoder.linear_", "decoder.lapped_")


def parameter_groups(model: Model, config: TrainConfig) -> list[dict[str, Any]]:
    """All parameters by rate and weight decay.

    No decay for biases, norms, linear maps, A_log and D; the linear maps learn at a rate of their own.
    """
    optimizer = config.optimizer
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
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
