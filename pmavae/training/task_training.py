"""How a plugin trains the network of its task. Nothing here imports torch.

The data, the phases, checkpoints, resuming, logs and the weights file are the trainer's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pmavae.training.phases import Phase

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pmavae.training.objectives import Draws


@dataclass(frozen=True)
class Batch:
    """What one loss is of."""

    pictures: Tensor  # (B, 3, S, S) float32 in [0, 1], on the device that trains; S is the phase's crop
    draws: Draws  # all random numbers: they follow from the seed and the step, so that a run resumes exactly


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
