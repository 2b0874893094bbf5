"""Instance segmentation: Mask R-CNN (arXiv 1703.06870) of torchvision over a VMamba and its pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmavae.vmamba import MEAN, STD
from pmavae_vision.backbone import Backbone, labels_of
from pmavae_vision.torchvision_operators import import_torchvision

LEVELS = 5  # four stages, and one of half the size for the largest boxes
MASK = 0.5  # probability from which a pixel belongs to an object


class Pyramid(nn.Module):
    """(B, 3, H, W), normalised, to the maps of a feature pyramid, all of `out_channels`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.body = Backbone(settings)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for channels in self.body.channels])
        self.out_channels: int = settings["pyramid"]
        self.pyramid = FeaturePyramidNetwork(
            list(self.body.channels), self.out_channels, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [
            norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for norm, y in zip(self.norms, self.body(x), strict=True)
        ]
        found: dict[str, Tensor] = self.pyramid(OrderedDict((str(i), y) for i, y in enumerate(maps)))
        return found


def build_detector(settings: Mapping[str, Any]) -> nn.Module:
    """The untrained network of a training; pictures are scaled to `side` px on their longer side."""
    import_torchvision()
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor

    backbone = Pyramid(settings)
    width, hidden, side = backbone.out_channels, settings["representation"], settings["side"]
    classes = len(labels_of(settings)) + 1  # 0 is the background
    sizes = tuple((side * 2**level // 16,) for level in range(LEVELS))
    return MaskRCNN(
        backbone,
        min_size=side,
        max_size=side,
        image_mean=list(MEAN),
        image_std=list(STD),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * LEVELS),
        box_head=TwoMLPHead(width * 7**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, classes),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, classes),
        box_batch_size_per_image=settings["samples"],
        box_detections_per_img=100,
    )


@dataclass(frozen=True)
class Detection:
    """One object."""

    label: int  # from 0
    score: float
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in px
    mask: NDArray[np.bool_]  # (H, W)

    def row(self, labels: list[str]) -> dict[str, Any]:
        """As JSON: the mask as run lengths in columns, background first, as in COCO."""
        flat = self.mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
        bounds = [0, *edges, flat.size]
        counts = [int(end - start) for start, end in pairwise(bounds)]
        return {
            "label": labels[self.label],
            "score": round(self.score, 4),
            "box": [round(value, 2) for value in self.box],
            "mask": {"size": list(self.mask.shape), "counts": counts},
        }


@torch.inference_mode()
def detect(
    network: nn.Module, pixels: NDArray[np.uint8], score: float = 0.0, most: int = 100
) -> list[Detection]:
    """The objects of a picture, (H, W, 3), by falling score."""
    device = next(network.parameters()).device
    picture = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().to(device) / 255
    found = {name: values.cpu() for name, values in network([picture])[0].items()}
    kept = [i for i in found["scores"].argsort(descending=True).tolist() if found["scores"][i] >= score]
    return [
        Detection(
            int(found["labels"][i]) - 1,
            float(found["scores"][i]),
            tuple(found["boxes"][i].tolist()),
            (found["masks"][i, 0] >= MASK).numpy(),
        )
        for i in kept[:most]
    ]
