"""The three latents of a picture, as one value that tasks pass around, and the algebra of z_style.

    z_style = [ mean of z_base | log deviation of z_base | mean of z_detail | log deviation of z_detail
              | learned numbers | paint amount ]

The statistics make a style swap work at once: normalising the content's latents by their own
means and deviations and restoring them with another picture's is AdaIN (arXiv 1703.06868) in
latent space. The learned numbers steer the FiLM layers. The paint amount opens the decoder's
paint blocks: 0 for a picture as it was encoded, 1 for a picture repainted in another's style;
the encoder always gives 0, so reconstruction never sees the paint.

Which latent says what: the coarse half of z_detail changes places with the fine half of z_base.
Components of 8×8 blocks hold the colours and the composition, so a codec that fits them first leaves to
the 16×16 blocks only what is fine: the wrong way round for latents that are to be edited one at a time.
Exchanging the means of 2×2 detail positions with as many channels of the base puts the composition into
z_base and texture into z_detail, at the same size, without losing anything.

Statistics are taken out before the exchange and put back after it is undone: scaled apart, the halves of
one block would no longer fit together, and a restyled picture would show a grid of 16 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig

# Deviation of a channel that does not vary: keeps flat pictures finite. Latents have about unit
# variance over photographs, so this is one part in a hundred of what is usual.
MIN_DEVIATION = 0.01


def padded(size: int) -> int:
    """The next multiple of the coarsest stride: what a height or width is padded to."""
    return -(-size // BASE_STRIDE) * BASE_STRIDE


@dataclass(frozen=True)
class Latents:
    """Posterior means of a batch of pictures of one size.

    z_base and z_detail are normalised: each channel has zero mean and unit variance over the
    picture, and z_style holds the means and deviations that were taken out.
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


@dataclass(frozen=True)
class Style:
    """The style of one picture: what `mix_style` takes, without the picture."""

    z_style: Tensor  # (1, style_channels, 1, 1)
    width: int  # of the picture as it was encoded, in pixels
    height: int

    def tensors(self) -> dict[str, Tensor]:
        """As `Latents.tensors`."""
        return {"z_style": self.z_style}


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


def statistics(z: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2C): the channel means, then the logs of the standard deviations."""
    variance, mean = torch.var_mean(z.float(), dim=(2, 3), correction=0)
    return log_statistics(mean, variance)


def log_statistics(mean: Tensor, variance: Tensor) -> Tensor:
    """Means and variances (B, C) as `statistics` has them."""
    return torch.cat((mean, 0.5 * torch.log(variance + MIN_DEVIATION**2)), dim=1)


def normalise(z: Tensor, stats: Tensor) -> Tensor:
    """Take the statistics (B, 2C) out of z (B, C, H, W)."""
    mean, log_deviation = stats[:, :, None, None].chunk(2, dim=1)
    return (z - mean) * torch.exp(-log_deviation)


def restore(z: Tensor, stats: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    mean, log_deviation = stats[:, :, None, None].chunk(2, dim=1)
    return z * torch.exp(log_deviation) + mean


def split_style(z_style: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, style_channels, 1, 1) to base statistics (B, 2 * base_channels), detail statistics
    (B, 2 * detail_channels), learned numbers (B, learned_channels) and paint amount (B, 1)."""
    sizes = (2 * config.base_channels, 2 * config.detail_channels, config.learned_channels, 1)
    base, detail, learned, amount = z_style.flatten(1).split(sizes, dim=1)
    return base, detail, learned, amount


def join_style(base: Tensor, detail: Tensor, learned: Tensor, amount: Tensor | None = None) -> Tensor:
    """The inverse of `split_style`; the amount is 0 where none is given."""
    amount = torch.zeros_like(base[:, :1]) if amount is None else amount
    return torch.cat((base, detail, learned, amount), dim=1)[:, :, None, None]


def mix_style(content: Tensor, styles: Sequence[tuple[Tensor, float]], strength: float = 1.0) -> Tensor:
    """The z_style with which a content is repainted.

    content and each style: (B, style_channels, 1, 1) or batch 1. The styles' weights are
    normalised to sum to 1. strength 0 returns the content's own z_style exactly, 1 the styles'
    with full paint, and values between move on a straight line. Raises ValueError for a
    strength outside 0..1, no style, or weights that are negative or all zero.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength {strength} is outside 0..1")
    largest = max((weight for _, weight in styles), default=0.0)
    if largest <= 0 or any(weight < 0 for _, weight in styles):
        raise ValueError("style weights must not be negative, and at least one must be positive")
    shares = [weight / largest for _, weight in styles]  # a sum of huge weights would overflow
    total = sum(shares)
    target = torch.stack([style * (share / total) for (style, _), share in zip(styles, shares, strict=True)])
    target = target.sum(0)
    target = torch.cat((target[:, :-1], torch.ones_like(target[:, -1:])), dim=1)
    if strength == 0.0:
        return content.clone()
    return torch.lerp(content, target.expand_as(content), strength)


def exchange(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M, H, W) and (B, N, 2H, 2W), N ≤ M, to the same shapes.

    Its own inverse: the means of the new detail are what the first N channels of the base were.
    """
    coarse = F.avg_pool2d(detail, 2)  # (B, N, H, W)
    fine, kept = base[:, : coarse.shape[1]], base[:, coarse.shape[1] :]
    return torch.cat((coarse, kept), dim=1), detail + _spread(fine - coarse)


def exchange_variances(base: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
    """What `exchange` makes of the variances of independent noise on its arguments."""
    mean = F.avg_pool2d(detail, 2)
    fine, kept = base[:, : mean.shape[1]], base[:, mean.shape[1] :]
    return torch.cat((mean / 4, kept), dim=1), detail / 2 + _spread(mean / 4 + fine)


def _spread(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
