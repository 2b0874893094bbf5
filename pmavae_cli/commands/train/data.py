"""The pictures of a run: what is trained on, what is held out to validate on, what was refused."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import decoded, open_or_build
from pmavae.training.distributed import Processes
from pmavae.training.evaluation import middle, validation_pictures
from pmavae.training.plugin import Example, Examples
from pmavae.training.run_folder import RunFolder
from pmavae.training.sources import PictureEntry, Refusal, Survey, survey
from pmavae_cli.console import Console

VALIDATION_COUNT = 8
HELD_OUT_SHARE = 0.1  # of the pictures, at most


@dataclass(frozen=True)
class TrainingOptions:
    """The options of the command, as given."""

    task: str | None
    preset: str | None
    data: tuple[str, ...]
    out: Path | None
    config: Path | None
    time_limit: str | None
    steps: int | None
    pause_after: str | None
    init_from: str | None
    branch_from: Path | None
    resume: str
    perceptual: str | None
    classes: Path | None
    validate: Path | None
    cache: Path | None
    settings: tuple[str, ...]
    save_every: str
    keep: int
    log_every: int
    device: str
    threads: int | None
    seed: int | None
    dry_run: bool


@dataclass(frozen=True)
class TrainingData:
    """What a session trains and validates on."""

    survey: Survey  # what is trained on
    held_out: list[PictureEntry]
    refused: list[Refusal]
    cache: Path
    validation_folder: Path | None

    @property
    def largest_crop(self) -> int:
        """The largest square, in px, that one of the pictures has."""
        return self.survey.largest_crop

    @property
    def count(self) -> int:
        """Pictures to train on."""
        return len(self.survey.found)

    @property
    def held_out_count(self) -> int:
        """Pictures that are held out to validate on."""
        return len(self.held_out)

    def build(self, console: Console) -> None:
        """Decode the pictures into the cache, unless they are there; names those that fail."""

        def progress(done: int, total: int) -> None:
            if done % 500 == 0 or done == total:
                console.note(f"decoded {done} of {total} pictures")

        for refusal in open_or_build(self.survey, self.cache, progress):
            console.note(refusal.reason)

    def validation(self) -> list[Tensor]:
        """Pictures (1, 3, H, W) that are the same in every session."""
        if self.validation_folder is not None:
            return validation_pictures(self.validation_folder, VALIDATION_COUNT)
        entries = self.held_out or self.survey.found[:VALIDATION_COUNT]
        pictures = [middle(pixels) for _, pixels in decoded(entries) if not isinstance(pixels, Refusal)]
        if not pictures:
            raise PMAVAEError("no picture to validate on can be decoded: give some with --validate FOLDER")
        return pictures


@dataclass(frozen=True)
class LabelledData:
    """The examples of a plugin's training, in the place of TrainingData."""

    examples: Examples
    refused: list[Refusal] = field(default_factory=list)  # none: a label without its picture is an error
    largest_crop: int = sys.maxsize  # they are scaled
    cache: Path = Path()  # of no pictures: the examples are drawn from

    @property
    def count(self) -> int:
        """Pictures to train on."""
        return self.examples.count

    @property
    def held_out_count(self) -> int:
        """Pictures to validate on."""
        return self.examples.held_out

    def validation(self) -> Sequence[Example]:
        """Examples that are the same in every session."""
        return self.examples.validation()


def find_data(config: TrainConfig, options: TrainingOptions, folder: RunFolder) -> TrainingData:
    """Survey the sources and hold some pictures out, the same ones every time."""
    found = survey([Path(source) for source in config.data], options.classes)
    held_out: list[PictureEntry] = []
    if options.validate is None:
        count = min(VALIDATION_COUNT, int(len(found.found) * HELD_OUT_SHARE))
        held_out = sorted(found.found, key=_lot)[:count]
    rest = [entry for entry in found.found if entry not in held_out]
    return TrainingData(
        survey=replace(found, found=rest),
        held_out=held_out,
        refused=found.refused,
        cache=options.cache or folder.cache,
        validation_folder=options.validate,
    )


def prepare_data(
    config: TrainConfig,
    options: TrainingOptions,
    folder: RunFolder,
    processes: Processes,
    console: Console,
    examples: Examples | None = None,
) -> TrainingData | LabelledData:
    """Find the pictures, name the refused ones, and fill the cache unless this is a dry run.

    Where a plugin reads its own, `examples`, these are the data.
    """
    if examples is not None:
        return LabelledData(examples)
    data = find_data(config, options, folder)
    if options.dry_run:
        return data
    if processes.is_main:
        for refusal in data.refused:
            console.note(refusal.reason)
        data.cache.parent.mkdir(parents=True, exist_ok=True)
        data.build(console)
    processes.wait()
    return data


def _lot(entry: PictureEntry) -> str:
    """Where a picture stands when some are drawn: as by chance, but by its name alone."""
    return hashlib.blake2b(PurePath(entry.name).name.encode()).hexdigest()
