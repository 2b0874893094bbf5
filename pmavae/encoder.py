"""The encoder: a picture becomes posterior means and log-variances of three latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.blocks import MobileConv, ParallelMambaBlock, zero_init
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig
from pmavae.inference.fused import in_channels_last
from pmavae.inference.layers import statistics
from pmavae.inference.offload import both_in_strips, in_strips
from pmavae.latents import exchange, exchange_variances, join_style, normalise

INITIAL_LOGVAR = -6.0  # posterior noise of 5 % of a latent's deviation: too little to blur the start
LOGVAR_RANGE = (-12.0, 4.0)


@dataclass(frozen=True)
class Posterior:
    """Diagonal Gaussians of a batch of padded pictures."""

    z_base: Tensor  # (B, base_channels, H/16, W/16)
    z_detail: Tensor  # (B, detail_channels, H/8, W/8)
    z_style: Tensor  # (B, style_channels, 1, 1)
    logvar_base: Tensor  # shape of z_base
    logvar_detail: Tensor  # shape of z_detail
    logvar_style: Tensor  # (B, learned_channels, 1, 1): of the learned numbers only


class StyleHead(nn.Module):
    """The learned numbers of z_style, from mean and deviation of every stage's channels."""

    def __init__(self, stage_channels: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.LayerNorm(2 * sum(stage_channels)),
            nn.Linear(2 * sum(stage_channels), config.style_hidden),
            nn.SiLU(),
            nn.Linear(config.style_hidden, 2 * config.learned_channels),
        )

    def forward(self, pooled: list[Tensor]) -> tuple[Tensor, Tensor]:
        """pooled: the `statistics` of every stage, from the finest on."""
        mean, logvar = self.mlp(torch.cat(pooled, dim=1)).chunk(2, dim=1)
        return mean, (logvar + INITIAL_LOGVAR).clamp(*LOGVAR_RANGE)


class Encoder(nn.Module):
    """Picture in [0, 1], (B, 3, H, W) with H and W multiples of 16, to a `Posterior`.

    picture ─ unshuffle ─ stage 2 ─ stage 4 ─ stage 8 ─ stage 16 ─► z_base
       │                     └─────────┴────┬────┴─► z_detail └────► z_style
       └── linear shortcuts (a PCA of 8×8 and 16×16 blocks) ──► added to z_detail and z_base

    At the end the two are normalised and exchange their coarse and fine halves; see latents.py.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c2, c4, c8, c16 = config.encoder_channels
        n2, n4, n8, n16 = config.encoder_blocks

        def mobile(channels: int) -> nn.Module:
            return MobileConv(channels, expansion=config.mobile_expansion, se_reduction=config.se_reduction)

        def mamba(channels: int) -> nn.Module:
            return ParallelMambaBlock(
                channels,
                mlp_ratio=config.encoder_mlp_ratio,
                se_reduction=config.se_reduction,
                d_state=config.d_state,
            )

        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    nn.PixelUnshuffle(2), nn.Conv2d(12, c2, 3, padding=1), *[mobile(c2) for _ in range(n2)]
                ),
                nn.Sequential(nn.Conv2d(c2, c4, 3, stride=2, padding=1), *[mobile(c4) for _ in range(n4)]),
                nn.Sequential(nn.Conv2d(c4, c8, 3, stride=2, padding=1), *[mamba(c8) for _ in range(n8)]),
                nn.Sequential(nn.Conv2d(c8, c16, 3, stride=2, padding=1), *[mamba(c16) for _ in range(n16)]),
            ]
        )
        self.detail_head = zero_init(nn.Conv2d(c8, 2 * config.detail_channels, 1))
        self.base_head = zero_init(nn.Conv2d(c16, 2 * config.base_channels, 1))
        self.style_head = StyleHead(config.encoder_channels, config)

        self.linear_detail = nn.Sequential(
            nn.PixelUnshuffle(DETAIL_STRIDE), nn.Conv2d(3 * DETAIL_STRIDE**2, config.detail_channels, 1)
        )
        self.linear_base = nn.Sequential(
            nn.PixelUnshuffle(BASE_STRIDE), nn.Conv2d(3 * BASE_STRIDE**2, config.base_channels, 1)
        )

    def forward(self, picture: Tensor) -> Posterior:
        x = in_channels_last(picture - 0.5)
        fine = []
        for stage in self.fine_stages:
            x = stage(x)
            fine.append(statistics(x))
        return self.finish(self.to_coarse(x), fine, *self.linear(picture))

    @property
    def fine_stages(self) -> list[nn.Sequential]:
        """Those of strides 2 and 4, which are local but for their gates."""
        return cast(list[nn.Sequential], [*self.stages[:2]])

    def to_coarse(self, x: Tensor) -> Tensor:
        """From the stride 4 to that of z_detail."""
        coarser: Tensor = cast(nn.Sequential, self.stages[2])[0](x)
        return coarser

    @property
    def widest(self) -> int:
        """Channels inside the blocks of the finest stage."""
        return cast(MobileConv, self.fine_stages[0][-1]).expand.out_channels

    def linear(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The linear shortcuts to z_detail and z_base."""
        with torch.autocast(picture.device.type, enabled=False):  # bf16 would band smooth skies
            centred = picture - 0.5
            return (
                _block_maps(centred, self.linear_detail, DETAIL_STRIDE),
                _block_maps(centred, self.linear_base, BASE_STRIDE),
            )

    def finish(self, x: Tensor, fine: list[Tensor], linear_detail: Tensor, linear_base: Tensor) -> Posterior:
        """The rest, from the features at the stride of z_detail on, before their blocks.

        fine: the statistics of the first two stages. linear_detail and linear_base: of `linear`.
        """
        _, *blocks = cast(nn.Sequential, self.stages[2])
        for block in blocks:
            x = block(x)
        at8 = x
        step, *blocks = cast(nn.Sequential, self.stages[3])
        at16 = in_strips(step, at8, self.config.encoder_channels[3], reach=1, rows_in=2)
        for block in blocks:
            at16 = block(at16)
        of_detail = in_strips(self.detail_head, at8, 2 * self.config.detail_channels)
        of_base = in_strips(self.base_head, at16, 2 * self.config.base_channels)
        detail, logvar_detail = of_detail.float().chunk(2, dim=1)
        base, logvar_base = of_base.float().chunk(2, dim=1)
        learned, logvar_style = self.style_head([*fine, statistics(at8), statistics(at16)])
        detail, base = detail + linear_detail, base + linear_base
        del of_detail, of_base, linear_detail, linear_base, x, at8, at16
        base_stats, detail_stats = statistics(base), statistics(detail)

        def means(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
            return exchange(normalise(base, base_stats), normalise(detail, detail_stats))

        z_base, z_detail = both_in_strips(means, base, detail)
        del base, detail
        logvar_base, logvar_detail = both_in_strips(_exchanged_logvars, logvar_base, logvar_detail)
        return Posterior(
            z_base=z_base,
            z_detail=z_detail,
            z_style=join_style(base_stats, detail_stats, learned.float()),
            logvar_base=logvar_base,
            logvar_detail=logvar_detail,
            logvar_style=logvar_style.float()[:, :, None, None],
        )


def _exchanged_logvars(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """What the heads say of the variances, as log-variances of what is exchanged."""
    of_base, of_detail = exchange_variances(_variance(base), _variance(detail))
    return of_base.log(), of_detail.log()


def _block_maps(x: Tensor, unshuffle_and_map: nn.Sequential, side: int) -> Tensor:
    """A linear map of blocks of side × side px: a convolution whose stride is its side."""
    conv = cast(nn.Conv2d, unshuffle_and_map[1])
    return F.conv2d(x, conv.weight.unflatten(1, (3, side, side))[..., 0, 0], conv.bias, side)


def _variance(logvar: Tensor) -> Tensor:
    return torch.exp((logvar + INITIAL_LOGVAR).clamp(*LOGVAR_RANGE))
