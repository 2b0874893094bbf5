"""The shapes of the VMamba networks as they were released. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pmavae.config import PlainConfig

TASK = "vmamba"  # what a weights file says it is of
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
    task: str = TASK
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


def _config(preset: str, base: int, depth: int, ratio: float, vanilla: bool = False) -> VMambaConfig:
    return VMambaConfig(
        preset=preset,
        generation="v0" if vanilla else "v05",
        channels=(base, 2 * base, 4 * base, 8 * base),
        depths=(2, 2, depth, 2),
        ssm_ratio=ratio,
        d_state=16 if vanilla else 1,
    )


VMAMBA: Mapping[str, VMambaConfig] = MappingProxyType(
    {
        config.preset: config
        for config in (
            _config("vmamba-tiny", 96, 8, 1.0),
            _config("vmamba-small", 96, 15, 2.0),
            _config("vmamba-base", 128, 15, 2.0),
            _config("vmamba-small-s1l20", 96, 20, 1.0),
            _config("vmamba-base-s1l20", 128, 20, 1.0),
            _config("vmamba-tiny-s2l5", 96, 5, 2.0),
            _config("vmamba-tiny-v0", 96, 9, 2.0, vanilla=True),
            _config("vmamba-small-v0", 96, 27, 2.0, vanilla=True),
            _config("vmamba-base-v0", 128, 27, 2.0, vanilla=True),
        )
    }
)

# The same by the names of the paper: s, the ratio of the scan's width; l, the blocks of the third stage.
VARIANTS: Mapping[str, VMambaConfig] = MappingProxyType(
    {
        "tiny_s1l8": VMAMBA["vmamba-tiny"],
        "small_s2l15": VMAMBA["vmamba-small"],
        "base_s2l15": VMAMBA["vmamba-base"],
        "small_s1l20": VMAMBA["vmamba-small-s1l20"],
        "base_s1l20": VMAMBA["vmamba-base-s1l20"],
        "tiny_s2l5": VMAMBA["vmamba-tiny-s2l5"],
        "vanilla_tiny": VMAMBA["vmamba-tiny-v0"],
        "vanilla_small": VMAMBA["vmamba-small-v0"],
        "vanilla_base": VMAMBA["vmamba-base-v0"],
    }
)

# Stochastic depth with which the variants were trained: the share of samples that skip the last block.
DROP_PATH: Mapping[str, float] = MappingProxyType(
    {
        "vmamba-tiny": 0.2,
        "vmamba-small": 0.3,
        "vmamba-base": 0.6,
        "vmamba-small-s1l20": 0.3,
        "vmamba-base-s1l20": 0.6,
        "vmamba-tiny-s2l5": 0.2,
        "vmamba-tiny-v0": 0.1,
        "vmamba-small-v0": 0.3,
        "vmamba-base-v0": 0.6,
    }
)
