"""z_style: what it holds, how it leaves the other latents and how it comes back.

    z_style = [ mean of z_base | log deviation of z_base | mean of z_detail | log deviation of z_detail
              | learned numbers | paint amount ]

The statistics make a style swap work at once: normalising the content's latents by their own
means and deviations and restoring them with another picture's is AdaIN (arXiv 1703.06868) in
latent space. The learned numbers steer the FiLM layers. The paint amount opens the decoder's
paint blocks: 0 for a picture as it was encoded, 1 for a picture repainted in another's style;
the encoder always gives 0, so reconstruction never sees the paint.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pmavae.config import ModelConfig
from pmavae.inference.fused import is_plain_inference
from pmavae.inference.offload import let_go

# Deviation of a channel that does not vary: keeps flat pictures finite. Latents have about unit
# variance over photographs, so this is one part in a hundred of what is usual.
MIN_DEVIATION = 0.01
PART = 1 << 18  # numbers whose statistics are taken at a time


def statistics(z: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2C): the channel means, then the logs of the standard deviations."""
    if z.shape[0] == 1 and is_plain_inference(z):
        return log_statistics(*means_and_variances(z))
    variance, mean = torch.var_mean(z.float(), dim=(2, 3), correction=0)
    return log_statistics(mean, variance)


def means_and_variances(z: Tensor) -> tuple[Tensor, Tensor]:
    """Of the channels of one picture, (1, C) each.

    torch's var_mean is not vectorised; this is, in parts that stay in the cache, joined in double precision.
    """
    pixels = z[0].permute(1, 2, 0).flatten(0, 1).float()  # (H·W, C)
    counts, means, squares = [], [], []
    for part in pixels.split(max(1, PART // pixels.shape[1])):
        mean = part.mean(0)
        counts.append(part.shape[0])
        means.append(mean)
        squares.append((part - mean).square_().sum(0))
        let_go(part.numel() * part.element_size())
    share = torch.tensor(counts, dtype=torch.float64, device=z.device)[:, None] / pixels.shape[0]
    each = torch.stack(means).double()
    whole = (share * each).sum(0, keepdim=True)
    within = torch.stack(squares).double().sum(0, keepdim=True) / pixels.shape[0]
    variance = within + (share * (each - whole) ** 2).sum(0, keepdim=True)
    return whole.float(), variance.float()


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
