"""The architecture: an encoder to three latents, and a decoder that paints a picture of them.

    picture ─ unshuffle ─ MobileConv ×2 strides ─ Parallel Mamba ×2 strides ─► z_base, z_detail, z_style
    z_base, z_detail ─ Parallel Mamba ×2 strides ─ MobileConv ×2 strides ─ shuffle ─► picture
                       └── FiLM by z_style, paint by its amount ──┘

All blocks map (B, C, H, W) to (B, C, H, W) and work on any H and W. Every residual branch ends in a
projection that starts at zero, so that a new network is its linear shortcuts and training adds to them only
what is not linear. How a trained network runs fast and in little memory is in `pmavae.inference`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig
from pmavae.latents import (
    exchange,
    exchange_variances,
    join_style,
    normalise,
    restore,
    split_style,
    statistics,
)
from pmavae.ss2d import SS2D

INITIAL_LOGVAR = -6.0  # posterior noise of 5 % of a latent's deviation: too little to blur the start
LOGVAR_RANGE = (-12.0, 4.0)
NOISE_CHANNELS = 4


def zero_init(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Make a layer start as the constant zero."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position; free of charge in channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean of the picture (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class FiLM(nn.Module):
    """x * (1 + scale) + shift, both from the style code (arXiv 1709.07871); starts as identity."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.to_scale_shift = zero_init(nn.Linear(style_dim, 2 * channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.to_scale_shift(style)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class MobileConv(nn.Module):
    """Inverted residual: expand, depthwise convolution, squeeze-and-excite, project.

    Without normalisation: at the fine strides where this block lives a norm costs as much as the
    convolutions, and the zero start keeps so few layers stable without one. With a style code
    the features are modulated after the depthwise convolution.
    """

    def __init__(self, channels: int, *, expansion: int, se_reduction: int, style_dim: int = 0) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = nn.Conv2d(channels, inner, 1)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.film = FiLM(inner, style_dim) if style_dim else None
        self.squeeze_excite = SqueezeExcite(inner, se_reduction)
        self.project = zero_init(nn.Conv2d(inner, channels, 1))

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        y = self.depthwise(F.silu(self.expand(x)))  # (B, expansion · C, H, W)
        if self.film is not None:
            y = self.film(y, style)
        return x + self.project(self.squeeze_excite(F.silu(y)))


class ParallelMambaBlock(nn.Module):
    """Local and global context side by side, then a channel MLP.

    x = x + local(norm(x)) + ss2d(norm(x))     local: depthwise 3×3, SiLU, SE, pointwise
    x = x + mlp(film(norm(x), style))
    """

    def __init__(
        self, channels: int, *, mlp_ratio: float, se_reduction: int, d_state: int, style_dim: int = 0
    ) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.norm1 = ChannelNorm(channels)
        self.ss2d = SS2D(channels, d_state)
        self.local = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.SiLU(),
            SqueezeExcite(channels, se_reduction),
            zero_init(nn.Conv2d(channels, channels, 1)),
        )
        self.norm2 = ChannelNorm(channels)
        self.film = FiLM(channels, style_dim) if style_dim else None
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.SiLU(), zero_init(nn.Conv2d(hidden, channels, 1))
        )
        zero_init(self.ss2d.out_proj)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        x = x + self.local(y) + self.ss2d(y)
        y = self.norm2(x)
        if self.film is not None:
            y = self.film(y, style)
        return x + self.mlp(y)


def grain(height: int, width: int, device: torch.device, first_row: int = 0) -> Tensor:
    """(1, NOISE_CHANNELS, height, width): white noise that is a fixed function of the position.

    Zero mean, unit variance. An integer hash of row, column and channel, so the same everywhere and
    for every size: a picture is painted alike each time, on every device, whole or in parts.
    """
    rows = torch.arange(first_row, first_row + height, device=device)[:, None]
    columns = torch.arange(width, device=device)
    channels = torch.arange(NOISE_CHANNELS, device=device)[:, None, None]
    h = (rows * 374761393 + columns * 668265263 + channels * 2246822519) & 0xFFFFFFFF
    for shift in (15, 13):
        h = ((h ^ (h >> shift)) * 1274126177) & 0xFFFFFFFF
    uniform = (h >> 8).float() / 2**24
    return ((uniform - 0.5) * 12**0.5)[None]


class PaintBlock(nn.Module):
    """Adds strokes to the features of one decoder stage.

    (B, C, H, W) to (B, C, H, W). Features and grain are mixed, modulated by the paint code, drawn out
    by a wide depthwise convolution and added. The grain is where texture in a flat area comes from:
    without it all positions there are equal, and the only pattern left is the upsampling grid.
    """

    def __init__(self, channels: int, style_dim: int, kernel: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels + NOISE_CHANNELS, channels, 1)
        self.film = FiLM(channels, style_dim)
        # Zeros beyond the border would be painted as a frame.
        self.stroke = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, padding_mode="replicate"
        )
        self.project = zero_init(nn.Conv2d(channels, channels, 1))
        # Styles must differ from the first step, or they all learn one brush.
        nn.init.normal_(self.film.to_scale_shift.weight, std=style_dim**-0.5)

    def forward(self, x: Tensor, brush: Tensor, amount: Tensor) -> Tensor:
        """brush: the paint code (B, style_dim); amount: (B, 1, 1, 1), 0 leaves x as it is."""
        height, width = x.shape[-2:]
        noise = grain(height, width, x.device).to(x.dtype).expand(x.shape[0], -1, -1, -1)
        if self.training:  # the crops of a batch must not all learn one piece of the grain
            noise = (torch.rand_like(noise) - 0.5) * 12**0.5
        y = F.silu(self.film(self.mix(torch.cat((x, noise), dim=1)), brush))
        return x + amount * self.project(F.silu(self.stroke(y)))


def _mobile(config: ModelConfig, channels: int, count: int, style_dim: int = 0) -> list[MobileConv]:
    kind = partial(MobileConv, expansion=config.mobile_expansion, se_reduction=config.se_reduction)
    return [kind(channels, style_dim=style_dim) for _ in range(count)]


def _mamba(
    config: ModelConfig, channels: int, count: int, mlp_ratio: float, style_dim: int = 0
) -> list[ParallelMambaBlock]:
    kind = partial(ParallelMambaBlock, se_reduction=config.se_reduction, d_state=config.d_state)
    return [kind(channels, mlp_ratio=mlp_ratio, style_dim=style_dim) for _ in range(count)]


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

    At the end the two are normalised and exchange their coarse and fine halves; see `latents.exchange`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c2, c4, c8, c16 = config.encoder_channels
        n2, n4, n8, n16 = config.encoder_blocks
        ratio = config.encoder_mlp_ratio
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    nn.PixelUnshuffle(2), nn.Conv2d(12, c2, 3, padding=1), *_mobile(config, c2, n2)
                ),
                nn.Sequential(nn.Conv2d(c2, c4, 3, stride=2, padding=1), *_mobile(config, c4, n4)),
                nn.Sequential(nn.Conv2d(c4, c8, 3, stride=2, padding=1), *_mamba(config, c8, n8, ratio)),
                nn.Sequential(nn.Conv2d(c8, c16, 3, stride=2, padding=1), *_mamba(config, c16, n16, ratio)),
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
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)  # (B, c, H/2, W/2), then of the strides 4, 8 and 16
        _, _, at8, at16 = maps
        detail, logvar_detail = self.detail_head(at8).float().chunk(2, dim=1)
        base, logvar_base = self.base_head(at16).float().chunk(2, dim=1)
        learned, logvar_style = self.style_head([statistics(x) for x in maps])
        linear_detail, linear_base = self.linear(picture)
        detail, base = detail + linear_detail, base + linear_base
        base_stats, detail_stats = statistics(base), statistics(detail)
        z_base, z_detail = exchange(normalise(base, base_stats), normalise(detail, detail_stats))
        logvar_base, logvar_detail = exchanged_logvars(logvar_base, logvar_detail)
        return Posterior(
            z_base=z_base,
            z_detail=z_detail,
            z_style=join_style(base_stats, detail_stats, learned.float()),
            logvar_base=logvar_base,
            logvar_detail=logvar_detail,
            logvar_style=logvar_style.float()[:, :, None, None],
        )

    def linear(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The linear shortcuts to z_detail and z_base."""
        with torch.autocast(picture.device.type, enabled=False):  # bf16 would band smooth skies
            centred = picture - 0.5
            return (
                _block_maps(centred, self.linear_detail, DETAIL_STRIDE),
                _block_maps(centred, self.linear_base, BASE_STRIDE),
            )


def exchanged_logvars(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """What the heads say of the variances, as log-variances of what is exchanged."""
    of_base, of_detail = exchange_variances(_variance(base), _variance(detail))
    return of_base.log(), of_detail.log()


def _block_maps(x: Tensor, unshuffle_and_map: nn.Sequential, side: int) -> Tensor:
    """A linear map of blocks of side × side px: a convolution whose stride is its side."""
    conv = cast(nn.Conv2d, unshuffle_and_map[1])
    return F.conv2d(x, conv.weight.unflatten(1, (3, side, side))[..., 0, 0], conv.bias, side)


def _variance(logvar: Tensor) -> Tensor:
    return torch.exp((logvar + INITIAL_LOGVAR).clamp(*LOGVAR_RANGE))


class Stage(nn.Module):
    """The blocks of one stride, modulated by the style code, then its paint blocks by the paint code."""

    def __init__(self, blocks: Sequence[nn.Module], paint: Sequence[PaintBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.paint = nn.ModuleList(paint)

    def forward(self, x: Tensor, style: Tensor, paint: Tensor | None, amount: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, style)
        for block in self.paint if paint is not None else ():
            x = block(x, paint, amount)
        return x


class ShuffleUp(nn.Sequential):
    """A convolution, then PixelShuffle: (B, C, H, W) to twice the height and width."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1) -> None:
        super().__init__(nn.Conv2d(c_in, 4 * c_out, kernel, padding=kernel // 2), nn.PixelShuffle(2))


class Decoder(nn.Module):
    """z_base, z_detail and z_style to a picture (B, 3, H, W), about in [0, 1], not clamped.

        z_base ── restore ─┬─ stage 16 ─ shuffle ─ stage 8 ─ shuffle ─ stage 4 ─ shuffle ─ stage 2 ─ out ┐
        z_detail ─ restore ┼──────────────────────────┘                                                  │
                           └── lapped linear maps: a latent paints a window over its neighbours' ────────┴► +

    First the exchange is undone. `restore` puts the statistics of z_style back, so that a swapped
    z_style reaches the linear maps as well as, through FiLM, every stage.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c16, c8, c4, c2 = config.decoder_channels
        n16, n8, n4, n2 = config.decoder_blocks
        p16, p8, p4, p2 = config.paint_blocks
        style_dim, ratio = config.style_hidden, config.decoder_mlp_ratio

        def paint(channels: int, count: int) -> list[PaintBlock]:
            return [PaintBlock(channels, style_dim, config.paint_kernel) for _ in range(count)]

        style_numbers = config.style_channels - 1  # all but the amount, which gates and does not modulate
        self.style_code = nn.Sequential(nn.Linear(style_numbers, style_dim), nn.SiLU())
        self.paint_code = nn.Sequential(
            nn.Linear(style_numbers, style_dim), nn.SiLU(), nn.Linear(style_dim, style_dim), nn.SiLU()
        )
        self.base_in = nn.Conv2d(config.base_channels, c16, 3, padding=1)
        self.detail_in = nn.Conv2d(config.detail_channels, c8, 3, padding=1)
        self.stage16 = Stage(_mamba(config, c16, n16, ratio, style_dim), paint(c16, p16))
        self.stage8 = Stage(_mamba(config, c8, n8, ratio, style_dim), paint(c8, p8))
        self.stage4 = Stage(_mobile(config, c4, n4, style_dim), paint(c4, p4))
        self.stage2 = Stage(_mobile(config, c2, n2, style_dim), paint(c2, p2))
        self.up8, self.up4, self.up2 = ShuffleUp(c16, c8), ShuffleUp(c8, c4), ShuffleUp(c4, c2)
        self.out, self.paint_out = ShuffleUp(c2, 3, kernel=3), ShuffleUp(c2, 3, kernel=3)
        for last in (self.out[0], self.paint_out[0]):
            zero_init(cast(nn.Conv2d, last))

        # kernel = 1.5 and 2 strides: the windows of neighbours overlap, so no block grid shows
        self.lapped_base = nn.ConvTranspose2d(
            config.base_channels, 3, 24, stride=BASE_STRIDE, padding=4, bias=False
        )
        self.lapped_detail = nn.ConvTranspose2d(
            config.detail_channels, 3, 16, stride=DETAIL_STRIDE, padding=4, bias=False
        )

    def forward(self, z_base: Tensor, z_detail: Tensor, z_style: Tensor, paint: bool = True) -> Tensor:
        """`paint=False` skips the paint blocks: right, and faster, where every amount is 0."""
        base, detail = self.restored(z_base, z_detail, z_style)
        style, brush, amount = self.codes(z_style, paint)
        x = self.stage16(self.base_in(base), style, brush, amount)  # (B, c16, H/16, W/16)
        x = self.stage8(self.up8(x) + self.detail_in(detail), style, brush, amount)  # (B, c8, H/8, W/8)
        x = self.stage4(self.up4(x), style, brush, amount)  # (B, c4, H/4, W/4)
        x = self.stage2(self.up2(x), style, brush, amount)  # (B, c2, H/2, W/2)
        picture = self.linear(base, detail) + 0.5 + self.out(x).float()  # (B, 3, H, W)
        return picture + amount * self.paint_out(x).float() if paint else picture

    def restored(self, z_base: Tensor, z_detail: Tensor, z_style: Tensor) -> tuple[Tensor, Tensor]:
        """The latents with the exchange undone and their statistics put back."""
        base_stats, detail_stats, _, _ = split_style(z_style.float(), self.config)
        base, detail = exchange(z_base, z_detail)
        return restore(base, base_stats), restore(detail, detail_stats)

    def codes(self, z_style: Tensor, paint: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        """The style code (B, style_hidden), the paint code alike or None, the amount (B, 1, 1, 1)."""
        numbers = z_style.flatten(1)[:, :-1]
        amount = z_style.float()[:, -1:]
        return self.style_code(numbers), self.paint_code(numbers) if paint else None, amount

    def linear(self, base: Tensor, detail: Tensor) -> Tensor:
        """What the lapped linear maps paint, (B, 3, H, W)."""
        with torch.autocast(base.device.type, enabled=False):
            lapped: Tensor = self.lapped_base(base) + self.lapped_detail(detail)
        return lapped
