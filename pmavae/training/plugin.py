"""How a plugin trains the network of its task. Nothing here imports torch.

The data, the phases, checkpoints, resuming, logs and the weights file are the trainer's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pmavae.errors import WeightsError
from pmavae.training.phases import Phase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from pmavae.training.objectives.base import Draws


@dataclass(frozen=True)
class Batch:
    """What one loss is of."""

    pictures: Tensor  # (B, 3, S, S) float32 in [0, 1], on the device that trains; S is the phase's crop
    draws: Draws  # all random numbers: they follow from the seed and the step, so that a run resumes exactly
    targets: Any = None  # what the training's Examples have for these pictures


class Example(NamedTuple):
    """One picture to validate on, and what a network should make of it."""

    picture: Tensor  # (1, 3, H, W) float32 in [0, 1], on the CPU
    targets: Any  # as those of a batch of one


class Examples(ABC):
    """Pictures with labels, or whatever else a training needs beside them, out of files that it can read."""

    count: int  # of pictures to train on
    held_out: int  # of pictures to validate on

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What the network has to know of them, such as its classes; added to `network_settings`."""

    @abstractmethod
    def draw(
        self, crop: int, *, seed: int, step: int, first: int, count: int
    ) -> tuple[NDArray[np.uint8], Any]:
        """Rows first to first + count - 1 of a step: (count, crop, crop, 3), and their targets.

        A row has to follow from the seed, the step and its own number alone. Called in a thread.
        """

    @abstractmethod
    def validation(self) -> Sequence[Example]:
        """Those to validate on, the same ones every time."""


class Training(ABC):
    """What `pmavae train --task NAME` does for a network of a plugin; an object without state."""

    name: ClassVar[str]  # of --task, and in the weights file: what a Task has as its `weights`
    help: ClassVar[str]  # one line
    presets: ClassVar[Sequence[str]] = ("tiny",)  # that there are shapes of the network for
    phases: ClassVar[Sequence[Phase]] = (Phase("crops", 1.0, crop=64, batch=8),)  # where the user sets none

    @abstractmethod
    def network_settings(self, preset: str) -> Mapping[str, Any]:
        """What `build_network` needs to know for a preset; it goes into the weights file.

        Names with words, truth values, numbers (whole ones from 0 to 8192), or lists of these.
        """

    @abstractmethod
    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        """The untrained network of these settings, as `Task.build_network` of the task makes it."""

    def open_examples(self, sources: Sequence[Path], validate: Path | None) -> Examples | None:
        """The data of a run, where pictures alone are not enough; None, as here, for random crops of them.

        sources: those of --data. validate: that of --validate, without which some are held out. Raises
        PMAVAEError, in one sentence, for what cannot be read; it need not decode a picture.
        """
        return None

    def start_from(self, network: nn.Module, weights: Path) -> None:
        """Fill what a new network can take from weights of another task, such as its backbone.

        What --init-from names where it is not of this training. Raises WeightsError, as here it always does.
        """
        raise WeightsError(f"{weights} has no weights of training {self.name}: give some that it made")

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Scalars of one batch: "loss", which is minimised, and others for the log.

        "mse", a mean squared error of values in [0, 1], is logged as a PSNR.
        """

    def score(self, network: nn.Module, batch: Batch) -> Mapping[str, float]:
        """What a validation picture, a batch of one, is worth; logged as means over all of them.

        The sides are multiples of 16, at most 512, and its draws are the same every time. Without a score of
        its own, a training is judged by its loss.
        """
        return {name: float(value) for name, value in self.loss(network, batch).items() if name != "mse"}

    def preview(self, network: nn.Module, batch: Batch) -> Sequence[Tensor]:
        """What to show of a validation picture, side by side: (1, 3, H, W) in [0, 1], as many of each.

        By default nothing, and the run has no previews.
        """
        return ()
