"""The encoder: a picture becomes posterior means and log-variances of three latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmavae.blocks import MobileConv, ParallelMambaBlock, zero_init
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig
from pmavae.exchange import exchange, exchange_variances
from pmavae.style import join_style, normalise, statistics

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

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor]:
        pooled = torch.cat([statistics(x) for x in stages], dim=1)  # (B, 2 * sum(stage_channels))
        mean, logvar = self.mlp(pooled).chunk(2, dim=1)
        return mean, (logvar + INITIAL_LOGVAR).clamp(*LOGVAR_RANGE)


class Encoder(nn.Module):
    """Picture in [0, 1], (B, 3, H, W) with H and W multiples of 16, to a `Posterior`.

    picture ─ unshuffle ─ stage 2 ─ stage 4 ─ stage 8 ─ stage 16 ─► z_base
       │                     └─────────┴────┬────┴─► z_detail └────► z_style
       └── linear shortcuts (a PCA of 8×8 and 16×16 blocks) ──► added to z_detail and z_base

    At the end the two are normalised and exchange their coarse and fine halves; see exchange.py.
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
        x = picture - 0.5
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        detail, logvar_detail = self.detail_head(stages[2]).float().chunk(2, dim=1)
        base, logvar_base = self.base_head(stages[3]).float().chunk(2, dim=1)
        learned, logvar_style = self.style_head(stages)
        with torch.autocast(picture.device.type, enabled=False):  # bf16 would band smooth skies
            detail = detail + self.linear_detail(picture - 0.5)
            base = base + self.linear_base(picture - 0.5)
        base_stats, detail_stats = statistics(base), statistics(detail)
        z_base, z_detail = exchange(normalise(base, base_stats), normalise(detail, detail_stats))
        variances = exchange_variances(_variance(logvar_base), _variance(logvar_detail))
        return Posterior(
            z_base=z_base,
            z_detail=z_detail,
            z_style=join_style(base_stats, detail_stats, learned.float()),
            logvar_base=variances[0].log(),
            logvar_detail=variances[1].log(),
            logvar_style=logvar_style.float()[:, :, None, None],
        )


def _variance(logvar: Tensor) -> Tensor:
    return torch.exp((logvar + INITIAL_LOGVAR).clamp(*LOGVAR_RANGE))
