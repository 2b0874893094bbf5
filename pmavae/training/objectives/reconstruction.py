"""The codec: a reconstruction that costs little, or a picture repainted in another's style.

A codec starts as a linear one, fitted to some crops: `linear_start`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, PRESETS
from pmavae.images.metrics import feature_distance
from pmavae.latents import join_style, mix_style, split_style
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.style_transfer.distances import Wanted, content_distance, style_distances
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import Dataset, to_device
from pmavae.training.evaluation import SCORE, means, psnr_and_ssim, reconstruction_scores, stored_decibels
from pmavae.training.growth import grown
from pmavae.training.losses import edge_loss, kl_loss, pixel_loss
from pmavae.training.objectives.base import Draws, Objective, Outcome, blank
from pmavae.training.perceptual import perceptual_network
from pmavae.training.phases import Phase


class Crops(NamedTuple):
    """What a step reconstructs, or repaints."""

    pictures: NDArray[np.uint8]  # (B, S, S, 3)
    styles: NDArray[np.uint8] | None = None  # (B, 2S, 2S, 3) to repaint them in


class Codec(Objective[PMAVAE, Crops]):
    """The autoencoder: a phase "codec" trains all but the paint, "paint" the paint alone, to restyle."""

    begins_with = "the linear start"

    def __init__(self, config: TrainConfig, index: WeightsIndex | None = None) -> None:
        super().__init__(config, index)
        if config.loss.perceptual > 0 or any(phase.objective == "paint" for phase in config.phases):
            self.features = perceptual_network(config.loss.network)

    def new(self) -> PMAVAE:
        return PMAVAE(PRESETS[self.config.preset])

    def load(self, weights: str) -> PMAVAE:
        """The weights of a smaller preset grow."""
        model, preset = PMAVAE.from_pretrained(weights, self.index), self.config.preset
        return model if model.config.preset == preset else grown(model, PRESETS[preset])

    def open(self, cache: Path) -> None:
        super().open(cache)
        self.styles = Dataset(cache, self.config.style_shares)

    def fit(self, model: PMAVAE) -> None:
        linear_start(model, self.dataset, self.config.linear_crops)

    def to(self, device: torch.device) -> None:
        if self.features is not None:
            self.features.to(device)

    def parts(self, model: PMAVAE) -> tuple[nn.Module, ...]:
        return model.encoder, model.decoder

    def choose(self, model: PMAVAE, phase: Phase) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(("paint" in name) == (phase.objective == "paint"))

    def judged_layer(self, model: PMAVAE, phase: Phase) -> Tensor | None:
        return cast(nn.Conv2d, model.decoder.out[0]).weight if phase.objective == "codec" else None

    def largest_crop(self, phase: Phase) -> int:
        return 2 * phase.crop if phase.objective == "paint" else phase.crop  # a style is shrunk by up to 2

    def refusal(self, phase: Phase) -> str:
        without = phase.objective == "paint" and self.features is None
        return "paint is judged by a perceptual network" if without else ""

    def draw(self, phase: Phase, *, step: int, first: int, count: int) -> Crops:
        seed = self.config.seed
        pictures = self.dataset.crops(count, phase.crop, seed=seed, step=step, first=first)
        if phase.objective != "paint":
            return Crops(pictures)
        styles = self.styles.crops(count, 2 * phase.crop, seed=seed + 1, step=step, first=first)
        return Crops(pictures, styles)

    def loss(self, model: PMAVAE, drawn: Crops, draws: Draws, progress: float) -> Outcome:
        contents = to_device(drawn.pictures, model.device)
        if drawn.styles is None:
            return self._reconstruct(model, contents, draws, progress)
        with torch.autocast(model.device.type, enabled=False):
            styles = to_device(drawn.styles, model.device)
            styles = augment_styles(styles, contents.shape[-1], draws.of_rows)
        return self._repaint(model, contents, styles, draws)

    def _reconstruct(self, model: PMAVAE, pictures: Tensor, draws: Draws, progress: float) -> Outcome:
        """Encode, sample, decode; (B, 3, S, S) in [0, 1]."""
        config = self.config.loss
        posterior = model.encoder(pictures)
        base, detail, learned, amount = split_style(posterior.z_style, model.config)
        z_style = join_style(base, detail, sample(learned, posterior.logvar_style.flatten(1), draws), amount)
        z_base = sample(posterior.z_base, posterior.logvar_base, draws)
        z_detail = sample(posterior.z_detail, posterior.logvar_detail, draws)
        target = pictures
        if config.equivariance and draws.chance(config.equivariance):
            # Latents should move as pixels do: by quarter turns, and to half the size.
            turns, halve = draws.integer(4), draws.chance(0.5)
            halve = halve and min(z_base.shape[-2:]) % 2 == 0
            z_base, z_detail, target = (moved(x, turns, halve) for x in (z_base, z_detail, pictures))
        output = model.decoder(z_base, z_detail, z_style, paint=False)
        kl, parts = kl_loss(posterior, learned[:, :, None, None], config.free_nats)
        kl_scale = min(1.0, progress / config.kl_warmup) if config.kl_warmup else 1.0
        total = config.l1 * pixel_loss(output, target, config.pixels) + config.kl * kl_scale * kl
        if config.edge:
            total = total + config.edge * edge_loss(output, target)
        parts["l1"] = (output - target).detach().abs().mean()
        parts["mse"] = (output - target).detach().square().mean()
        if self.features is not None and config.perceptual:
            with torch.no_grad():
                wanted = self.features(target)
            distance = feature_distance(self.features(output), wanted).mean()
            total = total + config.perceptual * distance
            parts["perceptual"] = distance.detach()
        return Outcome(total, target, output, parts)

    def _repaint(self, model: PMAVAE, contents: Tensor, styles: Tensor, draws: Draws) -> Outcome:
        """Decode each content in the style beside it, (B, 3, S, S) each, and judge the result."""
        network = self.features
        assert network is not None
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
        weights = self.config.paint
        total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        outside = (output - output.clamp(0, 1)).abs().mean()  # what the final clamp would cut off
        parts = {name: part.detach() for name, part in parts.items()}
        return Outcome(total + outside, styles, output, parts)

    def probe(self, model: PMAVAE, side: int, draws: Draws) -> Outcome:
        return self.loss(model, Crops(blank(side)), draws, 1.0)

    def score(self, model: PMAVAE, picture: Tensor, number: int) -> dict[str, float]:
        return psnr_and_ssim(model.decode(model.encode(picture)).cpu(), picture)

    def show(self, model: PMAVAE, pictures: Sequence[Tensor], number: int) -> Sequence[Tensor]:
        """Input, reconstruction, in the next one's style."""
        picture, latents = pictures[number], model.encode(pictures[number])
        style = model.encode(pictures[(number + 1) % len(pictures)]).z_style
        swapped = latents.replace(z_style=mix_style(latents.z_style, [(style, 1.0)]))
        return picture, model.decode(latents).cpu(), model.decode(swapped).cpu()

    @staticmethod
    def measure(model: PMAVAE, pictures: Path, codec: str | Path | None = None) -> dict[str, float | None]:
        found = means(list(reconstruction_scores(model, pictures).values()))
        return {SCORE: stored_decibels(found["psnr"]), "ssim_kodak24": round(found["ssim"], 4)}


def sample(mean: Tensor, logvar: Tensor, draws: Draws) -> Tensor:
    """A draw from the posterior (the reparameterisation trick)."""
    return mean + draws.normal(mean) * torch.exp(0.5 * logvar)


def moved(x: Tensor, turns: int, halve: bool) -> Tensor:
    """Turn (B, C, H, W) by `turns` quarters, and average 2×2 positions into one where `halve`."""
    x = torch.rot90(x, turns, (2, 3))
    return F.avg_pool2d(x, 2) if halve else x


def grid_share(picture: Tensor, period: int = 16) -> Tensor:
    """The share of a picture's fine structure that repeats with a fixed period; 0..1.

    Upsampling networks paint flat areas with a block grid because it is the cheapest texture. Fine
    structure is the picture less its local mean; folding it over the period leaves what repeats.
    """
    fine = picture - F.avg_pool2d(picture, 5, stride=1, padding=2, count_include_pad=False)
    height, width = (side // period * period for side in fine.shape[-2:])
    folded = fine[..., :height, :width].unflatten(-1, (-1, period)).unflatten(-3, (-1, period)).mean((-4, -2))
    return (folded.square().mean((1, 2, 3)) / (fine.square().mean((1, 2, 3)) + 1e-5)).mean()


def _random_colours(count: int, generator: torch.Generator | None) -> Tensor:
    """(count, 3, 3) colour matrices: half leave the picture alone, half mix and swap its channels."""
    matrices = torch.eye(3).repeat(count, 1, 1)
    for matrix in matrices:
        if torch.rand((), generator=generator) < 0.5:
            matrix.copy_(matrix[torch.randperm(3, generator=generator)])
            matrix += 0.15 * torch.randn(3, 3, generator=generator)
            matrix /= matrix.sum(1, keepdim=True).clamp(min=0.5)  # grey stays about grey
    return matrices


def augment_styles(crops: Tensor, size: int, generator: torch.Generator | None = None) -> Tensor:
    """(B, 3, 2S, 2S) to (B, 3, S, S): a random window, shrunk by 1 to 2, in random colours.

    Runs where `crops` are. All random numbers come from `generator`, one of the CPU whatever the
    device (the global one if None), and decide the same everywhere. Values stay in [0, 1].
    """

    def draw(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    views = []
    for crop in crops:
        window = size + draw(crop.shape[-1] - size + 1)
        top, left = (draw(crop.shape[-1] - window + 1) for _ in range(2))
        view = crop[None, :, top : top + window, left : left + window]
        views.append(F.interpolate(view, size=(size, size), mode="bilinear", antialias=True))
    batch = torch.cat(views)
    colours = _random_colours(len(batch), generator).to(batch)
    return torch.einsum("bij,bjhw->bihw", colours, batch).clamp(0, 1)


CROP = 256  # px, of the crops that are fitted


def _principal_components(blocks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of (n, d) rows: components (count, d) and the standard deviations along them (count,)."""
    second_moment = blocks.T @ blocks / len(blocks)
    values, vectors = torch.linalg.eigh(second_moment.double())
    order = values.argsort(descending=True)[:count]
    return vectors[:, order].T.float(), values[order].clamp(min=1e-12).sqrt().float()


def _blocks(pictures: Tensor, stride: int) -> Tensor:
    return F.pixel_unshuffle(pictures, stride).permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def fit_encoder(model: PMAVAE, pictures: Tensor) -> None:
    """Set the encoder's linear shortcuts from pictures (n, 3, H, W) in [0, 1], H and W in 16s."""
    config, centred = model.config, pictures - 0.5
    detail, detail_scale = _principal_components(_blocks(centred, DETAIL_STRIDE), config.detail_channels)

    def without_detail(x: Tensor) -> Tensor:
        z = F.conv2d(F.pixel_unshuffle(x, DETAIL_STRIDE), detail[:, :, None, None])
        return x - F.pixel_shuffle(F.conv2d(z, detail.T[:, :, None, None]), DETAIL_STRIDE)

    residual = torch.cat([without_detail(x) for x in centred.split(64)])
    base, base_scale = _principal_components(_blocks(residual, BASE_STRIDE), config.base_channels)
    # One linear map of the whole 16×16 block: the components see it without its 8×8 detail.
    base = _blocks(without_detail(F.pixel_shuffle(base[:, :, None, None], BASE_STRIDE)), BASE_STRIDE)
    for layer, rows, scale in (
        (model.encoder.linear_detail[1], detail, detail_scale),
        (model.encoder.linear_base[1], base, base_scale),
    ):
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        layer.weight.copy_((rows / scale[:, None])[:, :, None, None])
        layer.bias.zero_()


def fit_decoder(model: PMAVAE, pictures: Tensor, iterations: int = 40, chunk: int = 16) -> float:
    """Fit the lapped maps by conjugate gradients on the normal equations.

    pictures: (n, 3, H, W) in [0, 1]. Returns the mean squared error that is left.
    """
    lapped = (model.decoder.lapped_base, model.decoder.lapped_detail)
    weights = [layer.weight for layer in lapped]
    with torch.no_grad():
        chunks = [
            (model.encoder.linear_base(x), model.encoder.linear_detail(x), x)
            for x in (pictures - 0.5).split(chunk)
        ]

    def gradient(values: list[Tensor], target: float) -> tuple[list[Tensor], float]:
        """Of half the mean squared error between the maps and `target` times the pictures."""
        with torch.no_grad():
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)
        total, error = [torch.zeros_like(w) for w in weights], 0.0
        for z_base, z_detail, picture in chunks:
            difference = lapped[0](z_base) + lapped[1](z_detail) - target * picture
            loss = 0.5 * difference.square().sum() / pictures.numel()
            error += 2 * loss.item()
            total = [t + g for t, g in zip(total, torch.autograd.grad(loss, weights), strict=True)]
        return total, error

    def dot(a: list[Tensor], b: list[Tensor]) -> float:
        return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))

    solution = [torch.zeros_like(w) for w in weights]
    residual = [-g for g in gradient(solution, target=1.0)[0]]
    direction, norm = residual, dot(residual, residual)
    for _ in range(iterations):
        curvature, _unused = gradient(direction, target=0.0)
        step = norm / dot(direction, curvature)
        solution = [s + step * d for s, d in zip(solution, direction, strict=True)]
        residual = [r - step * c for r, c in zip(residual, curvature, strict=True)]
        norm, previous = dot(residual, residual), norm
        direction = [r + norm / previous * d for r, d in zip(residual, direction, strict=True)]
    return gradient(solution, target=1.0)[1]


def linear_start(model: PMAVAE, dataset: Dataset, crops: int) -> float:
    """Fit the linear maps of a new model to crops of a dataset; returns the mean squared error."""
    size = min(CROP, dataset.largest_crop)
    pictures = torch.cat(
        [dataset.batch(min(16, crops), size, seed=1, step=i) for i in range(-(-crops // 16))]
    )
    fit_encoder(model, pictures)
    return fit_decoder(model, pictures[: -(-len(pictures) // 2)])
