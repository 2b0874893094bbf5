"""What a run trains and what for: the interface of all objectives, and what a step hands to them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmavae.errors import WeightsError
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.network import Pretrained
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import Dataset
from pmavae.training.evaluation import means, preview_grid
from pmavae.training.perceptual import PerceptualNetwork
from pmavae.training.phases import Phase

M = TypeVar("M", bound=Pretrained)
D = TypeVar("D")


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
        self.of_rows = torch.Generator().manual_seed(seed + 1 + first // count)  # other rows, other numbers
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


def draws_of_one(device: torch.device) -> Draws:
    """Those of a batch of one, the same every time."""
    return Draws(0, rows=1, first=0, count=1, device=device)


class Objective(ABC, Generic[M, D]):
    """What a run trains, and what tells it how well it does: one object a run.

    M is the network; D is what a thread draws for a micro-batch. The constructor raises PMAVAEError for what
    cannot be had, before any picture is decoded.
    """

    begins_with: ClassVar[str] = "nothing"  # where no weights are named
    has_adversary: ClassVar[bool] = True  # in its checkpoints, whether it plays or not
    draws_noise: ClassVar[bool] = True  # beside what the crops were drawn with
    features: PerceptualNetwork | None = None  # that judge
    dataset: Dataset

    def __init__(self, config: TrainConfig, index: WeightsIndex | None = None) -> None:
        self.config, self.index = config, index

    @abstractmethod
    def new(self) -> M:
        """An untrained network of the run's task and preset."""

    @abstractmethod
    def load(self, weights: str) -> M:
        """A network to go on from. Raises WeightsError."""

    def started(self, weights: str) -> M:
        """`load`, for this run: raises WeightsError for weights of another preset."""
        model = self.load(weights)
        if (preset := model.config.preset) != self.config.preset:
            raise WeightsError(
                f"{weights} has weights of preset {preset}, not {self.config.preset}: use --preset {preset}"
            )
        return model

    def open(self, cache: Path) -> None:
        """Begin to draw from the decoded pictures."""
        self.dataset = Dataset(cache, self.config.shares)

    def fit(self, model: M) -> None:
        """Give a new network what pictures alone say."""

    def to(self, device: torch.device) -> None:
        """Move what is not trained."""

    def parts(self, model: M) -> tuple[nn.Module, ...]:
        """What is compiled, each apart."""
        return (model,)

    def choose(self, model: M, phase: Phase) -> None:
        """Set which parameters a phase trains."""
        model.requires_grad_(True)

    def judged_layer(self, model: M, phase: Phase) -> Tensor | None:
        """The weight of the last layer before what an adversary judges; None where none plays in a phase."""
        return None

    def largest_crop(self, phase: Phase) -> int:
        """The side in px of the largest crop that a phase draws."""
        return phase.crop

    def refusal(self, phase: Phase) -> str:
        """Why a phase cannot be trained, whatever the pictures; empty where it can."""
        return ""

    @abstractmethod
    def draw(self, phase: Phase, *, step: int, first: int, count: int) -> D:
        """Rows first to first + count - 1 of a step; they follow from these and the seed. In a thread."""

    @abstractmethod
    def loss(self, model: M, drawn: D, draws: Draws, progress: float) -> Outcome:
        """What a micro-batch costs, in autocast; `progress` is that of the run, 0 to 1."""

    @abstractmethod
    def probe(self, model: M, side: int, draws: Draws) -> object:
        """The loss of one crop of `side` px, whatever is in it, for what it needs of memory."""

    @abstractmethod
    def score(self, model: M, picture: Any, number: int) -> Mapping[str, float]:
        """What a network is worth on a validation picture, (1, 3, H, W) in [0, 1], or a plugin's Example."""

    @abstractmethod
    def show(self, model: M, pictures: Sequence[Any], number: int) -> Sequence[Tensor]:
        """What to see of one of the validation pictures, side by side, on the CPU; may be nothing."""

    @torch.no_grad()
    def scores(self, model: M, pictures: Sequence[Any]) -> dict[str, float]:
        """The means of `score`, by name."""
        return means([self.score(model, picture, number) for number, picture in enumerate(pictures)])

    @torch.no_grad()
    def preview(self, model: M, pictures: Sequence[Any]) -> Tensor | None:
        """A grid of what there is to see, (3, H, W) in [0, 1], a row for each picture; None for nothing."""
        rows = [self.show(model, pictures, number) for number in range(len(pictures))]
        return preview_grid([row for row in rows if row])

    @staticmethod
    def measure(model: Any, pictures: Path, codec: str | Path | None = None) -> dict[str, float | None]:
        """What a release is judged by, over a folder of pictures, by names in the manifest.

        `codec` is that of a texture prior, by default that of its preset. None stands for infinite decibels.
        """
        raise NotImplementedError


def blank(side: int) -> NDArray[np.uint8]:
    """A black crop, (1, side, side, 3)."""
    return np.zeros((1, side, side, 3), np.uint8)
