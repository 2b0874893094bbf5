"""The network whose feature maps tell how near two pictures are in style and in content."""

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.errors import WeightsError
from pmavae.network_configs import FEATURE_NETWORK, FEATURES_TASK, FeatureConfig
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.network import Pretrained
from pmavae.pretrained.resolve import Found


class SameConv(nn.Module):
    """A convolution padded as TensorFlow does it: with a stride of 2, one more at the bottom and right."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, groups=groups)
        before = (kernel - stride) // 2
        self.pad = (before, kernel - stride - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; the input is added where it has the same shape."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = c_in * expansion
        self.expand = nn.Conv2d(c_in, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, c_out, 1)
        self.keeps_shape = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.keeps_shape else y


class FeatureNetwork(Pretrained):
    """(B, 3, H, W) in [0, 1] to six maps (B, C, h, w), at strides 2, 2, 4, 8, 16, 16.

    EfficientNet-Lite0 as it was trained on ImageNet (Apache-2.0), up to its fifth stage: 0.7 M parameters.
    The shallow maps show texture, the deep ones what is depicted.
    """

    config_type, tasks = FeatureConfig, (FEATURES_TASK,)
    content_layers = (3, 5)

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = SameConv(3, config.stem, 3, stride=2)
        c_in = (config.stem, *config.channels[:-1])
        shapes = zip(c_in, config.channels, config.kernels, config.strides, config.expansions, strict=True)
        self.blocks = nn.ModuleList([InvertedResidual(*shape) for shape in shapes])

    def forward(self, picture: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(picture * 2 - 1))
        maps = [x]
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in self.config.ends:
                maps.append(x)
        return maps

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | Found = FEATURE_NETWORK,
        index: WeightsIndex | None = None,
        **options: Any,
    ) -> Self:
        """The released network, or another, frozen; see `Pretrained.from_pretrained`."""
        network = super().from_pretrained(name_or_path, index, **options)
        # Convolutions are faster in this layout.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.requires_grad_(False)

    @classmethod
    def wrong_weights(cls, path: Path, found: str, task: str) -> WeightsError:
        """That the file in the place of the released one is another."""
        return WeightsError(f"{path} has no feature network: install pmavae again")
