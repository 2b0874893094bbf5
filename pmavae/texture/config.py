"""The shape of the texture priors, one for each preset. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from pmavae.config import ModelConfig, PlainConfig

TASK = "texture-vary"


@dataclass(frozen=True)
class TextureConfig(PlainConfig):
    """Everything that determines the parameter shapes of a texture prior, and whose latents it learnt."""

    preset: str  # of the autoencoder
    task: str  # TASK
    encoder: str  # SHA-256 of the encoder's tensors, see `encoder_fingerprint`
    base_channels: int
    detail_channels: int
    style_channels: int
    width: int  # channels of a block
    depth: int  # blocks


# width and depth by preset
_SHAPES = {"tiny": (160, 7), "small": (224, 8), "base": (288, 10)}


def texture_config(codec: ModelConfig, encoder: str) -> TextureConfig:
    """The prior of an autoencoder; `encoder` is the fingerprint of its encoder."""
    width, depth = _SHAPES.get(codec.preset, _SHAPES["tiny"])
    return TextureConfig(
        preset=codec.preset,
        task=TASK,
        encoder=encoder,
        base_channels=codec.base_channels,
        detail_channels=codec.detail_channels,
        style_channels=codec.style_channels,
        width=width,
        depth=depth,
    )
