"""The networks that a run can train."""

from __future__ import annotations

from pmavae.autoencoder import PMAVAE
from pmavae.errors import WeightsError
from pmavae.presets import PRESETS
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.restoration.network import Restorer
from pmavae.restoration.presets import RESTORERS
from pmavae.texture.config import TASK as TEXTURE
from pmavae.texture.config import texture_config
from pmavae.texture.network import TexturePrior, encoder_fingerprint
from pmavae.training.config import TrainConfig
from pmavae.training.growth import grown
from pmavae.training.objectives.plugin import PluginNetwork
from pmavae.training.plugin import Examples, Training

Model = PMAVAE | Restorer | TexturePrior | PluginNetwork


def frozen_codec(config: TrainConfig, index: WeightsIndex | None = None) -> PMAVAE | None:
    """The autoencoder whose latents a run learns; None for a run that needs none. Raises WeightsError."""
    if config.task != TEXTURE:
        return None
    return PMAVAE.from_pretrained(config.texture.codec or config.preset, index).requires_grad_(False)


def new_model(
    config: TrainConfig,
    codec: PMAVAE | None = None,
    plan: Training | None = None,
    examples: Examples | None = None,
) -> Model:
    """An untrained model of the task and preset of a run.

    `codec` is what `frozen_codec` gives, `plan` the training of a plugin's task, `examples` its data.
    """
    if plan is not None:
        return PluginNetwork.new(plan, config.preset, examples)
    if config.task == "base":
        return PMAVAE(PRESETS[config.preset])
    if config.task == TEXTURE:
        assert codec is not None
        return TexturePrior(texture_config(codec.config, encoder_fingerprint(codec.encoder)))
    return Restorer(RESTORERS[config.task, config.preset])


def started_model(
    config: TrainConfig,
    codec: PMAVAE | None = None,
    plan: Training | None = None,
    index: WeightsIndex | None = None,
    examples: Examples | None = None,
) -> Model:
    """As `new_model`, with the weights that the run starts from; an autoencoder grows from a smaller preset.

    Raises WeightsError if they do not fit.
    """
    model: Model
    if plan is not None:
        model = PluginNetwork.started_from(plan, config.init_from, index, config.preset, examples)
    elif config.task == "base":
        model = PMAVAE.from_pretrained(config.init_from, index)
        if model.config.preset != config.preset:
            model = grown(model, PRESETS[config.preset])
    elif codec is not None:
        model = TexturePrior.from_pretrained(config.init_from, index)
        model.check_codec(codec)
    else:
        model = Restorer.from_pretrained(config.init_from, config.task, index)
    if model.config.preset != config.preset:
        raise WeightsError(
            f"{config.init_from} has weights of preset {model.config.preset}, not {config.preset}: "
            f"use --preset {model.config.preset}"
        )
    return model
