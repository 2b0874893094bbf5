"""What a step of a restoration network minimises."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmavae.restoration.network import Restorer
from pmavae.training.config import LossConfig
from pmavae.training.degradation import Damaged
from pmavae.training.objectives.losses import edge_loss, pixel_loss
from pmavae.training.objectives.reconstruction import Outcome
from pmavae.training.transfer import to_device


def restoring(model: Restorer, damaged: Damaged, config: LossConfig) -> Outcome:
    """Restore a batch; its pixels cost, and Sobel edges where the configuration gives them a weight."""
    device = model.device

    def moved(values: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(values).to(device)

    inputs = moved(damaged.inputs).permute(0, 3, 1, 2)
    target = to_device(damaged.targets, device)
    gated = bool((damaged.fidelity < 1).any())
    fidelity = moved(damaged.fidelity) if gated else None
    output = model(inputs, moved(damaged.levels), fidelity, damaged.scale)
    total = config.l1 * pixel_loss(output, target, config.pixels)
    if config.edge:
        total = total + config.edge * edge_loss(output, target)
    error = (output - target).detach()
    return Outcome(total, target, output, {"l1": error.abs().mean(), "mse": error.square().mean()})
