"""A configuration of a few thousand parameters, for tests of everything but quality."""

from pmavae.config import ModelConfig

CONFIG = ModelConfig(
    preset="test",
    base_channels=4,
    detail_channels=2,
    style_channels=16,
    encoder_channels=(8, 8, 8, 8),
    encoder_blocks=(1, 1, 1, 1),
    decoder_channels=(8, 8, 8, 8),
    decoder_blocks=(1, 1, 1, 1),
)
