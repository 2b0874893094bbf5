"""Semantic segmentation: UPerNet (arXiv 1807.10221) of segmentation_models_pytorch over a VMamba."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pmavae_vision.backbone import Backbone, labels_of
from pmavae_vision.classifier import normalised
from pmavae_vision.torchvision_operators import MissingPackageError, import_torchvision


class Segmenter(nn.Module):
    """(B, 3, H, W), normalised, to logits (B, classes, H, W)."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        import_torchvision()  # which the library imports, by way of timm
        try:
            from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
        except ImportError as error:
            raise MissingPackageError(
                f"what UPerNet needs is not installed ({error}): pip install segmentation-models-pytorch timm"
            ) from None
        self.body = Backbone(settings)
        width = settings["pyramid"]
        # The decoder's list begins with strides 1 and 2, which it leaves out.
        self.decoder = UPerNetDecoder([0, 0, *self.body.channels], encoder_depth=5, decoder_channels=width)
        self.head = nn.Conv2d(width, len(labels_of(settings)), 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.decoder([None, None, *self.body(x)]))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


def build_segmenter(settings: Mapping[str, Any]) -> Segmenter:
    """The untrained network of a training."""
    return Segmenter(settings)


@torch.inference_mode()
def segment(network: nn.Module, pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The class of each pixel of (H, W, 3), as (H, W); computed with at most `side` px on the longer side."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(32, round(width * scale)), max(32, round(height * scale))
    resized = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    device = next(network.parameters()).device
    picture = torch.from_numpy(resized).permute(2, 0, 1)[None].float().to(device) / 255
    classes = network(normalised(picture))[0].argmax(0).byte().cpu().numpy()
    return np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))
