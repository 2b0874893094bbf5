"""Which of the four directions of a scan are on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from pmavae.ss2d import DIRECTIONS
from pmavae.ss2d import SS2D as PMAVAEScan
from pmavae.vmamba.network import SS2D as VMambaScan


@torch.no_grad()
def keep_directions(network: nn.Module, kept: Collection[int]) -> int:
    """Silence the directions of all scans that are not kept, 0 to 3; returns how many scans there are.

    y = C h + D u has nothing of the state h where C is 0: the values of a network change, and nothing of its
    code. The skip D u, which looks at no other position, stays.
    """
    silent = [direction for direction in range(DIRECTIONS) if direction not in kept]
    scans = 0
    for module in network.modules():
        if isinstance(module, PMAVAEScan):
            module.x_proj[silent, -module.d_state :] = 0  # the rows that C is projected by
        elif isinstance(module, VMambaScan):
            module.x_proj_weight[silent, -module.A_logs.shape[1] :] = 0
        else:
            continue
        scans += 1
    return scans
