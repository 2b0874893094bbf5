"""Paint: what turns a picture with another's colours into one with another's brush strokes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.blocks import FiLM, zero_init
from pmavae.inference.fused import (
    conv_add,
    conv_silu,
    is_plain_inference,
    modulated,
    strips_of,
    with_neighbours,
)
from pmavae.inference.offload import empty_map, let_go

NOISE_CHANNELS = 4


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
        if x.shape[0] == 1 and not self.training and is_plain_inference(x):
            return self._of_one(x, brush, amount)
        height, width = x.shape[-2:]
        noise = grain(height, width, x.device).to(x.dtype).expand(x.shape[0], -1, -1, -1)
        if self.training:  # the crops of a batch must not all learn one piece of the grain
            noise = (torch.rand_like(noise) - 0.5) * 12**0.5
        y = F.silu(self.film(self.mix(torch.cat((x, noise), dim=1)), brush))
        return x + amount * self.project(F.silu(self.stroke(y)))

    def _of_one(self, x: Tensor, brush: Tensor, amount: Tensor) -> Tensor:
        """The same for one picture; a large one in strips of rows."""
        height, width = x.shape[-2:]
        strips = strips_of(x, 2 * x.shape[1])
        if len(strips) == 1:
            return self.with_noise(x, grain(height, width, x.device), brush, amount)
        result = empty_map(tuple(x.shape), x)
        for rows in strips:
            outer, inner = with_neighbours(x, rows, self.stroke.kernel_size[0] // 2)
            noise = grain(outer.shape[2], width, x.device, rows.start - inner.start)
            result[:, :, rows] = self.with_noise(outer, noise, brush, amount)[:, :, inner]
            let_go(2 * outer.numel() * outer.element_size())
        return result

    def with_noise(self, x: Tensor, noise: Tensor, brush: Tensor, amount: Tensor) -> Tensor:
        """The same for one picture, or parts of one, whose modulation and amount are part of the weights."""
        weight, bias = modulated(self.mix, *self.film.of_one(brush))
        y = conv_silu(torch.cat((x, noise), dim=1), self.mix, weight, bias)
        reach = self.stroke.kernel_size[0] // 2
        y = F.pad(y, (reach,) * 4, mode="replicate")
        y = conv_silu(y, self.stroke, self.stroke.weight, self.stroke.bias, padding=0)
        gain = amount.flatten()
        moved = None if self.project.bias is None else self.project.bias * gain
        return conv_add(y, x, self.project.weight * gain, moved)
