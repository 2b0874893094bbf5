"""z_detail as what z_base already says, how much texture there is, and which; and where it is a surface's.

    z_detail = interpolation of z_base's coarse channels + texture

In each cell of 16 px the texture has 4 Haar coefficients a channel of z_detail: the cell's mean, which after
the exchange (`pmavae.latents`) is fine texture, and three differences, which are edges and coarser texture.
What is kept of them is their strength in the cell, a number for the means and one for the differences, and
how it is shared by the channels around it. What can be varied is the pattern. So no texture comes up where
there was none, none gets colours that were not there, and what is too faint to be seen changes as faintly.

A surface is about as strong all around. Where a cell is much stronger than the faintest one beside it, an
edge of something runs through it, or an eye looks out of it: to draw that anew would break it. z_base does
not pin edges down to the pixel, and its fine channels fit those that were there.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_STRENGTH = 1e-4  # keeps a flat cell finite; latents have about unit variance over photographs


@dataclass(frozen=True)
class Texture:
    """The z_detail (B, C, 2h, 2w) of a batch of pictures, taken apart."""

    smooth: Tensor  # (B, C, 2h, 2w): what z_base alone lets expect
    strength: Tensor  # (B, 2, h, w): root mean square of the cell's means and of its differences
    shares: Tensor  # (B, 2C, h, w): local deviation of each channel's means, then of its differences
    pattern: Tensor  # (B, 4C, h, w): C means, then 3C differences, each over its channel's deviation

    def join(self) -> Tensor:
        """The inverse of `take_apart`: z_detail (B, C, 2h, 2w)."""
        full = self.pattern * _for_each(self.shares)
        means_and_differences = full.tensor_split((full.shape[1] // 4,), dim=1)
        groups = [
            group * (strength / _rms(group))
            for group, strength in zip(means_and_differences, self.strength.split(1, dim=1), strict=True)
        ]
        return self.smooth + _from_haar(*groups)


def take_apart(z_base: Tensor, z_detail: Tensor) -> Texture:
    """z_base (B, M, h, w) and z_detail (B, C, 2h, 2w), C ≤ M, as `Texture`."""
    coarse = z_base[:, : z_detail.shape[1]]
    smooth = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    # The cells' means are not the smooth part's to say: those of z_detail are of another kind.
    smooth = smooth - F.interpolate(F.avg_pool2d(smooth, 2), scale_factor=2.0, mode="nearest")
    means, differences = _to_haar(z_detail - smooth)
    across = differences.unflatten(1, (3, -1)).square().mean(1)
    shares = (_around(torch.cat((means.square(), across), dim=1))).sqrt() + MIN_STRENGTH
    pattern = torch.cat((means, differences), dim=1) / _for_each(shares)
    return Texture(smooth, torch.cat((_rms(means), _rms(differences)), dim=1), shares, pattern)


def spread(pair: Tensor, channels: int) -> Tensor:
    """(B, 2, …), a number for means and one for differences, to the (B, channels, …) of a pattern."""
    return torch.cat(
        (
            pair[:, :1].expand(-1, channels // 4, *pair.shape[2:]),
            pair[:, 1:].expand(-1, 3 * (channels // 4), *pair.shape[2:]),
        ),
        dim=1,
    )


def _for_each(shares: Tensor) -> Tensor:
    """(B, 2C, h, w) of channels to (B, 4C, h, w) of their coefficients."""
    means, differences = shares.chunk(2, dim=1)
    return torch.cat((means, differences, differences, differences), dim=1)


def _around(x: Tensor) -> Tensor:
    """Binomial 3×3 mean of each channel."""
    channels = x.shape[1]
    line = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1, keepdim=True).sqrt() + MIN_STRENGTH


def _to_haar(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, 2h, 2w) to orthonormal means (B, C, h, w) and differences (B, 3C, h, w)."""
    a, b, c, d = (x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1))
    differences = torch.cat((a - b + c - d, a + b - c - d, a - b - c + d), dim=1)
    return (a + b + c + d) / 2, differences / 2


def _from_haar(means: Tensor, differences: Tensor) -> Tensor:
    across, down, crossed = differences.chunk(3, dim=1)
    corners = (
        means + across + down + crossed,
        means - across + down - crossed,
        means + across - down - crossed,
        means - across - down + crossed,
    )
    return F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2) / 2, 2)


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
