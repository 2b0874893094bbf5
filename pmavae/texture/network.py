"""The prior: a network that says which way a noisy texture pattern has to go to become a likely one.

Flow matching on straight lines (arXiv 2210.02747, 2209.03003): between a pattern u and Gaussian noise ε lie
the mixtures (1 − t)·u + t·ε, and the network estimates their velocity ε − u, given what is known of the
picture. Following it from noise to t = 0 draws a sample. Means and differences of cells (coefficients.py)
have a time each, so that fine texture can be drawn anew while edges move little.

Convolutions only, at the stride of z_base: linear in pixels, any size, nothing is pooled over the picture.
"""

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.errors import WeightsError
from pmavae.files.tensors import raw_bytes
from pmavae.model import ChannelNorm, FiLM, zero_init
from pmavae.network_configs import TEXTURE_TASK, TextureConfig
from pmavae.pretrained.network import Pretrained
from pmavae.texture.coefficients import Texture

CODE = 128  # width of the code of time and style that every block reads
TIME_FEATURES = 16  # of each of the two
EXPANSION = 2
FAINT = 0.01  # strengths below it are all the same to the network


class PriorBlock(nn.Module):
    """x + mlp(film(norm(depthwise 5×5(x)))) (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = ChannelNorm(channels)
        self.film = FiLM(channels, CODE)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, EXPANSION * channels, 1),
            nn.SiLU(),
            zero_init(nn.Conv2d(EXPANSION * channels, channels, 1)),
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return x + self.mlp(self.film(self.norm(self.depthwise(x)), code))


class TexturePrior(Pretrained):
    """Velocities of texture patterns, given z_base, z_style and how much texture there is."""

    config_type, tasks = TextureConfig, (TEXTURE_TASK,)

    def __init__(self, config: TextureConfig) -> None:
        super().__init__()
        self.config = config
        pattern = 4 * config.detail_channels
        fine = config.base_channels - config.detail_channels
        known = config.base_channels + fine + 1 + 2 + 2 * config.detail_channels
        self.code = nn.Sequential(
            nn.Linear(config.style_channels - 1 + 2 * TIME_FEATURES, CODE),
            nn.SiLU(),
            nn.Linear(CODE, CODE),
            nn.SiLU(),
        )
        self.stem = nn.Conv2d(pattern + known, config.width, 3, padding=1)
        self.blocks = nn.ModuleList([PriorBlock(config.width) for _ in range(config.depth)])
        self.norm = ChannelNorm(config.width)
        self.head = zero_init(nn.Conv2d(config.width, pattern, 3, padding=1))

    def known(self, z_base: Tensor, texture: Texture) -> Tensor:
        """What a pattern is conditioned on in each cell, (B, K, h, w): z_base (B, M, h, w) and strengths.

        The fine channels of z_base are there twice: as they are, and at unit strength.
        """
        fine = z_base[:, self.config.detail_channels :]
        rms = fine.square().mean(1, keepdim=True).sqrt() + FAINT
        strengths = torch.cat((rms, texture.strength + FAINT, texture.shares + FAINT), dim=1)
        return torch.cat((z_base, fine / rms, strengths.log()), dim=1)

    def forward(self, pattern: Tensor, time: Tensor, known: Tensor, z_style: Tensor) -> Tensor:
        """Velocity (B, 4C, h, w) of a mixture of the same shape.

        time: (B, 2) in [0, 1], the shares of noise in means and in differences. known: see `known`.
        z_style: (B, style_channels, 1, 1).
        """
        style = z_style.flatten(1)[:, :-1]  # without the paint amount: it is the decoder's
        code = self.code(torch.cat((style, _time_features(time)), dim=1))
        x = self.stem(torch.cat((pattern, known), dim=1))
        for block in self.blocks:
            x = block(x, code)
        return self.head(F.silu(self.norm(x))).float()

    def check_codec(self, codec: PMAVAE) -> None:
        """Raise WeightsError unless this prior learnt the latents of this autoencoder's encoder."""
        if encoder_fingerprint(codec.encoder) != self.config.encoder:
            raise WeightsError(
                f"the texture prior {self.weights_id} was trained on the latents of another encoder than "
                f"that of the autoencoder {codec.weights_id}: use weights that belong together, or train a "
                f"prior with pmavae train --task {TEXTURE_TASK}"
            )


def _time_features(time: Tensor) -> Tensor:
    """Sines and cosines of (B, 2) in [0, 1], (B, 2 * TIME_FEATURES), with periods from 2 to 1/8."""
    octaves = torch.linspace(0, 4, TIME_FEATURES // 2, device=time.device)
    angles = time.float()[:, :, None] * math.pi * 2**octaves
    return torch.cat((angles.sin(), angles.cos()), dim=2).flatten(1)


def encoder_fingerprint(encoder: nn.Module) -> str:
    """SHA-256, in hexadecimal, of the encoder's tensors in fp16, in the order of their names.

    In fp16, because released weights are: the fingerprint is that of the file, whatever they were loaded
    to. The decoder does not count: it can be trained on without a change to what the latents are.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(raw_bytes(tensor.detach().to("cpu", torch.float16).contiguous()))
    return digest.hexdigest()
