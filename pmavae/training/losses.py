"""What a reconstruction costs beside features: pixels, edges, the price of the latents, an adversary.

The adversary is a PatchGAN, a small network that tells real patches from reconstructed ones: hinge losses
(arXiv 1705.02894), spectral normalisation (arXiv 1802.05957), patches of 46 px (arXiv 1611.07004 has them
of 70), and λ balanced by gradient norms (arXiv 2012.09841).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pmavae.model import Posterior

MAX_BALANCE = 1e4
ACTIVE_NATS = 0.01  # KL above which a latent channel says something
LOG_MSE_SCALE, LOG_MSE_FLOOR = 0.012, 1e-5  # of about the size of L1; 50 dB, above which no crop counts more


def pixel_loss(output: Tensor, target: Tensor, kind: str) -> Tensor:
    """What the difference of two batches (B, 3, H, W) costs, a scalar.

    "l1" is its mean absolute value. "log-mse" is the mean over crops of the logarithm of their squared error,
    which is their PSNR up to a factor: an easy crop then counts as much as a hard one.
    """
    error = output - target
    if kind == "l1":
        return error.abs().mean()
    squares = error.square().mean((1, 2, 3))  # (B,)
    return LOG_MSE_SCALE * torch.log(squares + LOG_MSE_FLOOR).mean()


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel gradients of two batches (B, 3, H, W), without the border pixels.

    The kernels are taken apart and applied as slices: a convolution of one channel is 20 times slower.
    """
    error = a - b
    across, down = error[..., 2:] - error[..., :-2], error[..., 2:, :] - error[..., :-2, :]
    horizontal = across[..., 2:, :] + 2 * across[..., 1:-1, :] + across[..., :-2, :]
    vertical = down[..., 2:] + 2 * down[..., 1:-1] + down[..., :-2]
    return (horizontal.abs().mean() + vertical.abs().mean()) / 16


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
