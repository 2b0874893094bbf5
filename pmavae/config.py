"""The shape of the autoencoder: one configuration, three presets.

Nothing here imports torch, so the command line can list presets at once. The other networks are in
`network_configs`, because every start of the command line loads this file.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

BASE_STRIDE = 16  # pixels per z_base position; images are padded to a multiple of it
DETAIL_STRIDE = 8  # pixels per z_detail position
MIN_SIZE = 16  # smallest height or width in pixels: one z_base position


@dataclass(frozen=True)
class PlainConfig:
    """A configuration that goes into the header of a file and comes out of it again."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is its inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Rebuild a configuration; unknown or missing fields raise ValueError by name."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"unknown configuration fields: {', '.join(unknown)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class ModelConfig(PlainConfig):
    """Everything that determines the parameter shapes of a model.

    Stages are listed from the finest to the coarsest in the encoder (strides 2, 4, 8, 16)
    and from the coarsest to the finest in the decoder (strides 16, 8, 4, 2). The two finest
    stages are MobileConv blocks, the two coarsest Parallel Mamba blocks: global context is
    worth its price where a position stands for many pixels.
    """

    preset: str  # the name under which weights and latent files refer to this shape
    base_channels: int  # z_base channels, at stride 16
    detail_channels: int  # z_detail channels, at stride 8
    style_channels: int  # z_style length; must hold the statistics of the other two (see latents.py)
    encoder_channels: tuple[int, int, int, int]
    encoder_blocks: tuple[int, int, int, int]
    decoder_channels: tuple[int, int, int, int]
    decoder_blocks: tuple[int, int, int, int]
    # Paint blocks per decoder stage, used only to restyle. None at stride 16: a latent there stands for
    # 16 pixels, and a brush that starts from it repeats itself every 16.
    paint_blocks: tuple[int, int, int, int] = (0, 2, 3, 2)
    paint_kernel: int = 5  # wider than MobileConv's: a brush stroke is longer than a texture element
    encoder_mlp_ratio: float = 2.0  # hidden width of the channel MLP in encoder Mamba blocks
    decoder_mlp_ratio: float = 2.0  # the same in the decoder, where most parameters live
    mobile_expansion: int = 2  # MobileConv's inner width over its outer width
    se_reduction: int = 4  # squeeze-and-excitation bottleneck
    style_hidden: int = 128  # width of the style code that every FiLM layer reads
    d_state: int = 1  # SSM states a channel; 1 makes the scan bandwidth-bound (VMamba v05)

    def __post_init__(self) -> None:
        if self.style_channels <= self.statistics_channels + 1:
            raise ValueError(
                f"style_channels={self.style_channels} cannot hold {self.statistics_channels} "
                "latent statistics, the paint amount and at least one learned number"
            )

    @property
    def statistics_channels(self) -> int:
        """Numbers of z_style that are means and log standard deviations of the other latents."""
        return 2 * (self.base_channels + self.detail_channels)

    @property
    def learned_channels(self) -> int:
        """Numbers of z_style that the style head learns freely (one more is the paint amount)."""
        return self.style_channels - self.statistics_channels - 1


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
