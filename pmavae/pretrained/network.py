"""A network that pmavae does not know by itself: that of a plugin's task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pmavae.errors import WeightsError
from pmavae.network_config import MAX_NUMBER, NetworkConfig, is_settings
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.weightless import weightless
from pmavae.pretrained.weights import (
    AnyConfig,
    Shapes,
    load_weights,
    named,
    resolve_weights,
    save_folder,
    shapes_of,
    wrong_task,
)

Builder = Callable[[Mapping[str, Any]], nn.Module]  # an untrained network, from its settings


class TaskNetwork(nn.Module):
    """A plugin's network, and what its weights file says of it; the file has the names of the network."""

    def __init__(self, network: nn.Module, config: NetworkConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.weights_id = "untrained"
        self.weights_sha256 = ""

    @classmethod
    def build(cls, config: NetworkConfig, build: Builder, source: str) -> TaskNetwork:
        """An untrained network; raises WeightsError, naming the source of the settings, if there is none."""
        if not is_settings(config.settings):
            raise WeightsError(
                f"{source} has settings that no weights file can hold: use names with words, truth values "
                f"and numbers, whole ones from 0 to {MAX_NUMBER}"
            )
        try:
            network = build(dict(config.settings))
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{source} has settings from which task {config.task} makes no network "
                f"({type(error).__name__}: {error}): use the version of the plugin that they are for"
            ) from error
        if not isinstance(network, nn.Module) or not any(True for _ in network.parameters()):
            raise WeightsError(
                f"task {config.task} made {type(network).__name__} of the settings of {source}, which is no "
                "torch network with parameters: repair its build_network"
            )
        return cls(network, config)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, task: str, build: Builder, index: WeightsIndex | None = None
    ) -> TaskNetwork:
        """Load a manifest id, a preset's weights for a task, a weights file, or a folder with one.

        The network is on the CPU in float32 and in evaluation mode. Raises WeightsError, in one sentence,
        where the weights are missing, damaged, or of another task.
        """
        path, entry = resolve_weights(name_or_path, task, index)
        made: list[TaskNetwork] = []

        def shapes(config: AnyConfig) -> Shapes:
            if not isinstance(config, NetworkConfig) or config.task != task:
                raise wrong_task(path, config, task)
            try:
                with weightless():
                    return shapes_of(build(dict(config.settings)))
            except Exception:
                # Some networks cannot be made without memory; those that cannot be made at all say so here.
                made.append(cls.build(config, build, str(path)))
                return shapes_of(made[0])

        loaded = load_weights(path, entry, shapes)
        # A buffer that is in no state dict has its values from the constructor, and a count its own dtype.
        model = made[0] if made else cls.build(cast(NetworkConfig, loaded.config), build, str(path))
        model.load_state_dict(loaded.state)
        return named(model, loaded)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """That of the network."""
        state: dict[str, Any] = self.network.state_dict(*args, **options)
        return state

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Into the network."""
        return self.network.load_state_dict(*args, **options)

    def save_pretrained(self, folder: str | Path, weights_id: str | None = None) -> Path:
        """Write `model.safetensors` (fp16) into the folder; returns its path."""
        return save_folder(folder, self.state_dict(), self.config, weights_id or self.weights_id)
