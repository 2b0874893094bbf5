"""How the modules of a network run fast, for one picture on the CPU and without a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from pmavae import latents
from pmavae.inference.fused import is_plain_inference
from pmavae.inference.offload import let_go
from pmavae.latents import log_statistics

PART = 1 << 18  # numbers whose statistics are taken at a time


def statistics(z: Tensor) -> Tensor:
    """What `pmavae.latents.statistics` gives."""
    if z.shape[0] == 1 and is_plain_inference(z):
        return log_statistics(*means_and_variances(z))
    return latents.statistics(z)


def means_and_variances(z: Tensor) -> tuple[Tensor, Tensor]:
    """Of the channels of one picture, (1, C) each.

    torch's var_mean is not vectorised; this is, in parts that stay in the cache, joined in double precision.
    """
    pixels = z[0].permute(1, 2, 0).flatten(0, 1).float()  # (H·W, C)
    counts, means, squares = [], [], []
    for part in pixels.split(max(1, PART // pixels.shape[1])):
        mean = part.mean(0)
        counts.append(part.shape[0])
        means.append(mean)
        squares.append((part - mean).square_().sum(0))
        let_go(part.numel() * part.element_size())
    share = torch.tensor(counts, dtype=torch.float64, device=z.device)[:, None] / pixels.shape[0]
    each = torch.stack(means).double()
    whole = (share * each).sum(0, keepdim=True)
    within = torch.stack(squares).double().sum(0, keepdim=True) / pixels.shape[0]
    variance = within + (share * (each - whole) ** 2).sum(0, keepdim=True)
    return whole.float(), variance.float()
