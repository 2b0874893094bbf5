"""A run on disk: a folder for each checkpoint, which is there whole or not at all.

checkpoints/step-00000500/model.safetensors   the averaged weights (fp32), usable as any weights
                          state.safetensors   weights being trained, optimizers
                          state.json          step, progress, counters
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pmavae.errors import PMAVAEError
from pmavae.pretrained.weights import save_weights
from pmavae.training.objectives.models import Model

PREFIX = "step-"


class CheckpointError(PMAVAEError):
    """A checkpoint that cannot be written or read."""


@dataclass
class TrainingState:
    """What a run needs to go on: weights, their average, optimizers, and plain numbers."""

    model: Model
    average: Model
    modules: dict[str, nn.Module]  # what else is trained
    optimizers: dict[str, torch.optim.Optimizer]

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the average, by name."""
        named = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for name, module in self.modules.items():
            named |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                named |= {f"{name}.{index}.{k}": v for k, v in slots.items()}
        return {k: v.detach().contiguous() for k, v in named.items()}

    def restore(self, tensors: dict[str, Tensor], average: dict[str, Tensor]) -> None:
        """The inverse of `tensors`; raises RuntimeError or KeyError for those of another architecture."""
        self.model.load_state_dict(_below("model.", tensors))
        self.average.load_state_dict(average)
        for name, module in self.modules.items():
            module.load_state_dict(_below(f"{name}.", tensors))
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(f"{name}.", tensors).items():
                index, slot = key.split(".")
                parameter = parameters[int(index)]
                if value.shape == parameter.shape:
                    # A kernel rounds differently in another memory layout: the parameter's is what it had.
                    value = torch.empty_like(parameter.detach()).copy_(value)
                slots.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({"state": slots, "param_groups": groups})


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / "state.json").is_file())


def save_checkpoint(
    folder: Path, state: TrainingState, numbers: dict[str, Any], weights_id: str, keep: int
) -> Path:
    """Write a checkpoint beside the others, then delete all but the newest `keep`.

    It is written to a hidden folder, flushed to the disk and renamed. Raises CheckpointError where that
    fails, for one because the disk is full; the earlier checkpoints are then as they were.
    """
    path = folder / f"{PREFIX}{numbers['step']:08d}"
    partial = folder / f".{path.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_weights(
            partial / "model.safetensors",
            state.average.state_dict(),
            state.average.config,
            weights_id,
            torch.float32,
        )
        save_file(state.tensors(), partial / "state.safetensors")
        (partial / "state.json").write_text(json.dumps(numbers, indent=2))
        for file in partial.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    except (OSError, SafetensorError, PMAVAEError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path} was not written ({reason}); free some space and run again, "
            "which continues from the checkpoint before"
        ) from None
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def load_checkpoint(path: Path, state: TrainingState) -> dict[str, Any]:
    """Continue from `save_checkpoint`; returns its numbers.

    Raises CheckpointError, naming the folder, where it is damaged or of another architecture.
    """
    try:
        numbers: dict[str, Any] = json.loads((path / "state.json").read_text())
        average = load_file(path / "model.safetensors")
        state.restore(load_file(path / "state.safetensors"), average)
    except (OSError, SafetensorError, ValueError, KeyError, IndexError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(
            f"{path} cannot be continued from ({reason}); delete this folder to continue from the one before"
        ) from None
    return numbers


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
