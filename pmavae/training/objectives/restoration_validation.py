"""What a restoration network has come to, on pictures that stay the same, damaged in the same way."""

from __future__ import annotations

from torch import Tensor

from pmavae.images.pixels import to_pixels
from pmavae.restoration.config import RestorationConfig
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer, enlarge
from pmavae.training.evaluation import unit
from pmavae.training.restoration_evaluation import CONDITIONS, Condition, make_trial, restored

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
    clean, damaged, found = (unit(pixels).float() for pixels in (made.reference, made.shown, result))
    return clean, enlarge(damaged, condition.scale).clamp(0, 1), found
