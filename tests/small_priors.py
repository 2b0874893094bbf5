"""A texture prior of a few thousand parameters and its codec, for tests of everything but quality."""

from __future__ import annotations

import torch
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.config import ModelConfig
from pmavae.network_configs import TEXTURE_TASK, TextureConfig
from pmavae.texture.network import TexturePrior, encoder_fingerprint


def codec(config: ModelConfig = CONFIG, seed: int = 0) -> PMAVAE:
    """An untrained autoencoder as its file has it: in fp16."""
    torch.manual_seed(seed)
    model = PMAVAE(config).eval()
    model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
    return model


def prior(model: PMAVAE, active: bool = True) -> TexturePrior:
    """A small prior of its latents; `active` has every layer do something."""
    config = model.config
    torch.manual_seed(0)
    made = TexturePrior(
        TextureConfig(
            preset=config.preset,
            task=TEXTURE_TASK,
            encoder=encoder_fingerprint(model.encoder),
            base_channels=config.base_channels,
            detail_channels=config.detail_channels,
            style_channels=config.style_channels,
            width=16,
            depth=2,
        )
    ).eval()
    if active:
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return made
