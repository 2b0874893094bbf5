"""The networks that a run can train."""

from __future__ import annotations

from pmavae.autoencoder import PMAVAE
from pmavae.presets import PRESETS
from pmavae.restoration.network import Restorer
from pmavae.restoration.presets import RESTORERS
from pmavae.texture.config import TASK as TEXTURE
from pmavae.texture.config import texture_config
from pmavae.texture.fingerprint import encoder_fingerprint
from pmavae.texture.network import TexturePrior
from pmavae.training.config import TrainConfig

Model = PMAVAE | Restorer | TexturePrior


def frozen_codec(config: TrainConfig) -> PMAVAE | None:
    """The autoencoder whose latents a run learns; None for a run that needs none. Raises WeightsError."""
    if config.task != TEXTURE:
        return None
    return PMAVAE.from_pretrained(config.texture.codec or config.preset).requires_grad_(False)


def new_model(config: TrainConfig, codec: PMAVAE | None = None) -> Model:
    """An untrained model of the task and preset of a run; `codec` is what `frozen_codec` gives."""
    if config.task == "base":
        return PMAVAE(PRESETS[config.preset])
    if config.task == TEXTURE:
        assert codec is not None
        return TexturePrior(texture_config(codec.config, encoder_fingerprint(codec.encoder)))
    return Restorer(RESTORERS[config.task, config.preset])
