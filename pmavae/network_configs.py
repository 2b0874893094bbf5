"""The shape of every network beside the autoencoder, by task. Nothing here imports torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pmavae.config import ModelConfig, PlainConfig


@dataclass(frozen=True)
class NetworkConfig(PlainConfig):
    """The network of a plugin's task."""

    preset: str
    task: str
    settings: dict[str, Any] = field(default_factory=dict)  # from which it is built; see `is_settings`


@dataclass(frozen=True)
class RestorationConfig(PlainConfig):
    """Everything that determines the parameter shapes of a restoration network."""

    preset: str
    task: str  # "denoise" or "upscale"
    scales: tuple[int, ...]  # sides of the output over those of the input, a head each
    stem_stride: int  # PixelUnshuffle: 2 where the output is as large as the input, else 1
    channels: tuple[int, int, int]  # at 1, 2 and 4 times the stem's stride
    blocks: tuple[int, int, int]  # of them, on each side of the network; the last in the middle

    def __post_init__(self) -> None:
        if not self.scales or set(self.scales) - {1, 2, 4}:
            raise ValueError(f"scales {self.scales} are not among 1, 2 and 4")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride {self.stem_stride} is neither 1 nor 2")

    @property
    def multiple(self) -> int:
        """Height and width of what the network is given are multiples of it, in px."""
        return 4 * self.stem_stride

    @property
    def margin(self) -> int:
        """Input px around a position, `reach` rounded up to a multiple of `multiple`, for tiles."""
        return -(-self.reach // self.multiple) * self.multiple

    @property
    def reach(self) -> int:
        """Input px around a pixel beyond which nothing changes what becomes of it at any scale."""
        n1, n2, n4 = self.blocks
        head = max(self.head_depth(scale) for scale in self.scales)
        # Each 3×3 convolution reaches one position of its stride; a block has two of them.
        positions = 1 + 2 * 2 * n1 + 2 * (2 * 2 * n2) + 4 * (2 * n4) + head
        # What a coarsest position holds is seen as a whole, wherever in it the pixel is.
        return positions * self.stem_stride + self.multiple - 1

    def head_depth(self, scale: int) -> int:
        """Convolutions of the head of a scale: what a position becomes 16 of needs more than one."""
        return 1 if scale * self.stem_stride <= 2 else 2


RESTORATIONS = ("denoise", "upscale")

RESTORERS = {
    (task, preset): RestorationConfig(
        preset=preset,
        task=task,
        scales=(1,) if task == "denoise" else (2, 4),
        stem_stride=2 if task == "denoise" else 1,
        channels=channels,
        blocks=blocks,
    )
    # Enlarging is work of the finest stride, and damage is told from further around.
    for task, preset, channels, blocks in (
        ("denoise", "tiny", (48, 96, 160), (2, 2, 2)),
        ("denoise", "small", (64, 128, 256), (2, 3, 4)),
        ("denoise", "base", (96, 192, 384), (3, 4, 6)),
        ("upscale", "tiny", (48, 64, 96), (3, 1, 1)),
        ("upscale", "small", (64, 96, 128), (4, 2, 2)),
        ("upscale", "base", (96, 128, 192), (6, 3, 3)),
    )
}

FEATURES_TASK = "features"
FEATURE_NETWORK = "efficientnet-lite0"


@dataclass(frozen=True)
class FeatureConfig(PlainConfig):
    """The first blocks of an EfficientNet-Lite (arXiv 1905.11946), with the batch norms folded in.

    One number a block: square kernels of `kernels`, every `strides`-th position, `expansions` times as many
    channels inside, `channels` out.
    """

    preset: str  # FEATURE_NETWORK
    task: str  # FEATURES_TASK
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
    preset=FEATURE_NETWORK,
    task=FEATURES_TASK,
    stem=32,
    kernels=(3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5),
    strides=(1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1),
    expansions=(1, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6),
    channels=(16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112),
    ends=(1, 3, 5, 8, 11),
)


TEXTURE_TASK = "texture-vary"


@dataclass(frozen=True)
class TextureConfig(PlainConfig):
    """Everything that determines the parameter shapes of a texture prior, and whose latents it learnt."""

    preset: str  # of the autoencoder
    task: str  # TEXTURE_TASK
    encoder: str  # SHA-256 of the encoder's tensors, see `encoder_fingerprint`
    base_channels: int
    detail_channels: int
    style_channels: int
    width: int  # channels of a block
    depth: int  # blocks


# width and depth by preset
_PRIORS = {"tiny": (160, 7), "small": (224, 8), "base": (288, 10)}


def texture_config(codec: ModelConfig, encoder: str) -> TextureConfig:
    """The prior of an autoencoder; `encoder` is the fingerprint of its encoder."""
    width, depth = _PRIORS.get(codec.preset, _PRIORS["tiny"])
    return TextureConfig(
        preset=codec.preset,
        task=TEXTURE_TASK,
        encoder=encoder,
        base_channels=codec.base_channels,
        detail_channels=codec.detail_channels,
        style_channels=codec.style_channels,
        width=width,
        depth=depth,
    )


VMAMBA_TASK = "vmamba"  # what a weights file says it is of
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]
STRIDES = (4, 8, 16, 32)  # of the four stages
GENERATIONS = ("v0", "v05")


@dataclass(frozen=True)
class VMambaConfig(PlainConfig):
    """Everything that determines the parameter shapes of a VMamba.

    The two generations differ in more than sizes. v0, "vanilla", is a Mamba block per layer: a gate beside
    the scan, no MLP, a convolution with bias, 4 × 4 patches, and 2 × 2 patches merged between stages. v05
    ("v05_noz") drops the gate, adds an MLP, and embeds and merges patches by overlapping convolutions.
    """

    preset: str  # the name of the variant
    task: str = VMAMBA_TASK
    generation: str = "v05"  # "v0" or "v05"
    channels: tuple[int, int, int, int] = (96, 192, 384, 768)  # of each stage; they double as sides halve
    depths: tuple[int, int, int, int] = (2, 2, 8, 2)  # blocks of each stage; most where a picture is 14 × 14
    ssm_ratio: float = 1.0  # width of the scan over that of the block; 1 pays for more blocks than 2
    d_state: int = 1  # states a channel; 16 in v0, as in Mamba, at many times the memory traffic
    mlp_ratio: float = 4.0  # hidden width of the MLP over that of the block; v0 has no MLP
    classes: int = 1000  # of ImageNet-1K

    def __post_init__(self) -> None:
        if self.generation not in GENERATIONS:
            raise ValueError(f"generation {self.generation!r:.40} is not one of {', '.join(GENERATIONS)}")
        if self.has_mlp and self.channels[0] % 2:
            raise ValueError(f"{self.channels[0]} channels cannot be halved for the first half of the stem")

    @property
    def has_gate(self) -> bool:
        """Whether what was scanned is multiplied by SiLU of a second projection."""
        return self.generation == "v0"

    @property
    def has_mlp(self) -> bool:
        """Whether an MLP follows the scan in each block."""
        return self.generation != "v0"

    def inner(self, channels: int) -> int:
        """Width of the scan in a block of so many channels."""
        return int(self.ssm_ratio * channels)

    @staticmethod
    def rank(channels: int) -> int:
        """dt_rank, the bottleneck of the step sizes, in a block of so many channels: one for each 16."""
        return math.ceil(channels / 16)


# By preset: the name in the paper, where s is the ratio of the scan's width and l the blocks of the third
# stage; channels of the first stage; those blocks; that ratio; the stochastic depth of its training, which is
# the share of samples that skip the last block.
_VMAMBAS = {
    "vmamba-tiny": ("tiny_s1l8", 96, 8, 1.0, 0.2),
    "vmamba-small": ("small_s2l15", 96, 15, 2.0, 0.3),
    "vmamba-base": ("base_s2l15", 128, 15, 2.0, 0.6),
    "vmamba-small-s1l20": ("small_s1l20", 96, 20, 1.0, 0.3),
    "vmamba-base-s1l20": ("base_s1l20", 128, 20, 1.0, 0.6),
    "vmamba-tiny-s2l5": ("tiny_s2l5", 96, 5, 2.0, 0.2),
    "vmamba-tiny-v0": ("vanilla_tiny", 96, 9, 2.0, 0.1),
    "vmamba-small-v0": ("vanilla_small", 96, 27, 2.0, 0.3),
    "vmamba-base-v0": ("vanilla_base", 128, 27, 2.0, 0.6),
}

VMAMBA: Mapping[str, VMambaConfig] = MappingProxyType(
    {
        preset: VMambaConfig(
            preset=preset,
            generation="v0" if preset.endswith("-v0") else "v05",
            channels=(base, 2 * base, 4 * base, 8 * base),
            depths=(2, 2, depth, 2),
            ssm_ratio=ratio,
            d_state=16 if preset.endswith("-v0") else 1,
        )
        for preset, (_, base, depth, ratio, _) in _VMAMBAS.items()
    }
)
# The same by the names of the paper.
VARIANTS: Mapping[str, VMambaConfig] = MappingProxyType(
    {row[0]: VMAMBA[preset] for preset, row in _VMAMBAS.items()}
)
# Stochastic depth with which the variants were trained.
DROP_PATH: Mapping[str, float] = MappingProxyType({preset: row[-1] for preset, row in _VMAMBAS.items()})
