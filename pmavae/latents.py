"""The three latents of a picture, as one value that tasks pass around."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig


def padded(size: int) -> int:
    """The next multiple of the coarsest stride: what a height or width is padded to."""
    return -(-size // BASE_STRIDE) * BASE_STRIDE


@dataclass(frozen=True)
class Latents:
    """Posterior means of a batch of pictures of one size.

    z_base and z_detail are normalised: each channel has zero mean and unit variance over the
    picture, and z_style holds the means and deviations that were taken out (see style.py).
    Replacing z_style therefore repaints the picture. The log-variances are the encoder's
    uncertainty about the normalised values; they are None where they were not kept.
    """

    z_base: Tensor  # (B, base_channels, padded(height) / 16, padded(width) / 16)
    z_detail: Tensor  # (B, detail_channels, padded(height) / 8, padded(width) / 8)
    z_style: Tensor  # (B, style_channels, 1, 1)
    height: int  # of the original picture, in pixels
    width: int
    logvar_base: Tensor | None = None  # shape of z_base
    logvar_detail: Tensor | None = None  # shape of z_detail

    @property
    def padding(self) -> tuple[int, int]:
        """(bottom, right) rows and columns of reflect padding, cropped again after decoding."""
        return padded(self.height) - self.height, padded(self.width) - self.width

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are present, by field name."""
        names = ("z_base", "z_detail", "z_style", "logvar_base", "logvar_detail")
        return {n: t for n in names if (t := getattr(self, n)) is not None}

    def replace(self, **changes: Tensor | int | None) -> Latents:
        """A copy with some fields changed: `latents.replace(z_style=other.z_style)`."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Latents:
        """A copy with every tensor moved or cast."""
        return replace(self, **{n: t.to(device=device, dtype=dtype) for n, t in self.tensors().items()})  # type: ignore[arg-type]


def expected_shapes(config: ModelConfig, height: int, width: int) -> dict[str, tuple[int, int, int]]:
    """Per-picture tensor shapes (C, H, W) of a picture of this size, by field name."""
    rows, columns = padded(height), padded(width)
    base = (config.base_channels, rows // BASE_STRIDE, columns // BASE_STRIDE)
    detail = (config.detail_channels, rows // DETAIL_STRIDE, columns // DETAIL_STRIDE)
    return {
        "z_base": base,
        "z_detail": detail,
        "z_style": (config.style_channels, 1, 1),
        "logvar_base": base,
        "logvar_detail": detail,
    }
