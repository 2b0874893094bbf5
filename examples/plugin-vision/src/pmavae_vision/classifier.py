"""Classification: a VMamba, with its classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae.errors import WeightsError
from pmavae.files.header import weights_header
from pmavae.pretrained.network import TaskNetwork
from pmavae.pretrained.resolve import resolve
from pmavae.vmamba import MEAN, STD, VMamba
from pmavae_vision.backbone import backbone_config, labels_of

SIDE = 224  # px that released classifiers are made for
CROP = 0.875  # of the shorter side that a square in the middle has


class Classifier(NamedTuple):
    """A network, and what goes in and comes out."""

    network: VMamba
    side: int  # px
    labels: list[str]  # empty where the weights have none


def build_classifier(settings: Mapping[str, Any]) -> VMamba:
    """The untrained network of a training."""
    return VMamba(backbone_config(settings, len(labels_of(settings))))


def load_classifier(name: str, offline: bool = False) -> Classifier:
    """Weights of `pmavae train --task classify`, or a released VMamba. Raises WeightsError."""
    path = resolve(name, "classify", offline=offline).path
    config = (weights_header(path) or {}).get("config", {})
    if config.get("task") == "vmamba":
        return Classifier(VMamba.from_pretrained(path), SIDE, [])
    found = TaskNetwork.from_pretrained(path, "classify", build_classifier)
    assert isinstance(found.network, VMamba)
    settings: dict[str, Any] = found.config.settings
    return Classifier(found.network, settings["side"], labels_of(settings))


def read_labels(path: Path, classes: int) -> list[str]:
    """Names of classes, one on each line. Raises WeightsError where there are not as many as classes."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as UTF-8 text ({error}): check the file") from None
    labels = [line.strip() for line in lines if line.strip()]
    if len(labels) != classes:
        raise WeightsError(f"{path} has {len(labels)} labels for {classes} classes: give one on each line")
    return labels


def normalised(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] as VMamba takes them."""
    mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std


def as_released(pixels: NDArray[np.uint8], side: int) -> Tensor:
    """(H, W, 3) as (1, 3, side, side), normalised: resized (bicubic), then cut in the middle."""
    height, width = pixels.shape[:2]
    short = int(side / CROP)
    scale = short / min(height, width)
    size = max(short, int(width * scale)), max(short, int(height * scale))
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    left, top = (round((length - side) / 2) for length in size)
    crop = np.ascontiguousarray(resized[top : top + side, left : left + side])
    return normalised(torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255)


@torch.inference_mode()
def probabilities(classifier: Classifier, pixels: NDArray[np.uint8]) -> Tensor:
    """(classes,) of a picture, (H, W, 3), on the CPU."""
    device = next(classifier.network.parameters()).device
    logits = classifier.network(as_released(pixels, classifier.side).to(device))
    return logits[0].float().softmax(0).cpu()
