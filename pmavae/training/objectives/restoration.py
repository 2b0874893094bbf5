"""Restoration networks: the loss of a step, trials of a validation, scores of a release."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae.images.metrics import psnr, ssim
from pmavae.images.pixels import to_pixels, to_unit
from pmavae.network_configs import RESTORERS, RestorationConfig
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer, enlarge
from pmavae.restoration.tiles import restore_pixels, restore_whole
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import to_device
from pmavae.training.degradation import Damaged, crop_side, damage, recompress, scale_of, shrink
from pmavae.training.evaluation import (
    SCORE,
    means,
    picture_paths,
    psnr_and_ssim,
    read_rgb,
    stored_decibels,
)
from pmavae.training.losses import edge_loss, pixel_loss
from pmavae.training.objectives.base import Draws, Objective, Outcome
from pmavae.training.phases import Phase


class Restoration(Objective[Restorer, Damaged]):
    """A network that restores crops, which training has damaged and knows clean."""

    draws_noise = False  # it comes with the damage

    def __init__(self, config: TrainConfig, index: WeightsIndex | None = None) -> None:
        super().__init__(config, index)
        self.shape = RESTORERS[config.task, config.preset]

    def new(self) -> Restorer:
        return Restorer(self.shape)

    def load(self, weights: str) -> Restorer:
        return Restorer.from_pretrained(weights, self.index, task=self.config.task)

    def largest_crop(self, phase: Phase) -> int:
        return crop_side(phase.crop, max(self.shape.scales))

    def draw(self, phase: Phase, *, step: int, first: int, count: int) -> Damaged:
        seed = self.config.seed
        scale = scale_of(self.shape, seed, step)
        side = crop_side(phase.crop, scale)
        # Crops of clear sky teach to leave nothing of the noise in it.
        clean = self.dataset.crops(count, side, seed=seed, step=step, first=first, flat=True)
        return damage(clean, scale, self.config.damage, seed=seed, step=step, first=first)

    def loss(self, model: Restorer, drawn: Damaged, draws: Draws, progress: float) -> Outcome:
        """Pixels cost, and Sobel edges where the configuration gives them a weight."""
        device, config = model.device, self.config.loss

        def moved(values: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(values).to(device)

        inputs = moved(drawn.inputs).permute(0, 3, 1, 2)
        target = to_device(drawn.targets, device)
        gated = bool((drawn.fidelity < 1).any())
        fidelity = moved(drawn.fidelity) if gated else None
        output = model(inputs, moved(drawn.levels), fidelity, drawn.scale)
        total = config.l1 * pixel_loss(output, target, config.pixels)
        if config.edge:
            total = total + config.edge * edge_loss(output, target)
        error = (output - target).detach()
        return Outcome(total, target, output, {"l1": error.abs().mean(), "mse": error.square().mean()})

    def probe(self, model: Restorer, side: int, draws: Draws) -> Tensor:
        picture, levels = (torch.zeros(1, *shape, device=model.device) for shape in ((3, side, side), (2,)))
        restored: Tensor = model(picture, levels, scale=model.config.scales[-1])
        return restored.abs().mean()

    def score(self, model: Restorer, picture: Tensor, number: int) -> dict[str, float]:
        original, _, result = trial(model, picture, number)
        return psnr_and_ssim(result, original)

    def show(self, model: Restorer, pictures: Sequence[Tensor], number: int) -> Sequence[Tensor]:
        """Damaged, restored, clean."""
        clean, damaged, restored = trial(model, pictures[number], number)
        return damaged, restored, clean

    @staticmethod
    def measure(model: Restorer, pictures: Path, codec: str | Path | None = None) -> dict[str, float | None]:
        """The PSNR of each condition that the network can be put to."""
        conditions, rows = conditions_of(model.config), []
        for number, path in enumerate(picture_paths(pictures)):
            picture = read_rgb(path)
            trials = [make_trial(picture, condition, number) for condition in conditions]
            rows.append({t.condition.name: fidelity(t, restored(model, t)).psnr for t in trials})
        return {f"{SCORE}_{name}": stored_decibels(value) for name, value in means(rows).items()}


# BT.601 for R, G and B in [0, 1], as MATLAB's rgb2ycbcr has it: 16 to 235.
LUMA = (65.481, 128.553, 24.966)
LUMA_OFFSET = 16.0
UNDAMAGED = Levels()


@dataclass(frozen=True)
class Condition:
    """One way to damage every picture."""

    name: str
    task: str
    levels: Levels = UNDAMAGED
    scale: int = 1


CONDITIONS = {
    condition.name: condition
    for condition in (
        *(Condition(f"noise{sigma}", "denoise", Levels(noise=sigma)) for sigma in (15, 25, 50)),
        *(Condition(f"jpeg{quality}", "denoise", Levels(jpeg=quality)) for quality in (10, 20, 40)),
        Condition("clean", "denoise"),
        *(Condition(f"x{scale}", "upscale", scale=scale) for scale in (2, 4)),
    )
}


@dataclass(frozen=True)
class Trial:
    """A picture, and what a condition made of it."""

    condition: Condition
    reference: NDArray[np.uint8]  # (H, W, 3)
    damaged: NDArray[np.uint8] | NDArray[np.float32]  # (H / scale, W / scale, 3), in 8-bit units
    tables: dict[int, list[int]] | None = None  # quantisation tables of the JPEG file that it was

    @property
    def shown(self) -> NDArray[np.uint8]:
        """The damaged picture as a file has it: clipped and rounded to 8 bits."""
        return np.asarray(self.damaged).round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Fidelity:
    """How near a restored picture is to the one that was damaged."""

    psnr: float  # dB; infinite for equal pictures
    ssim: float
    shift: float  # of the mean of R, G or B from that of the damaged picture, the largest; 8-bit units


def conditions_of(config: RestorationConfig) -> list[Condition]:
    """The conditions that a network can be put to; raises PMAVAEError where there is none."""
    own = [c for c in CONDITIONS.values() if c.task == config.task and c.scale in config.scales]
    if not own:
        raise PMAVAEError(
            f"a network of the task {config.task} and the scales {config.scales} cannot be measured: the "
            f"conditions are {', '.join(CONDITIONS)}"
        )
    return own


def make_trial(picture: NDArray[np.uint8], condition: Condition, number: int) -> Trial:
    """Damage (H, W, 3); the noise follows from the picture's number and the condition alone.

    Where it is shrunk, the picture is cut to a multiple of the scale first.
    """
    height, width = (side // condition.scale * condition.scale for side in picture.shape[:2])
    reference = picture[:height, :width]
    levels = condition.levels
    if condition.scale > 1:
        return Trial(condition, reference, shrink(reference, condition.scale))
    if levels.jpeg is not None:
        return Trial(condition, reference, *recompress(reference, levels.jpeg, halve=True))
    if levels.noise:
        random = np.random.default_rng([number, int(levels.noise)])
        noise = random.standard_normal(reference.shape, np.float32) * np.float32(levels.noise)
        return Trial(condition, reference, reference + noise)
    return Trial(condition, reference, reference)


def restored(model: Restorer, trial: Trial) -> NDArray[np.uint8]:
    """What a network makes of a damaged picture when it is told the true level: (H, W, 3).

    An 8-bit picture is restored in tiles; noise that is not clipped has no 8 bits, and is restored whole.
    """
    condition, damaged = trial.condition, trial.damaged
    if damaged.dtype == np.uint8:
        return restore_pixels(model, trial.shown, condition.levels, scale=condition.scale)
    x = torch.from_numpy(damaged).permute(2, 0, 1)[None].float() / 255
    return to_pixels(restore_whole(model, x, condition.levels, scale=condition.scale)[0])


def fidelity(trial: Trial, result: NDArray[np.uint8]) -> Fidelity:
    """Compare a result, (H, W, 3), with the trial's reference, as its task has it."""
    pair = (to_unit(pixels, dtype=torch.float64) for pixels in (trial.reference, result))
    means = (pixels.reshape(-1, 3).mean(0, dtype=np.float64) for pixels in (trial.damaged, result))
    shift = float(np.abs(np.subtract(*means)).max())
    if trial.condition.scale > 1:
        inner = slice(trial.condition.scale, -trial.condition.scale)
        # Three times the same plane, for metrics that take three: their mean is that of the one.
        a, b = (luma(picture)[..., inner, inner].expand(-1, 3, -1, -1) for picture in pair)
    else:
        a, b = pair
    return Fidelity(float(psnr(a, b)), float(ssim(a, b)), shift)


def luma(picture: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] to (B, 1, H, W) in [16, 235] / 255."""
    weights = torch.tensor(LUMA, dtype=picture.dtype, device=picture.device)[:, None, None]
    return ((picture * weights).sum(1, keepdim=True) + LUMA_OFFSET) / 255


# One after the other, from picture to picture; mild noise beside those of the tables.
DAMAGES = (
    *(CONDITIONS[name] for name in ("noise25", "jpeg20", "noise50", "jpeg10")),
    Condition("noise10", "denoise", Levels(noise=10)),
)


def condition_of(config: RestorationConfig, number: int) -> Condition:
    """What is done to the picture of a number: the scales take turns, and so do the damages of scale 1."""
    scale = config.scales[number % len(config.scales)]
    return CONDITIONS[f"x{scale}"] if scale > 1 else DAMAGES[number % len(DAMAGES)]


def trial(model: Restorer, picture: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """A clean picture, (1, 3, H, W) in [0, 1], cut to a multiple of its scale; damaged; restored.

    All of one size, of 8 bits and on the CPU; a picture that was shrunk is shown enlarged.
    """
    condition = condition_of(model.config, number)
    made = make_trial(to_pixels(picture[0]), condition, number)
    result = restored(model, made)
    clean, damaged, found = map(to_unit, (made.reference, made.shown, result))
    return clean, enlarge(damaged, condition.scale).clamp(0, 1), found
