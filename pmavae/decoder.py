"""The decoder: latents become a picture, in the style that z_style tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from pmavae.blocks import MobileConv, ParallelMambaBlock, zero_init
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig
from pmavae.inference.fused import conv_alone, is_plain_inference
from pmavae.inference.offload import added, in_strips
from pmavae.latents import exchange, restore, split_style
from pmavae.paint import PaintBlock


class Stage(nn.Module):
    """The blocks of one stride, modulated by the style code, then its paint blocks by the paint code."""

    def __init__(self, blocks: list[nn.Module], paint: list[PaintBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.paint = nn.ModuleList(paint)

    def forward(self, x: Tensor, style: Tensor, paint: Tensor | None, amount: Tensor) -> Tensor:
        for step in self.steps(style, paint, amount):
            x = step(x)
        return x

    def steps(self, style: Tensor, paint: Tensor | None, amount: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """The blocks, one after the other: who calls them need not hold what went into the first."""
        plain: list[Callable[[Tensor], Tensor]] = [partial(block, style=style) for block in self.blocks]
        if paint is None:
            return plain
        return [*plain, *(partial(block, brush=paint, amount=amount) for block in self.paint)]


class ShuffleUp(nn.Sequential):
    """A convolution, then PixelShuffle: (B, C, H, W) to twice the height and width, in the dtype of x."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1) -> None:
        super().__init__(nn.Conv2d(c_in, 4 * c_out, kernel, padding=kernel // 2), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        conv, shuffle = self
        assert isinstance(conv, nn.Conv2d)
        result: Tensor = shuffle(conv_alone(x, conv) if is_plain_inference(x) else conv(x))
        return result


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
        style_dim = config.style_hidden

        def mamba(channels: int) -> nn.Module:
            return ParallelMambaBlock(
                channels,
                mlp_ratio=config.decoder_mlp_ratio,
                se_reduction=config.se_reduction,
                d_state=config.d_state,
                style_dim=style_dim,
            )

        def mobile(channels: int) -> nn.Module:
            return MobileConv(
                channels,
                expansion=config.mobile_expansion,
                se_reduction=config.se_reduction,
                style_dim=style_dim,
            )

        def paint(channels: int, count: int) -> list[PaintBlock]:
            return [PaintBlock(channels, style_dim, config.paint_kernel) for _ in range(count)]

        style_numbers = config.style_channels - 1  # all but the amount, which gates and does not modulate
        self.style_code = nn.Sequential(nn.Linear(style_numbers, style_dim), nn.SiLU())
        self.paint_code = nn.Sequential(
            nn.Linear(style_numbers, style_dim), nn.SiLU(), nn.Linear(style_dim, style_dim), nn.SiLU()
        )
        self.base_in = nn.Conv2d(config.base_channels, c16, 3, padding=1)
        self.detail_in = nn.Conv2d(config.detail_channels, c8, 3, padding=1)
        self.stage16 = Stage([mamba(c16) for _ in range(n16)], paint(c16, p16))
        self.stage8 = Stage([mamba(c8) for _ in range(n8)], paint(c8, p8))
        self.stage4 = Stage([mobile(c4) for _ in range(n4)], paint(c4, p4))
        self.stage2 = Stage([mobile(c2) for _ in range(n2)], paint(c2, p2))
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

    def forward(
        self,
        z_base: Tensor,
        z_detail: Tensor,
        z_style: Tensor,
        paint: bool = True,
        fine: torch.dtype | None = None,
    ) -> Tensor:
        """`paint=False` skips the paint blocks: right, and faster, where every amount is 0.

        `fine`: the dtype of the two fine stages, of one picture without paint and a gradient on the CPU; see
        `decoding_dtype`.
        """
        base, detail = self.restored(z_base, z_detail, z_style)
        style, brush, amount = self.codes(z_style, paint)
        linear = self.linear(base, detail)
        x = self.coarse(base, detail, style, brush, amount)
        x = x if fine is None else x.to(fine)
        x = self.stage4(self.up4(x), style, brush, amount)
        x = self.stage2(self.up2(x), style, brush, amount)
        picture = linear.add_(0.5) if is_plain_inference(x) else linear + 0.5
        picture = picture.add_(self.out(x)) if is_plain_inference(x) else picture + self.out(x).float()
        return picture + amount * self.paint_out(x).float() if paint else picture

    @property
    def widest(self) -> int:
        """Channels inside the blocks of the finest stage."""
        return max(block.expand.out_channels for block in cast(Iterable[MobileConv], self.stage2.blocks))

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

    def coarse(
        self, base: Tensor, detail: Tensor, style: Tensor, brush: Tensor | None, amount: Tensor
    ) -> Tensor:
        """The features at the stride of z_detail, after its blocks."""
        x = in_strips(self.base_in, base, self.base_in.out_channels, reach=1)
        for step in self.stage16.steps(style, brush, amount):
            x = step(x)
        beside = in_strips(self.detail_in, detail, self.detail_in.out_channels, reach=1)
        x = in_strips(self.up8, x, beside.shape[1], rows_out=2)
        x = added(x, beside) if is_plain_inference(x) else x + beside
        del beside
        for step in self.stage8.steps(style, brush, amount):
            x = step(x)
        return x
