"""The network that restores a picture: a small encoder and decoder with gated skips between them.

The codec's latents hold a fifth of a number for each pixel, so what comes out of them cannot be truer
than their reconstruction. Here the features of every stride reach the decoder past the bottleneck, and
the picture itself reaches the output; `fidelity` is the gate of all of them.

There is no normalisation and no pooling over the picture: each output pixel depends on the input within
`config.margin` alone, so that a picture in tiles is the same as the whole, and no tile has a tone of its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.inference.offload import Budget
from pmavae.model import zero_init
from pmavae.network_configs import RESTORATIONS, RestorationConfig
from pmavae.pretrained.network import Pretrained


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3×3 (EDSR, arXiv 1707.02921).

    Dense convolutions, and not the codec's MobileConv: at the fine strides, where a restoration has its
    work, depthwise ones and their norms cost a CPU more time for less of it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 3, padding=1)
        self.gather = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gather(F.relu(self.spread(x), inplace=True))


def _stage(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[ResidualBlock(channels) for _ in range(count)])


def _up(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, 4 * c_out, 1, bias=False), nn.PixelShuffle(2))


class Restorer(Pretrained):
    """A damaged or small picture to a restored one.

    picture ─ unshuffle, levels ─ stem ─ stage 1 ──── gate ────► + ─ stage 1 ─ head ─► + the picture, gated
                                            └ stage 2 ─ gate ─► + ─ stage 2 ┘
                                                  └── middle ───┘

    A new network gives the picture back (scale 1) or its bicubic enlargement (scale 2 and 4).
    """

    config_type, tasks = RestorationConfig, RESTORATIONS

    def __init__(self, config: RestorationConfig, budget: Budget | None = None) -> None:
        super().__init__()
        self.config = config
        self.budget = budget or Budget()  # of tiles, where nobody says how large they are
        c1, c2, c4 = config.channels
        n1, n2, n4 = config.blocks
        self.stem = nn.Conv2d(3 * config.stem_stride**2 + 2, c1, 3, padding=1)
        self.fine_in, self.fine_out = _stage(c1, n1), _stage(c1, n1)
        self.down2 = nn.Conv2d(c1, c2, 2, stride=2)
        self.mid_in, self.mid_out = _stage(c2, n2), _stage(c2, n2)
        self.down4 = nn.Conv2d(c2, c4, 2, stride=2)
        self.bottom = _stage(c4, n4)
        self.up2, self.up1 = _up(c4, c2), _up(c2, c1)
        self.heads = nn.ModuleDict({str(scale): self._head(scale) for scale in config.scales})

    def _head(self, scale: int) -> nn.Sequential:
        c1, factor = self.config.channels[0], scale * self.config.stem_stride
        last = zero_init(nn.Conv2d(c1, 3 * factor**2, 3, padding=1))
        one_more = self.config.head_depth(scale) > 1
        first = [nn.Conv2d(c1, c1, 3, padding=1), nn.ReLU(inplace=True)] if one_more else []
        return nn.Sequential(*first, last, nn.PixelShuffle(factor))

    def forward(
        self, picture: Tensor, levels: Tensor, fidelity: Tensor | None = None, scale: int | None = None
    ) -> Tensor:
        """(B, 3, H, W), about in [0, 1], to (B, 3, scale·H, scale·W), not clamped.

        H and W are multiples of `config.multiple`. levels: (B, 2), see `Levels.numbers`. fidelity: (B,) in
        [0, 1], None for 1. scale: one of `config.scales`, None for the first.
        """
        scale = scale or self.config.scales[0]
        x = F.pixel_unshuffle(picture - 0.5, self.config.stem_stride)
        planes = levels[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        fine = self.fine_in(self.stem(torch.cat((x, planes), dim=1)))
        mid = self.mid_in(self.down2(fine))
        bottom = self.bottom(self.down4(mid))
        if fidelity is None:
            kept = picture
        else:
            gate = fidelity[:, None, None, None]
            fine, mid = gate * fine, gate * mid
            coarse = F.avg_pool2d(picture, self.config.multiple)
            coarse = F.interpolate(coarse, size=picture.shape[-2:], mode="bilinear")
            kept = torch.lerp(coarse, picture, gate)
        mid = self.mid_out(mid + self.up2(bottom))
        fine = self.fine_out(fine + self.up1(mid))
        residual = self.heads[str(scale)](fine).float()
        return enlarge(kept, scale) + residual


def enlarge(picture: Tensor, scale: int) -> Tensor:
    """Bicubic (a = −0.5) enlargement of (B, 3, H, W); the picture itself at scale 1."""
    if scale == 1:
        return picture
    size = [scale * side for side in picture.shape[-2:]]
    return F.interpolate(picture, size=size, mode="bicubic", antialias=True)  # for the −0.5: torch's is −0.75
