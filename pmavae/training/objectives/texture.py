"""What a step of a texture prior minimises."""

from __future__ import annotations

import torch
from torch import Tensor

from pmavae.autoencoder import PMAVAE, reflect_pad
from pmavae.texture.coefficients import spread, take_apart
from pmavae.texture.network import TexturePrior
from pmavae.training.config import TextureLossConfig
from pmavae.training.objectives.reconstruction import Draws, Outcome

VISIBLE = 0.1  # strength of texture that counts half: nobody sees whether fainter texture is likely


def flow_matching(
    model: TexturePrior, codec: PMAVAE, pictures: Tensor, draws: Draws, config: TextureLossConfig
) -> Outcome:
    """Velocities of the patterns of (B, 3, S, S) in [0, 1], mixed with noise `config.draws` times each.

    Encoding costs as much as training, so each pattern is used several times, with other noise. The times
    are logit-normal (arXiv 2403.03206), and independent for means and differences.
    """
    with torch.no_grad():
        encoded = codec.encoder(pictures)
        z_base, z_detail, z_style = (z.float() for z in (encoded.z_base, encoded.z_detail, encoded.z_style))
        with torch.autocast(pictures.device.type, enabled=False):
            texture = take_apart(z_base, z_detail)
            known = model.known(z_base, texture)
        pattern = texture.pattern
        noises = torch.cat([draws.normal(pattern) for _ in range(config.draws)])
        times = torch.cat(
            [torch.sigmoid(draws.normal(texture.strength[:, :, 0, 0])) for _ in range(config.draws)]
        )
        share = spread(times[:, :, None, None], pattern.shape[1])
        patterns, knowns = pattern.repeat(config.draws, 1, 1, 1), known.repeat(config.draws, 1, 1, 1)
        mixed = torch.lerp(patterns, noises, share)
        seen = texture.strength.square()
        weight = spread(seen / (seen + VISIBLE**2), pattern.shape[1]).repeat(config.draws, 1, 1, 1)
    velocity = model(mixed, times, knowns, z_style.repeat(config.draws, 1, 1, 1))
    target = noises - patterns
    squares = (velocity - target).square()
    loss = (weight * squares).sum() / weight.sum().clamp_min(1e-6)
    channels = pattern.shape[1] // 4
    parts = {
        "means": squares.detach()[:, :channels].mean(),
        "differences": squares.detach()[:, channels:].mean(),
    }
    return Outcome(loss, target, velocity, parts)


@torch.no_grad()
def velocity_error(model: TexturePrior, codec: PMAVAE, picture: Tensor) -> float:
    """`flow_matching` of (1, 3, H, W) in [0, 1], with the same noise every time; 2 for no idea."""
    whole = reflect_pad(picture).to(model.device)
    draws = Draws(0, rows=1, first=0, count=1, device=model.device)
    return float(flow_matching(model, codec, whole, draws, TextureLossConfig(draws=8)).loss)
