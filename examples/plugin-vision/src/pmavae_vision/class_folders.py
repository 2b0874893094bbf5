"""Data of classification: a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae.training.evaluation import picture_paths
from pmavae_vision.examples import LabelledPictures, Pixels, resized

SMALLEST = 0.35  # of a picture's area that a crop has


def open_class_folders(sources: Sequence[Path], validate: Path | None, side: int) -> ClassFolders:
    """Raises PMAVAEError for a folder without two classes, or for other classes in `validate`."""
    labels = sorted({folder.name for source in sources for folder in _folders(source)})
    if len(labels) < 2:
        raise PMAVAEError(f"{sources[0]} has folders of {len(labels)} classes: a class is a folder in it")
    held = None
    if validate is not None:
        held = _items(validate, labels)
    items = [item for source in sources for item in _items(source, labels)]
    return ClassFolders(items, labels, held, side)


def _folders(source: Path) -> list[Path]:
    try:
        return sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise PMAVAEError(f"{source} cannot be read: {error.strerror or error}") from None


def _items(source: Path, labels: list[str]) -> list[tuple[Path, int]]:
    items = []
    for folder in _folders(source):
        if folder.name not in labels:
            raise PMAVAEError(f"{folder} is no class of the data: leave it out, or add it there")
        items += [(path, labels.index(folder.name)) for path in picture_paths(folder)]
    return items


class ClassFolders(LabelledPictures[int]):
    """Pictures with a class each."""

    def __init__(
        self, items: Sequence[tuple[Path, int]], labels: Sequence[str], held: object, side: int
    ) -> None:
        super().__init__(items, labels, held)
        self.side = side

    def cut(self, pixels: Pixels, item: int, crop: int, random: np.random.Generator) -> tuple[Pixels, int]:
        """A part of the picture, near to a square, mirrored by chance."""
        height, width = pixels.shape[:2]
        side = max(1, int(min(height, width) * np.sqrt(random.uniform(SMALLEST, 1))))
        top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
        part = resized(pixels[top : top + side, left : left + side], crop, crop)
        return (part[:, ::-1] if random.random() < 0.5 else part), item

    def whole(self, pixels: Pixels, item: int) -> tuple[Pixels, int]:
        """The square in the middle, of the side of the network."""
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return resized(pixels[top : top + side, left : left + side], self.side, self.side), item

    def collate(self, labels: Sequence[int]) -> Tensor:
        """(B,) int64."""
        return torch.tensor(labels)
