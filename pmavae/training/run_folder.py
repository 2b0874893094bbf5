"""A run on disk: its folder, its configuration, and checkpoints that are there whole or not at all.

checkpoints/step-00000500/model.safetensors   the averaged weights (fp32), usable as any weights
                          state.safetensors   weights being trained, optimizers
                          state.json          step, progress, counters
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pmavae.errors import PMAVAEError
from pmavae.files.tensors import write_atomically
from pmavae.pretrained.network import Pretrained
from pmavae.pretrained.weights import save_folder
from pmavae.training.config import ConfigError, TrainConfig, change, config_from_dict, duration, read_config
from pmavae.training.objectives.base import Objective
from pmavae.training.phases import OBJECTIVES, Phase, default_phases
from pmavae.training.plugin import Training
from pmavae.training.schedule import position

PREFIX = "step-"


class CheckpointError(PMAVAEError):
    """A checkpoint that cannot be written or read."""


@dataclass
class TrainingState:
    """What a run needs to go on: weights, their average, optimizers, and plain numbers."""

    model: Pretrained
    average: Pretrained
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
        average = state.average
        save_folder(partial, average.state_dict(), average.config, weights_id, torch.float32)
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


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def previews(self) -> Path:
        return self.path / "previews"

    @property
    def cache(self) -> Path:
        return self.path / "pictures.u8"

    def resume_point(self) -> Path | None:
        """The newest finished checkpoint."""
        return next(reversed(checkpoints(self.checkpoints)), None) if self.checkpoints.is_dir() else None

    def save_config(self, config: TrainConfig) -> None:
        """Write the resolved configuration, which `--config` reads back."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.config, text.encode(), error=ConfigError)


def resolve_config(
    folder: RunFolder,
    *,
    resumed: bool,
    branched_from: Path | None = None,
    file: Path | None,
    flags: dict[str, Any],
    settings: list[str],
    on_cpu: bool,
    trainings: Mapping[str, Training] = MappingProxyType({}),
) -> TrainConfig:
    """What this session works with: the defaults, or the run that is resumed, changed by the file, then by
    the flags, then by the settings.

    A run that is `branched_from` a checkpoint of another begins with that run's configuration, and a single
    phase in which the rate falls. `trainings` are those of plugins. Raises ConfigError for what cannot be, or
    for a preset other than that of the resumed run.
    """
    data = read_config(folder.config) if resumed else {}
    if branched_from is not None and not resumed:
        data = _branch(branched_from)
    before = data.get("task", "base"), data.get("preset")
    if file is not None:
        data |= read_config(file)
    network = flags.get("network")
    data |= {name: value for name, value in flags.items() if value and name != "network"}
    if flags.get("time_limit"):
        data["steps"] = 0
    if "phases" not in data:
        data["phases"] = [asdict(phase) for phase in _phases(data.get("task", "base"), on_cpu, trainings)]
    if network:
        change(data, f"loss.network={network}")
    for setting in settings:
        change(data, setting)
    _check_task(data.get("task", "base"), trainings)
    config = config_from_dict(data)
    training = trainings.get(config.task)
    if training is not None and config.preset not in training.presets:
        raise ConfigError(
            f"training {config.task} has no preset {config.preset}: "
            f"use --preset {' or '.join(training.presets)}"
        )
    if resumed and (config.task, config.preset) != before:
        was, wanted = (
            f"task {task}, preset {preset}" for task, preset in (before, (config.task, config.preset))
        )
        raise ConfigError(f"{folder.path} is a run of {was}, not of {wanted}: choose another --out")
    return config


def _branch(checkpoint: Path) -> dict[str, Any]:
    """The settings of a run that goes down to nothing from a checkpoint, whose run goes on at its rate."""
    data = read_config(checkpoint.parent.parent / "config.json")
    config = config_from_dict(data)
    numbers = read_config(checkpoint / "state.json")
    clock = numbers["step"] - numbers.get("first_step", 0), config.steps
    done, whole = clock if config.steps else (numbers["elapsed"], duration(config.time_limit))
    phase = position(config.phases, min(1.0, done / whole)).phase
    return data | {"phases": [asdict(replace(phase, share=1.0, warmup=0.0, decay=1.0))], "init_from": ""}


def _phases(task: Any, on_cpu: bool, trainings: Mapping[str, Training]) -> Sequence[Phase]:
    """Those of a run that brings none; those of the autoencoder for a task that there is no training for."""
    if not isinstance(task, str):
        task = "base"  # refused with the rest of the configuration
    if task in trainings:
        return [replace(phase, objective="plugin") for phase in trainings[task].phases]
    return default_phases(task if task in OBJECTIVES else "base", on_cpu)


def _check_task(task: Any, trainings: Mapping[str, Training]) -> None:
    known = [*OBJECTIVES, *trainings]
    if task not in known:
        raise ConfigError(
            f"there is no training for task {task!r:.60}: use one of {', '.join(known)}, or install the "
            "plugin that brings it"
        )


def usable_phases(
    config: TrainConfig, objective: Objective[Any, Any], smallest_side: int
) -> tuple[TrainConfig, list[str]]:
    """Leave out the phases that cannot be trained, with the reason of each.

    `smallest_side` is the smaller side, in pixels, of the picture where that is largest: no crop can be
    larger. Raises ConfigError where no phase is left.
    """
    kept: list[Phase] = []
    reasons = []
    for phase in config.phases:
        reason = objective.refusal(phase)
        if (needed := objective.largest_crop(phase)) > smallest_side:
            reason = f"no picture has {needed} px on both sides"
        if reason:
            reasons.append(f"phase {phase.name} is left out: {reason}")
        else:
            kept.append(phase)
    if not kept:
        raise ConfigError(f"{'; '.join(reasons)}; give larger pictures, or smaller crops with --set")
    return replace(config, phases=tuple(kept)), reasons
