"""The networks that a run can train."""

from __future__ import annotations

from pmavae.autoencoder import PMAVAE
from pmavae.presets import PRESETS
from pmavae.restoration.network import Restorer
from pmavae.restoration.presets import RESTORERS
from pmavae.training.config import TrainConfig

Model = PMAVAE | Restorer


def new_model(config: TrainConfig) -> Model:
    """An untrained model of the task and preset of a run."""
    if config.task == "base":
        return PMAVAE(PRESETS[config.preset])
    return Restorer(RESTORERS[config.task, config.preset])
