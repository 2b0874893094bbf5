"""What a reconstruction costs beside pixels and features: edges, and the price of the latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.encoder import Posterior

ACTIVE_NATS = 0.01  # KL above which a latent channel says something
_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel gradients of two batches (B, 3, H, W)."""
    kernels = torch.stack((_SOBEL, _SOBEL.T))[:, None].to(a)
    difference = (a - b).flatten(0, 1)[:, None]  # the gradient is linear: one convolution is enough
    return F.conv2d(difference, kernels, padding=1).abs().mean()


def kl_per_channel(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL to a standard normal in nats, (C,): averaged over batch and positions."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean((0, 2, 3))


def kl_loss(
    posterior: Posterior, learned_style: Tensor, free_nats: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """KL averaged over each latent's channels and summed over the three latents, with free bits.

    A channel pays only above `free_nats`, so none is pushed into silence. Also returns the mean
    KL of each latent and its number of active channels (more than ACTIVE_NATS), for the log.
    """
    channels = {
        "base": kl_per_channel(posterior.z_base, posterior.logvar_base),
        "detail": kl_per_channel(posterior.z_detail, posterior.logvar_detail),
        "style": kl_per_channel(learned_style, posterior.logvar_style),
    }
    loss = torch.stack([kl.clamp(min=free_nats).mean() for kl in channels.values()]).sum()
    report = {f"kl_{name}": kl.detach().mean() for name, kl in channels.items()}
    report |= {f"active_{name}": (kl.detach() > ACTIVE_NATS).float().sum() for name, kl in channels.items()}
    return loss, report
