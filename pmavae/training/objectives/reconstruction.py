"""What a step minimises: a reconstruction that costs little, or a picture repainted in another's style."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.autoencoder import PMAVAE
from pmavae.images.metrics import feature_distance
from pmavae.latents import join_style, mix_style, split_style
from pmavae.model import Posterior
from pmavae.style_transfer.distances import Wanted, content_distance, style_distances
from pmavae.training.config import LossConfig, PaintConfig
from pmavae.training.objectives.losses import edge_loss, kl_loss, pixel_loss
from pmavae.training.objectives.repainting import grid_share
from pmavae.training.perceptual import PerceptualNetwork


@dataclass
class Outcome:
    """What an objective made of a batch."""

    loss: Tensor  # scalar
    target: Tensor  # (B, 3, H, W) what the decoder should have given …
    output: Tensor  # … and what it gave
    parts: dict[str, Tensor] = field(default_factory=dict)  # scalars for the log


class Draws:
    """The random numbers of one micro-batch: rows of what the whole batch draws.

    Every process draws the numbers of all rows and keeps its own, so the same global batch has the same
    noise however many processes share it.
    """

    def __init__(self, seed: int, *, rows: int, first: int, count: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.on_cpu = torch.Generator().manual_seed(seed)  # for decisions that all rows share
        self.rows, self.first, self.count = rows, first, count

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `like` (count, …)."""
        shape = (self.rows, *like.shape[1:])
        noise = torch.randn(shape, generator=self.generator, device=like.device, dtype=like.dtype)
        return noise[self.first : self.first + self.count]

    def chance(self, probability: float) -> bool:
        """True with this probability, for all rows at once."""
        return float(torch.rand((), generator=self.on_cpu)) < probability

    def integer(self, end: int) -> int:
        """0 to end - 1, for all rows at once."""
        return int(torch.randint(end, (), generator=self.on_cpu))


def sample(mean: Tensor, logvar: Tensor, draws: Draws) -> Tensor:
    """A draw from the posterior (the reparameterisation trick)."""
    return mean + draws.normal(mean) * torch.exp(0.5 * logvar)


def turn_or_halve(draws: Draws) -> tuple[int, bool]:
    """A random operation under which latents should move as pixels do: quarter turns, and half the size."""
    return draws.integer(4), draws.chance(0.5)


def moved(x: Tensor, turns: int, halve: bool) -> Tensor:
    """Turn (B, C, H, W) by `turns` quarters, and average 2×2 positions into one where `halve`."""
    x = torch.rot90(x, turns, (2, 3))
    return F.avg_pool2d(x, 2) if halve else x


def reconstruction(
    model: PMAVAE,
    pictures: Tensor,
    draws: Draws,
    config: LossConfig,
    network: PerceptualNetwork | None,
    kl_scale: float,
) -> Outcome:
    """Encode, sample, decode; (B, 3, H, W) in [0, 1]. `kl_scale` is β's warm-up, 0 to 1."""
    posterior = model.encoder(pictures)
    base, detail, learned, amount = split_style(posterior.z_style, model.config)
    z_style = join_style(base, detail, sample(learned, posterior.logvar_style.flatten(1), draws), amount)
    z_base = sample(posterior.z_base, posterior.logvar_base, draws)
    z_detail = sample(posterior.z_detail, posterior.logvar_detail, draws)
    target = pictures
    if config.equivariance and draws.chance(config.equivariance):
        turns, halve = turn_or_halve(draws)
        halve = halve and min(z_base.shape[-2:]) % 2 == 0
        z_base, z_detail, target = (moved(x, turns, halve) for x in (z_base, z_detail, pictures))
    output = model.decoder(z_base, z_detail, z_style, paint=False)
    return Outcome(*_cost(output, target, posterior, learned, config, network, kl_scale))


def _cost(
    output: Tensor,
    target: Tensor,
    posterior: Posterior,
    learned: Tensor,
    config: LossConfig,
    network: PerceptualNetwork | None,
    kl_scale: float,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    kl, parts = kl_loss(posterior, learned[:, :, None, None], config.free_nats)
    total = config.l1 * pixel_loss(output, target, config.pixels) + config.kl * kl_scale * kl
    if config.edge:
        total = total + config.edge * edge_loss(output, target)
    parts["l1"] = (output - target).detach().abs().mean()
    parts["mse"] = (output - target).detach().square().mean()
    if network is not None and config.perceptual:
        with torch.no_grad():
            wanted = network(target)
        distance = feature_distance(network(output), wanted).mean()
        total = total + config.perceptual * distance
        parts["perceptual"] = distance.detach()
    return total, target, output, parts


def repainting(
    model: PMAVAE,
    contents: Tensor,
    styles: Tensor,
    draws: Draws,
    config: PaintConfig,
    network: PerceptualNetwork,
) -> Outcome:
    """Decode each content in the style beside it, (B, 3, S, S) each, and judge the result."""
    with torch.no_grad():
        of_content, of_style = model.encoder(contents), model.encoder(styles)
        content_features, style_features = network(contents), network(styles)
    z_style = mix_style(of_content.z_style, [(of_style.z_style, 1.0)])
    output = model.decoder(of_content.z_base, of_content.z_detail, z_style)
    features = network(output)
    with torch.autocast(contents.device.type, enabled=False):
        features, content_features, style_features = (
            [f.float() for f in maps] for maps in (features, content_features, style_features)
        )
        wanted = Wanted.of([(styles, style_features, 1.0)])
        parts = {
            **style_distances(output.float(), features, wanted, draws.on_cpu),
            "content": content_distance(features, content_features, network.content_layers),
            "grid": grid_share(output),
        }
    total = torch.stack([getattr(config, name) * part for name, part in parts.items()]).sum()
    outside = (output - output.clamp(0, 1)).abs().mean()  # what the final clamp would cut off
    return Outcome(total + outside, styles, output, {name: part.detach() for name, part in parts.items()})
