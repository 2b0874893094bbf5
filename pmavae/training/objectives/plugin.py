"""A network that is trained as a plugin says: see training/plugin.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmavae.config import BASE_STRIDE
from pmavae.errors import PMAVAEError
from pmavae.files.header import weights_header
from pmavae.network_configs import NetworkConfig
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.network import TaskNetwork
from pmavae.pretrained.resolve import resolve
from pmavae.training.objectives.reconstruction import Draws, Outcome
from pmavae.training.plugin import Batch, Example, Examples, Training


class PluginTrainingError(PMAVAEError):
    """A training of a plugin that does not do what a training has to."""


class PluginNetwork(TaskNetwork):
    """The network in training, with what trains it."""

    def __init__(self, network: nn.Module, config: NetworkConfig, plan: Training) -> None:
        super().__init__(network, config)
        self.plan = plan

    @classmethod
    def new(cls, plan: Training, preset: str, examples: Examples | None = None) -> PluginNetwork:
        """An untrained network. Raises WeightsError where the training has no sound settings for it."""
        settings = {**plan.network_settings(preset), **(examples.settings() if examples else {})}
        config = NetworkConfig(preset, plan.name, settings)
        made = TaskNetwork.build(config, plan.build_network, f"training {plan.name}")
        return cls(made.network, config, plan)

    @classmethod
    def started_from(
        cls,
        plan: Training,
        name_or_path: str | Path,
        index: WeightsIndex | None,
        preset: str,
        examples: Examples | None = None,
    ) -> PluginNetwork:
        """A network that goes on from weights, of this training or of another task. Raises WeightsError."""
        here = resolve(name_or_path, plan.name, index)
        config = (weights_header(here.path) or {}).get("config")
        task = config.get("task", "base") if isinstance(config, dict) else plan.name
        if task != plan.name:
            made = cls.new(plan, preset, examples)
            plan.start_from(made.network, here.path)
            return made
        found = TaskNetwork.from_pretrained(here, plan.name, plan.build_network)
        return cls(found.network, found.config, plan)

    def outcome(self, pictures: Tensor, draws: Draws, targets: Any = None) -> Outcome:
        """The loss of (B, 3, S, S) in [0, 1]; raises PluginTrainingError where it is none."""
        values = self.plan.loss(self.network, Batch(pictures, draws, targets))
        if not isinstance(values, Mapping) or not _is_scalar(values.get("loss")):
            raise PluginTrainingError(
                f'training {self.plan.name} returned no scalar tensor "loss": repair its method loss'
            )
        parts = {name: torch.as_tensor(value).detach() for name, value in values.items() if name != "loss"}
        return Outcome(values["loss"], pictures, pictures, parts)

    @torch.no_grad()
    def score(self, picture: Tensor | Example) -> dict[str, float]:
        """What the plugin says that a validation picture, (1, 3, H, W), is worth."""
        return dict(self.plan.score(self.network, self._alone(picture)))

    @torch.no_grad()
    def shown(self, picture: Tensor | Example) -> Sequence[Tensor]:
        """What the plugin shows of a validation picture, on the CPU; nothing where it has no previews."""
        return [x.float().cpu() for x in self.plan.preview(self.network, self._alone(picture))]

    def _alone(self, picture: Tensor | Example) -> Batch:
        draws = Draws(0, rows=1, first=0, count=1, device=self.device)
        if isinstance(picture, Example):
            return Batch(picture.picture.to(self.device), draws, picture.targets)
        height, width = (side // BASE_STRIDE * BASE_STRIDE for side in picture.shape[-2:])
        cut = picture[..., :height, :width].to(self.device)
        return Batch(cut, draws)


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0
