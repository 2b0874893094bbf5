"""The models of one run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import click
import torch
from torch import nn

from pmavae.config import PRESETS
from pmavae.errors import WeightsError
from pmavae.inference.offload import Budget
from pmavae.network_configs import FEATURES_TASK, RESTORATIONS
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.network import CODEC_BOUND, Builder, TaskNetwork, load_task_model, network_class
from pmavae.pretrained.resolve import Found
from pmavae_cli.console import Console
from pmavae_cli.options import RunOptions, budget
from pmavae_cli.progress import find_weights

if TYPE_CHECKING:
    from pmavae import PMAVAE
    from pmavae.style_transfer.features import FeatureNetwork


@dataclass(frozen=True)
class RunModels:
    """Each is loaded when it is first used."""

    options: RunOptions
    console: Console
    task_weights: str | None  # the task whose weights --weights names; None for the autoencoder's
    device: torch.device
    index: WeightsIndex  # the weights that have a name
    build_network: Builder | None  # what makes the network of a task that is not pmavae's own

    @cached_property
    def model(self) -> PMAVAE:
        """The autoencoder. Raises WeightsError."""
        from pmavae import PMAVAE  # a task of pixels needs none

        asked = self.options.weights if self.task_weights is None else None
        name = asked or self.options.preset
        model = PMAVAE.from_pretrained(self._found(name, "base"), budget=self._budget)
        self._check_preset(name, model.config.preset)
        self._tell(model.weights_id)
        return model.to(self.device)

    @cached_property
    def task_model(self) -> nn.Module:
        """The network of the task. Raises WeightsError, and ValueError for a task without."""
        task = self.task_weights
        if task is None:
            raise ValueError("the task names no weights of its own")
        name = self.options.weights or self.options.preset
        presets = self.index.presets(task)
        if name in PRESETS and name not in presets:
            if task in CODEC_BOUND or not presets:
                self._refuse_preset(name, task)
            other = "tiny" if "tiny" in presets else presets[0]
            self.console.detail(f"{task} has no weights of preset {name}, those of {other} are used")
            name = other
        options: dict[str, Any] = {"budget": self._budget} if task in RESTORATIONS else {}
        model = load_task_model(self._found(name, task), task, self.build_network, **options)
        if self.options.weights:
            self._check_preset(name, model.config.preset)
        if task in CODEC_BOUND:
            model.check_codec(self.model)
        self._tell(model.weights_id)
        network: nn.Module = model.network if isinstance(model, TaskNetwork) else model
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def features(self) -> FeatureNetwork:
        """The network that compares pictures. Raises WeightsError."""
        network: FeatureNetwork = network_class(FEATURES_TASK).from_pretrained()
        return network.to(self.device)

    @property
    def _budget(self) -> Budget:
        asked, usual = self.options.max_memory, Budget()
        return Budget(strip=budget(asked, usual.strip), tile=budget(asked, usual.tile))

    def _found(self, name: str, task: str) -> Found:
        return find_weights(name, task, self.index, self.console, offline=self.options.offline)

    def _refuse_preset(self, name: str, task: str) -> NoReturn:
        others = self.index.presets(task)
        if not others:
            raise WeightsError(
                f"no weights for {task} are installed: give some with --weights, as "
                f"pmavae train --task {task} makes them"
            )
        remedy = f"use --preset {' or '.join(others)}"
        raise WeightsError(
            f"preset {name} has no weights for {task}, and those of another preset do not fit its latents: "
            f"{remedy}, or give some with --weights"
        )

    def _check_preset(self, name: str, found: str) -> None:
        if self.options.preset_given and found != self.options.preset:
            raise WeightsError(
                f"{name} has weights of preset {found}, not {self.options.preset}: "
                "leave out --preset or --weights"
            )

    def _tell(self, weights_id: str) -> None:
        self.console.detail(
            f"weights {weights_id} on {self.device}, {torch.get_num_threads()} threads",
            once=f"weights {weights_id}",
        )


def choose_device(name: str) -> torch.device:
    """The torch device of `--device`; raises click.UsageError for one that is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[name]:
        raise click.UsageError(f"--device {name}: torch finds no such device here; use --device cpu.")
    return torch.device(name)
