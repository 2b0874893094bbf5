"""What every objective has: a network, and what a step is fed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmavae.autoencoder import PMAVAE
from pmavae.config import PRESETS
from pmavae.errors import WeightsError
from pmavae.network_configs import RESTORERS, TEXTURE_TASK, RestorationConfig, texture_config
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.restoration.network import Restorer
from pmavae.texture.network import TexturePrior, encoder_fingerprint
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import Corpus
from pmavae.training.degradation import Damaged, crop_side, damage, scale_of
from pmavae.training.growth import grown
from pmavae.training.objectives.plugin import PluginNetwork
from pmavae.training.phases import Phase
from pmavae.training.plugin import Examples, Training

Model = PMAVAE | Restorer | TexturePrior | PluginNetwork


def frozen_codec(config: TrainConfig, index: WeightsIndex | None = None) -> PMAVAE | None:
    """The autoencoder whose latents a run learns; None for a run that needs none. Raises WeightsError."""
    if config.task != TEXTURE_TASK:
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
    if config.task == TEXTURE_TASK:
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
        model = Restorer.from_pretrained(config.init_from, index, task=config.task)
    if model.config.preset != config.preset:
        raise WeightsError(
            f"{config.init_from} has weights of preset {model.config.preset}, not {config.preset}: "
            f"use --preset {model.config.preset}"
        )
    return model


@dataclass(frozen=True)
class Drawn:
    """The crops of a micro-batch."""

    pictures: NDArray[np.uint8]  # (B, S, S, 3)
    styles: NDArray[np.uint8] | None = None  # (B, 2S, 2S, 3) to repaint them in
    damaged: Damaged | None = None  # what to restore
    targets: Any = None  # of the examples of a plugin


def draw(
    config: TrainConfig,
    phase: Phase,
    corpus: Corpus | Examples,
    styles: Corpus | Examples,
    network: RestorationConfig | None,
    *,
    step: int,
    first: int,
    count: int,
) -> Drawn:
    """Rows first to first + count - 1 of a step; `network` is what restores, where that is trained."""
    seed = config.seed
    if isinstance(corpus, Examples) or isinstance(styles, Examples):
        assert isinstance(corpus, Examples)
        pixels, targets = corpus.draw(phase.crop, seed=seed, step=step, first=first, count=count)
        return Drawn(pixels, targets=targets)
    if network is not None:
        scale = scale_of(network, seed, step)
        side = crop_side(phase.crop, scale)
        # Crops of clear sky teach to leave nothing of the noise in it.
        clean = corpus.crops(count, side, seed=seed, step=step, first=first, flat=True)
        return Drawn(clean, damaged=damage(clean, scale, config.damage, seed=seed, step=step, first=first))
    pictures = corpus.crops(count, phase.crop, seed=seed, step=step, first=first)
    if phase.objective != "paint":
        return Drawn(pictures)
    return Drawn(pictures, styles.crops(count, 2 * phase.crop, seed=seed + 1, step=step, first=first))
