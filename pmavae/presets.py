"""The three released shapes."""

from __future__ import annotations

from pmavae.config import ModelConfig

PRESETS = {
    "tiny": ModelConfig(
        preset="tiny",
        base_channels=24,
        detail_channels=6,
        style_channels=96,
        encoder_channels=(16, 32, 64, 128),
        encoder_blocks=(1, 2, 2, 2),
        decoder_channels=(192, 128, 64, 32),
        decoder_blocks=(2, 3, 2, 2),
    ),
    "small": ModelConfig(
        preset="small",
        base_channels=32,
        detail_channels=8,
        style_channels=128,
        encoder_channels=(32, 64, 128, 256),
        encoder_blocks=(1, 2, 2, 2),
        decoder_channels=(320, 192, 96, 48),
        decoder_blocks=(2, 3, 2, 2),
    ),
    "base": ModelConfig(
        preset="base",
        base_channels=32,
        detail_channels=8,
        style_channels=128,
        encoder_channels=(48, 96, 208, 384),
        encoder_blocks=(1, 2, 4, 2),
        decoder_channels=(448, 288, 128, 64),
        decoder_blocks=(3, 3, 2, 2),
    ),
}
