"""Restoration networks of a few thousand parameters, for tests of everything but quality."""

from __future__ import annotations

from pathlib import Path

import torch

from pmavae.network_configs import RestorationConfig
from pmavae.restoration.network import Restorer

SMALL = {
    task: RestorationConfig("test", task, scales, stride, channels=(8, 8, 8), blocks=(1, 1, 1))
    for task, scales, stride in (("denoise", (1,), 2), ("upscale", (2, 4), 1))
}


def untrained(task: str) -> Restorer:
    """A network that gives the picture back, or its bicubic enlargement."""
    torch.manual_seed(0)
    return Restorer(SMALL[task]).eval()


def network(task: str) -> Restorer:
    """One whose every layer does something."""
    torch.manual_seed(0)
    model = Restorer(SMALL[task]).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def tinted(task: str, amount: float) -> Restorer:
    """The same, with `amount` of 1 more red in every pixel."""
    model = untrained(task)
    with torch.no_grad():
        for head in model.heads.values():
            convolution = head[-2]
            each = convolution.out_channels // 3  # PixelShuffle has the positions of a colour together
            convolution.bias[:each] = amount
    return model


def saved(model: Restorer, folder: Path, weights_id: str) -> Path:
    """A folder with the network's weights."""
    model.save_pretrained(folder, weights_id)
    return folder
