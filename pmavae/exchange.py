"""Which latent says what: the coarse half of z_detail changes places with the fine half of z_base.

Components of 8×8 blocks hold the colours and the composition, so a codec that fits them first leaves to
the 16×16 blocks only what is fine: the wrong way round for latents that are to be edited one at a time.
Exchanging the means of 2×2 detail positions with as many channels of the base puts the composition into
z_base and texture into z_detail, at the same size, without losing anything.

Statistics are taken out before the exchange and put back after it is undone: scaled apart, the halves of
one block would no longer fit together, and a restyled picture would show a grid of 16 px.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def exchange(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M, H, W) and (B, N, 2H, 2W), N ≤ M, to the same shapes.

    Its own inverse: the means of the new detail are what the first N channels of the base were.
    """
    coarse = F.avg_pool2d(detail, 2)  # (B, N, H, W)
    fine, kept = base[:, : coarse.shape[1]], base[:, coarse.shape[1] :]
    return torch.cat((coarse, kept), dim=1), detail + _spread(fine - coarse)


def exchange_variances(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """What `exchange` makes of the variances of independent noise on its arguments."""
    mean = F.avg_pool2d(detail, 2)
    fine, kept = base[:, : mean.shape[1]], base[:, mean.shape[1] :]
    return torch.cat((mean / 4, kept), dim=1), detail / 2 + _spread(mean / 4 + fine)


def _spread(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
