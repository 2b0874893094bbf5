"""A network that is trained as a plugin says: see training/plugin.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmavae.config import BASE_STRIDE
from pmavae.errors import PMAVAEError
from pmavae.files.header import weights_header
from pmavae.network_configs import NetworkConfig
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.network import TaskNetwork
from pmavae.pretrained.resolve import resolve
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import to_device
from pmavae.training.objectives.base import Draws, Objective, Outcome, blank, draws_of_one
from pmavae.training.phases import Phase
from pmavae.training.plugin import Batch, Example, Examples, Training

Drawn = tuple[NDArray[np.uint8], Any]  # (B, S, S, 3), and the targets of examples


class PluginTrainingError(PMAVAEError):
    """A training of a plugin that does not do what a training has to."""


def new_network(plan: Training, preset: str, examples: Examples | None = None) -> TaskNetwork:
    """An untrained network. Raises WeightsError where the training has no sound settings for it."""
    settings = {**plan.network_settings(preset), **(examples.settings() if examples else {})}
    config = NetworkConfig(preset, plan.name, settings)
    return TaskNetwork.build(config, plan.build_network, f"training {plan.name}")


class PluginObjective(Objective[TaskNetwork, Drawn]):
    """The network of a plugin's task, trained by its `plan`."""

    has_adversary = False

    def __init__(
        self,
        config: TrainConfig,
        index: WeightsIndex | None,
        plan: Training,
        examples: Examples | None = None,
    ) -> None:
        super().__init__(config, index)
        self.plan, self.examples = plan, examples

    def new(self) -> TaskNetwork:
        return new_network(self.plan, self.config.preset, self.examples)

    def load(self, weights: str) -> TaskNetwork:
        """Those of this training, or of another task that it can start from."""
        plan = self.plan
        found = resolve(weights, plan.name, self.index)
        config = (weights_header(found.path) or {}).get("config")
        task = config.get("task", "base") if isinstance(config, dict) else plan.name
        if task == plan.name:
            return TaskNetwork.from_pretrained(found, plan.name, plan.build_network)
        made = self.new()
        plan.start_from(made.network, found.path)
        return made

    def open(self, cache: Path) -> None:
        if self.examples is None:
            super().open(cache)

    def parts(self, model: TaskNetwork) -> tuple[nn.Module, ...]:
        return (model.network,)

    def choose(self, model: TaskNetwork, phase: Phase) -> None:
        """What it freezes stays frozen."""

    def draw(self, phase: Phase, *, step: int, first: int, count: int) -> Drawn:
        seed = self.config.seed
        if self.examples is not None:
            return self.examples.draw(phase.crop, seed=seed, step=step, first=first, count=count)
        return self.dataset.crops(count, phase.crop, seed=seed, step=step, first=first), None

    def loss(self, model: TaskNetwork, drawn: Drawn, draws: Draws, progress: float) -> Outcome:
        """Raises PluginTrainingError where the plugin makes none."""
        pictures = to_device(drawn[0], model.device)
        values = self.plan.loss(model.network, Batch(pictures, draws, drawn[1]))
        loss = values.get("loss") if isinstance(values, Mapping) else None
        if not isinstance(loss, Tensor) or loss.ndim:
            raise PluginTrainingError(
                f'training {self.plan.name} returned no scalar tensor "loss": repair its method loss'
            )
        parts = {name: torch.as_tensor(value).detach() for name, value in values.items() if name != "loss"}
        return Outcome(loss, pictures, pictures, parts)

    def probe(self, model: TaskNetwork, side: int, draws: Draws) -> Outcome:
        drawn: Drawn = blank(side), None
        if self.examples is not None:
            drawn = self.examples.draw(side, seed=0, step=0, first=0, count=1)
        return self.loss(model, drawn, draws, 1.0)

    def score(self, model: TaskNetwork, picture: Tensor | Example, number: int) -> Mapping[str, float]:
        return self.plan.score(model.network, _alone(picture, model.device))

    def show(self, model: TaskNetwork, pictures: Sequence[Tensor | Example], number: int) -> Sequence[Tensor]:
        shown = self.plan.preview(model.network, _alone(pictures[number], model.device))
        return [x.float().cpu() for x in shown]


def _alone(picture: Tensor | Example, device: torch.device) -> Batch:
    draws = draws_of_one(device)
    if isinstance(picture, Example):
        return Batch(picture.picture.to(device), draws, picture.targets)
    height, width = (side // BASE_STRIDE * BASE_STRIDE for side in picture.shape[-2:])
    return Batch(picture[..., :height, :width].to(device), draws)
