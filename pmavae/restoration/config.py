"""The shape of the restoration networks, one for each task and preset. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from pmavae.config import PlainConfig

WORKING_BYTES = 448 << 20  # what the features of one tile may take, where nobody says otherwise
NOISE_UNIT = 50.0  # standard deviation in 8-bit units that the condition calls 1


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
