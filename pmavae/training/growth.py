"""A larger network that begins where a smaller one is (Net2Net, arXiv 1511.05641).

A new channel duplicates an old one and is read with weight zero, so what is computed hardly changes: only the
norms over channels see the duplicates, which leave mean and deviation about as they were. A new block is the
identity, because its last projection starts at zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pmavae.autoencoder import PMAVAE
from pmavae.config import ModelConfig
from pmavae.errors import WeightsError
from pmavae.model import NOISE_CHANNELS

PIXEL_SHUFFLE = 4  # neighbouring channels that become one channel of twice the size


@dataclass(frozen=True)
class _Axis:
    """Where the channels of a longer axis come from."""

    source: Tensor  # (new,) the index of an old channel
    is_old: Tensor  # (new,) False for duplicates

    @classmethod
    def of(cls, old: int, new: int, parts: int = 1, unit: int = 1) -> _Axis:
        """`parts` equal chunks one after the other, each of channels of `unit` neighbours."""
        before, after = old // parts // unit, new // parts // unit
        extra = torch.arange(after - before) * before // max(1, after - before)
        source = torch.cat((torch.arange(before), extra))
        is_old = torch.arange(after) < before
        source = (source[:, None] * unit + torch.arange(unit)).flatten()
        is_old = is_old.repeat_interleave(unit)
        return cls(torch.cat([source + part * (old // parts) for part in range(parts)]), is_old.repeat(parts))

    def written(self, weight: Tensor, dim: int) -> Tensor:
        """A weight whose axis `dim` makes channels: duplicates are made as their source is."""
        return weight.index_select(dim, self.source)

    def read(self, weight: Tensor, dim: int) -> Tensor:
        """A weight whose axis `dim` reads channels: duplicates count nothing."""
        shape = [1] * weight.dim()
        shape[dim] = -1
        return weight.index_select(dim, self.source) * self.is_old.view(shape)


@torch.no_grad()
def grown(small: PMAVAE, config: ModelConfig) -> PMAVAE:
    """A network of the larger `config` that computes nearly what `small` does.

    Raises WeightsError where a part of `config` is smaller, or its latents are others.
    """
    old = small.config
    _check(old, config)
    large = PMAVAE(config)
    weights, wanted = small.state_dict(), large.state_dict()
    for name, target in wanted.items():
        if name in weights:
            target.copy_(_enlarged(name, weights[name], target.shape, old, config))
    large.load_state_dict(wanted)
    return large


def _check(old: ModelConfig, new: ModelConfig) -> None:
    latents = ("base_channels", "detail_channels", "style_channels")
    if any(getattr(old, name) != getattr(new, name) for name in latents):
        raise WeightsError(f"preset {old.preset} cannot grow to {new.preset}, which has other latents")
    sizes = ("encoder_channels", "encoder_blocks", "decoder_channels", "decoder_blocks")
    if any(a > b for name in sizes for a, b in zip(getattr(old, name), getattr(new, name), strict=True)):
        raise WeightsError(f"preset {old.preset} is not smaller than {new.preset} in all its parts")


def _enlarged(name: str, weight: Tensor, shape: torch.Size, old: ModelConfig, new: ModelConfig) -> Tensor:
    if weight.shape == shape:
        return weight
    if re.search(r"style_head\.mlp\.(0\.|1\.weight)", name):
        axis = _statistics(old, new)
        return axis.written(weight, 0) if weight.dim() == 1 else axis.read(weight, 1)
    if name.endswith("x_proj"):  # (4, R + 2, C): step sizes in their bottleneck, then B and C
        rank, longer = weight.shape[1] - 2, shape[1] - 2
        low_rank = _Axis.of(rank, longer).written(weight[:, :rank], 1)
        return _Axis.of(weight.shape[2], shape[2]).read(torch.cat((low_rank, weight[:, rank:]), 1), 2)
    if name.endswith("dt_proj"):  # (4, C, R)
        weight = _Axis.of(weight.shape[1], shape[1]).written(weight, 1)
        return _Axis.of(weight.shape[2], shape[2]).read(weight, 2)
    if re.search(r"dt_bias|A_log|ss2d\.D$", name):
        return _Axis.of(weight.shape[1], shape[1]).written(weight, 1)
    if weight.shape[0] != shape[0]:
        parts = 2 if "to_scale_shift" in name else 1
        unit = PIXEL_SHUFFLE if re.search(r"decoder\.up\d", name) else 1
        weight = _Axis.of(weight.shape[0], shape[0], parts, unit).written(weight, 0)
    if weight.dim() > 1 and weight.shape[1] != shape[1]:
        grain = NOISE_CHANNELS if ".mix." in name else 0  # the last of what the paint mixes
        channels = weight.shape[1] - grain
        read = _Axis.of(channels, shape[1] - grain).read(weight[:, :channels], 1)
        weight = torch.cat((read, weight[:, channels:]), 1)
    return weight


def _statistics(old: ModelConfig, new: ModelConfig) -> _Axis:
    """What the style head reads: means, then deviations, of every stage, one stage after the other."""

    def axes() -> Iterator[tuple[Tensor, Tensor]]:
        begin = 0
        for before, after in zip(old.encoder_channels, new.encoder_channels, strict=True):
            axis = _Axis.of(2 * before, 2 * after, parts=2)
            yield axis.source + begin, axis.is_old
            begin += 2 * before

    sources, flags = zip(*axes(), strict=True)
    return _Axis(torch.cat(sources), torch.cat(flags))
