"""Crops on their way to the device that trains."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(crops: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1] on a device, in channels-last memory.

    To CUDA it travels as bytes from pinned memory, while the caller goes on.
    """
    on_cuda = device.type == "cuda"
    batch = torch.from_numpy(crops)
    batch = (batch.pin_memory() if on_cuda else batch).to(device, non_blocking=on_cuda)
    return batch.permute(0, 3, 1, 2).float().div_(255)
