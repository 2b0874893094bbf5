"""What a run can be trained to do: an objective a file."""

from typing import Any

from pmavae.network_configs import RESTORATIONS, TEXTURE_TASK
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.training.config import TrainConfig
from pmavae.training.objectives.base import Objective
from pmavae.training.objectives.plugin import PluginObjective
from pmavae.training.objectives.reconstruction import Codec
from pmavae.training.objectives.restoration import Restoration
from pmavae.training.objectives.texture import TextureStatistics
from pmavae.training.plugin import Examples, Training

CLASSES: dict[str, type[Objective[Any, Any]]] = {
    "base": Codec,
    **dict.fromkeys(RESTORATIONS, Restoration),
    TEXTURE_TASK: TextureStatistics,
}


def objective_for(
    config: TrainConfig,
    index: WeightsIndex | None = None,
    plan: Training | None = None,
    examples: Examples | None = None,
) -> Objective[Any, Any]:
    """That of a run; `plan` is the training of a plugin's task, `examples` its data. Raises PMAVAEError."""
    if plan is not None:
        return PluginObjective(config, index, plan, examples)
    return CLASSES[config.task](config, index)
