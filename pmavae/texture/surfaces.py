"""Where a picture has a surface, whose texture could be another, and where it has an edge, which could not.

A surface is about as strong all around. Where a cell is much stronger than the faintest one beside it, an
edge of something runs through it, or an eye looks out of it: to draw that anew would break it. z_base does
not pin edges down to the pixel, and its fine channels fit those that were there.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pmavae.texture.coefficients import Texture

EDGE, SURFACE = 0.2, 0.43  # faintest neighbour over the cell: what is all edge, what is all surface
FLAT, TEXTURED = 0.1, 0.3  # root mean square of a cell: what has no texture to vary, what has one


def surface_share(texture: Texture) -> Tensor:
    """How much of a cell is surface, (B, 1, h, w) in [0, 1]: 0 on edges and where there is no texture."""
    means, differences = texture.strength.square().split(1, dim=1)
    strength = ((means + 3 * differences) / 4).sqrt()  # three coefficients of four are differences
    faintest = -F.max_pool2d(F.pad(-strength, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    evenness = (faintest + FLAT) / (strength + FLAT)
    return _ramp(evenness, EDGE, SURFACE) * _ramp(strength, FLAT, TEXTURED)


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    return ((x - low) / (high - low)).clamp(0, 1)
