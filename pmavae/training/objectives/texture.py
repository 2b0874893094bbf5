"""Texture priors: flow matching, and how well a prior knows textures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pmavae.autoencoder import PMAVAE, reflect_pad
from pmavae.images.metrics import psnr
from pmavae.images.pixels import blurred, gaussian, to_unit
from pmavae.network_configs import texture_config
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.texture.coefficients import spread, take_apart
from pmavae.texture.network import TexturePrior, encoder_fingerprint
from pmavae.texture.sampling import vary
from pmavae.training.config import TextureLossConfig, TrainConfig
from pmavae.training.dataset import to_device
from pmavae.training.evaluation import means, picture_paths, read_rgb
from pmavae.training.objectives.base import Draws, Objective, Outcome, blank, draws_of_one
from pmavae.training.phases import Phase


class TextureStatistics(Objective[TexturePrior, NDArray[np.uint8]]):
    """A texture prior, of the latents of a codec that stays as it is."""

    def __init__(self, config: TrainConfig, index: WeightsIndex | None = None) -> None:
        super().__init__(config, index)
        name = config.texture.codec or config.preset
        self.codec = PMAVAE.from_pretrained(name, index).requires_grad_(False)

    def new(self) -> TexturePrior:
        return TexturePrior(texture_config(self.codec.config, encoder_fingerprint(self.codec.encoder)))

    def load(self, weights: str) -> TexturePrior:
        model = TexturePrior.from_pretrained(weights, self.index)
        model.check_codec(self.codec)
        return model

    def to(self, device: torch.device) -> None:
        self.codec.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def draw(self, phase: Phase, *, step: int, first: int, count: int) -> NDArray[np.uint8]:
        return self.dataset.crops(count, phase.crop, seed=self.config.seed, step=step, first=first)

    def loss(self, model: TexturePrior, drawn: NDArray[np.uint8], draws: Draws, progress: float) -> Outcome:
        return flow_matching(model, self.codec, to_device(drawn, model.device), draws, self.config.texture)

    def probe(self, model: TexturePrior, side: int, draws: Draws) -> Outcome:
        return self.loss(model, blank(side), draws, 1.0)

    def score(self, model: TexturePrior, picture: Tensor, number: int) -> dict[str, float]:
        return {"velocity": velocity_error(model, self.codec, picture)}

    def show(self, model: TexturePrior, pictures: Sequence[Tensor], number: int) -> Sequence[Tensor]:
        """The reconstruction, with half of its textures, with all of them anew."""
        latents, random = self.codec.encode(pictures[number]), torch.Generator().manual_seed(0)
        varied = (vary(model, latents, amount, random) for amount in (0.0, 0.5, 1.0))
        return [self.codec.decode(each).cpu() for each in varied]

    @staticmethod
    def measure(
        model: TexturePrior, pictures: Path, codec: str | Path | None = None
    ) -> dict[str, float | None]:
        """The error of the velocity, and what amount 1 keeps of a picture."""
        autoencoder = PMAVAE.from_pretrained(codec or model.config.preset)
        model.check_codec(autoencoder)
        rows = []
        for path in picture_paths(pictures):
            picture, random = to_unit(read_rgb(path)), torch.Generator().manual_seed(0)
            varied = autoencoder.decode(vary(model, autoencoder.encode(picture), 1.0, random)).cpu()
            rows.append(
                {
                    "velocity": velocity_error(model, autoencoder, picture),
                    "low_psnr": low_frequency_psnr(varied, picture),
                    "high_correlation": high_frequency_correlation(varied, picture),
                }
            )
        return {f"{name}_kodak24": round(value, 4) for name, value in means(rows).items()}


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
    draws = draws_of_one(model.device)
    return float(flow_matching(model, codec, whole, draws, TextureLossConfig(draws=8)).loss)


LOW_PASS_SIGMA = 3.0  # px; a Gaussian whose amplitude is a half at a period of 16 px


def low_pass(picture: Tensor) -> Tensor:
    """(B, 3, H, W) without what is finer than a position of z_base."""
    radius = int(3 * LOW_PASS_SIGMA)
    full = F.pad(picture, (radius, radius, radius, radius), mode="replicate")
    return blurred(full, gaussian(LOW_PASS_SIGMA, radius, picture.dtype, picture.device))


def low_frequency_psnr(varied: Tensor, original: Tensor) -> float:
    """PSNR in dB of what both hold of colours and composition; (1, 3, H, W) in [0, 1] each."""
    return float(psnr(low_pass(varied), low_pass(original)))


def high_frequency_correlation(varied: Tensor, original: Tensor) -> float:
    """Correlation of what is finer: 1 for the same texture, 0 for one that has nothing to do with it."""
    a, b = ((x - low_pass(x)).flatten() for x in (varied, original))
    return float(F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0))
