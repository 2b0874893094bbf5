"""The pictures of a run: what is trained on, what is held out to validate on, what was refused."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from types import SimpleNamespace

from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import decoded, open_or_build
from pmavae.training.distributed import Processes
from pmavae.training.evaluation import middle, validation_pictures
from pmavae.training.plugin import Example, Examples
from pmavae.training.run_folder import RunFolder
from pmavae.training.sources import PictureEntry, Refusal, find_pictures
from pmavae_cli.console import Console

VALIDATION_COUNT = 8
HELD_OUT_SHARE = 0.1  # of the pictures, at most

TrainingOptions = SimpleNamespace  # the values of the command's options, by their names there


@dataclass(frozen=True)
class TrainingData:
    """What a session trains and validates on."""

    count: int  # pictures to train on
    held_out: int  # pictures that are held out to validate on
    validation: Callable[[], Sequence[Tensor | Example]]  # these; the same in every session
    largest_crop: int = sys.maxsize  # px, of the largest square in a picture; a plugin scales its own
    cache: Path = Path()  # the decoded pictures; none where a plugin reads its own
    refused: Sequence[Refusal] = ()


def prepare_data(
    config: TrainConfig,
    options: TrainingOptions,
    folder: RunFolder,
    processes: Processes,
    console: Console,
    examples: Examples | None = None,
) -> TrainingData:
    """Find the pictures, name the refused ones, and fill the cache unless this is a dry run.

    Some pictures are held out, the same ones every time. Where a plugin reads its own, `examples`, these are
    the data.
    """
    if examples is not None:
        return TrainingData(examples.count, examples.held_out, examples.validation)
    found = find_pictures([Path(source) for source in config.data], options.classes)
    held_out: list[PictureEntry] = []
    if options.validate is None:
        count = min(VALIDATION_COUNT, int(len(found.found) * HELD_OUT_SHARE))
        held_out = sorted(found.found, key=_lot)[:count]
    trained = replace(found, found=[entry for entry in found.found if entry not in held_out])
    cache: Path = options.cache or folder.cache

    def progress(done: int, total: int) -> None:
        if done % 500 == 0 or done == total:
            console.note(f"decoded {done} of {total} pictures")

    if not options.dry_run:
        if processes.is_main:
            for refusal in found.refused:
                console.note(refusal.reason)
            cache.parent.mkdir(parents=True, exist_ok=True)
            for refusal in open_or_build(trained, cache, progress):
                console.note(refusal.reason)
        processes.wait()
    validation: Callable[[], Sequence[Tensor]] = partial(
        _middles, held_out or trained.found[:VALIDATION_COUNT]
    )
    if options.validate is not None:
        validation = partial(validation_pictures, options.validate, VALIDATION_COUNT)
    return TrainingData(
        len(trained.found), len(held_out), validation, trained.largest_crop, cache, found.refused
    )


def _lot(entry: PictureEntry) -> str:
    """Where a picture stands when some are drawn: as by chance, but by its name alone."""
    return hashlib.blake2b(PurePath(entry.name).name.encode()).hexdigest()


def _middles(entries: list[PictureEntry]) -> list[Tensor]:
    """The middles of pictures, (1, 3, H, W)."""
    pictures = [middle(pixels) for _, pixels in decoded(entries) if not isinstance(pixels, Refusal)]
    if not pictures:
        raise PMAVAEError("no picture to validate on can be decoded: give some with --validate FOLDER")
    return pictures
