"""A training run on disk: one safetensors file with everything, replaced atomically."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass
class TrainingState:
    """What a run needs to go on: the model, its moving average, the optimizer, the step."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path, info: dict[str, Any]) -> None:
        """Write to a neighbour and rename: a killed run leaves the previous file whole."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in slots.items()}
        partial = path.with_suffix(".partial")
        metadata = {"step": str(self.step), "info": json.dumps(info)}
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from `save`; the optimizer must have the same parameters in the same order."""
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            self.step = int(file.metadata()["step"])
        self.model.load_state_dict(_below("model.", tensors))
        self.average.load_state_dict(_below("average.", tensors))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in _below("optimizer.", tensors).items():
            index, name = key.split(".")
            slots.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
