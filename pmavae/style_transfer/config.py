"""The shape of the feature network. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from pmavae.config import PlainConfig

TASK = "features"
NETWORK = "efficientnet-lite0"


@dataclass(frozen=True)
class FeatureConfig(PlainConfig):
    """The first blocks of an EfficientNet-Lite (arXiv 1905.11946), with the batch norms folded in.

    One number a block: square kernels of `kernels`, every `strides`-th position, `expansions` times as many
    channels inside, `channels` out.
    """

    preset: str  # NETWORK
    task: str  # TASK
    stem: int  # channels of the first convolution, 3×3, stride 2
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    expansions: tuple[int, ...]
    channels: tuple[int, ...]
    ends: tuple[int, ...]  # blocks, counted from 1, whose outputs are the feature maps after the stem's

    def __post_init__(self) -> None:
        blocks = len(self.channels)
        if not blocks == len(self.kernels) == len(self.strides) == len(self.expansions):
            raise ValueError("kernels, strides, expansions and channels are not of as many blocks each")
        if not all(1 <= end <= blocks for end in self.ends):
            raise ValueError(f"ends {self.ends} are not among its {blocks} blocks")


LITE0 = FeatureConfig(
    preset=NETWORK,
    task=TASK,
    stem=32,
    kernels=(3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5),
    strides=(1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1),
    expansions=(1, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6),
    channels=(16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112),
    ends=(1, 3, 5, 8, 11),
)
