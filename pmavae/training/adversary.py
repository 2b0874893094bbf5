"""The PatchGAN: a small network that tells real patches from reconstructed ones, and the decoder's share.

Hinge losses (arXiv 1705.02894), spectral normalisation (arXiv 1802.05957), patches of 46 px
(arXiv 1611.07004 has them of 70), and λ balanced by gradient norms (arXiv 2012.09841).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

MAX_BALANCE = 1e4


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in [0, 1] to one score a patch, (B, 1, H/8, W/8): positive for real."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(3, c, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(4 * c, 1, 3, padding=1)),
        )

    def forward(self, picture: Tensor) -> Tensor:
        scores: Tensor = self.layers(picture * 2 - 1)
        return scores


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Hinge: real patches above 1, reconstructed ones below -1. No gradient reaches the decoder."""
    return 0.5 * (F.relu(1 - discriminator(real)).mean() + F.relu(1 + discriminator(fake.detach())).mean())


def generator_loss(discriminator: nn.Module, fake: Tensor) -> Tensor:
    """The decoder's side of the hinge: high scores."""
    score: Tensor = -discriminator(fake).mean()
    return score


def balance(loss: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """How many times the adversarial gradient goes into that of the other terms, in the last layer.

    Scaled by it, λ means the same in every phase. Scalar, without gradient.
    """
    of_loss = torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm()
    of_adversarial = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0].norm()
    return (of_loss / (of_adversarial + 1e-6)).clamp(0, MAX_BALANCE).detach()
