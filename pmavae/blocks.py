"""The two blocks that every stage is made of, and the small parts they share.

All modules map (B, C, H, W) to (B, C, H, W) and work on any H and W. Every residual branch ends
in a projection that starts at zero, so that a new network is its linear shortcuts and training
adds to them only what is not linear.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.inference.fused import (
    conv_add,
    conv_silu,
    is_plain_inference,
    means_of,
    modulated,
    strips_of,
    sums_of,
    with_neighbours,
)
from pmavae.inference.offload import empty_map, let_go
from pmavae.ss2d import SS2D


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

    def gate_of_mean(self, mean: Tensor) -> Tensor:
        """The gate (C,) of one picture with these means (1, C)."""
        gate: Tensor = self.gate(mean)[0]
        return gate

    def gate_of(self, x: Tensor) -> Tensor:
        """The gate (C,) of one picture."""
        return self.gate_of_mean(means_of(x))


class FiLM(nn.Module):
    """x * (1 + scale) + shift, both from the style code (arXiv 1709.07871); starts as identity."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.to_scale_shift = zero_init(nn.Linear(style_dim, 2 * channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.to_scale_shift(style)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift

    def of_one(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift, (C,) each, of one picture's style code."""
        scale, shift = self.to_scale_shift(style)[0].chunk(2)
        return scale, shift


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
        if x.shape[0] == 1 and is_plain_inference(x):
            return self._of_one(x, style)
        y = self.depthwise(F.silu(self.expand(x)))
        if self.film is not None:
            y = self.film(y, style)
        return x + self.project(self.squeeze_excite(F.silu(y)))

    def _of_one(self, x: Tensor, style: Tensor | None) -> Tensor:
        """The same for one picture, whose modulation and gate are part of the weights."""
        strips = strips_of(x, self.expand.out_channels)
        if len(strips) == 1 or not x.is_contiguous(memory_format=torch.channels_last):
            y = self.before_gate(x, style)
            return self.after_gate(y, x, self.squeeze_excite.gate_of(y))
        modulation = self.modulation(style)
        parts = [self._before_gate_of(x, rows, *modulation) for rows in strips]
        total = torch.stack([sums_of(part) for part in parts]).sum(0)
        gate = self.squeeze_excite.gate_of_mean(total / (x.shape[2] * x.shape[3]))
        result = torch.empty_like(x)
        parts.reverse()
        for rows in strips:  # popped, so that a strip's memory serves the next
            result[:, :, rows] = self.after_gate(parts.pop(), x[:, :, rows], gate)
        return result

    def _before_gate_of(self, x: Tensor, rows: slice, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Rows of what `before_gate` gives."""
        outer, inner = with_neighbours(x, rows)
        y = conv_silu(outer, self.expand, self.expand.weight, self.expand.bias)
        top, bottom = int(inner.start == 0), int(inner.stop == outer.shape[2])
        if top or bottom:
            y = F.pad(y, (0, 0, top, bottom))
        return conv_silu(y, self.depthwise, weight, bias, padding=(0, 1))

    def modulation(self, style: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the depthwise convolution with the style's modulation in them."""
        if self.film is None:
            return self.depthwise.weight, self.depthwise.bias
        assert style is not None
        return modulated(self.depthwise, *self.film.of_one(style))

    def before_gate(self, x: Tensor, style: Tensor | None) -> Tensor:
        """What is to be gated; x: one picture, or parts of one, whose style code is (1, style_dim)."""
        y = conv_silu(x, self.expand, self.expand.weight, self.expand.bias)
        return conv_silu(y, self.depthwise, *self.modulation(style))

    def after_gate(self, y: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        """The output, from what `before_gate` made of x and the gate (C,) of the whole picture."""
        return conv_add(y, x, self.project.weight * gate[:, None, None], self.project.bias)


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
        if x.shape[0] == 1 and is_plain_inference(x):
            return self._of_one(x, style)
        y = self.norm1(x)
        x = x + self.local(y) + self.ss2d(y)
        y = self.norm2(x)
        if self.film is not None:
            y = self.film(y, style)
        return x + self.mlp(y)

    def _of_one(self, x: Tensor, style: Tensor | None) -> Tensor:
        """The same for one picture, whose modulation and gate are part of the weights.

        Large ones in strips of rows, but for the scan: of whole maps there are then x, two of the scan and no
        more, and what is local is computed twice rather than kept.
        """
        layers: list[Any] = [*self.local, *self.mlp]
        depthwise, _, squeeze_excite, project, expand, _, narrow = layers
        weight, bias = expand.weight, expand.bias
        if self.film is not None:
            assert style is not None
            scale, shift = self.film.of_one(style)
            weight, bias = weight * (1 + scale)[None, :, None, None], bias + weight[..., 0, 0] @ shift

        def local(y: Tensor) -> Tensor:
            return conv_silu(y, depthwise, depthwise.weight, depthwise.bias)

        def finished(z: Tensor, x: Tensor, scanned: Tensor, gated: Tensor) -> Tensor:
            x = conv_add(z, x, gated, project.bias)
            x = conv_add(scanned, x, self.ss2d.out_proj.weight, None)
            z = conv_silu(self.norm2(x), expand, weight, bias)
            return conv_add(z, x, narrow.weight, narrow.bias)

        strips = strips_of(x, expand.out_channels)
        if len(strips) == 1:
            y = self.norm1(x)
            z = local(y)
            gated = project.weight * squeeze_excite.gate_of(z)[:, None, None]
            return finished(z, x, self.ss2d.before_projection(y), gated)

        u = empty_map(tuple(x.shape), x)
        total = torch.zeros(x.shape[1], dtype=torch.float64)
        for rows in strips:
            outer, inner = with_neighbours(x, rows)
            y = self.norm1(outer)
            u[:, :, rows] = self.ss2d.scanned_in(y)[:, :, inner]
            total += local(y)[0, :, inner].sum((1, 2)).double()
            let_go(2 * y.numel() * y.element_size())
        mean = (total / (x.shape[2] * x.shape[3])).to(x.dtype)
        gated = project.weight * squeeze_excite.gate(mean[None])[0][:, None, None]
        scanned = self.ss2d.selective_scan(u.permute(0, 2, 3, 1))
        result = u  # what was scanned is not needed again
        for rows in strips:
            outer, inner = with_neighbours(x, rows)
            z = local(self.norm1(outer))[:, :, inner]
            after = self.ss2d.out_norm(scanned[:, rows]).permute(0, 3, 1, 2)
            result[:, :, rows] = finished(z, x[:, :, rows], after, gated)
            let_go(3 * z.numel() * z.element_size())
        return result
