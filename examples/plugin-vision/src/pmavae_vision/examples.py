"""Labelled pictures: how they are drawn for training, cut, and held out."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pmavae.errors import PMAVAEError
from pmavae_cli.api import Example, Examples
from pmavae_vision.backbone import label_settings
from pmavae_vision.pictures import read_picture

HELD_OUT, HELD_OUT_SHARE = 8, 0.1  # at most
VALIDATION_SIDE = 512  # px, of the longer side
Item = TypeVar("Item")
Pixels = NDArray[np.uint8]


class LabelledPictures(Examples, Generic[Item]):
    """Items that are read when they are drawn, each a picture with its label."""

    def __init__(self, items: Sequence[tuple[Path, Item]], labels: Sequence[str], validate: Any) -> None:
        """validate: items to validate on; None to hold some out, the same ones every time."""
        self.labels = list(labels)
        lots = sorted(items, key=lambda item: hashlib.blake2b(item[0].name.encode()).hexdigest())
        count = 0 if validate is not None else min(HELD_OUT, int(len(items) * HELD_OUT_SHARE))
        self.held = list(validate) if validate is not None else lots[:count]
        self.items = sorted(lots[count:], key=lambda item: str(item[0]))
        self.count, self.held_out = len(self.items), len(self.held)

    def settings(self) -> Mapping[str, Any]:
        """The names of the classes."""
        return label_settings(self.labels)

    def draw(self, crop: int, *, seed: int, step: int, first: int, count: int) -> tuple[Pixels, Any]:
        """(count, crop, crop, 3) and their labels."""
        rows = []
        for row in range(first, first + count):
            random = np.random.default_rng([seed % 2**63, step, row])
            path, item = self.items[int(random.integers(len(self.items)))]
            rows.append(self.cut(read_picture(path), item, crop, random))
        pictures, labels = zip(*rows, strict=True)
        return np.stack(pictures), self.collate(labels)

    def validation(self) -> Sequence[Example]:
        """What was held out; of too few pictures, some that are trained on."""
        examples = []
        for path, item in self.held or self.items[:HELD_OUT]:
            pixels, label = self.whole(read_picture(path), item)
            picture = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            examples.append(Example(picture, self.collate([label])))
        return examples

    @abstractmethod
    def cut(self, pixels: Pixels, item: Item, crop: int, random: np.random.Generator) -> tuple[Pixels, Any]:
        """(crop, crop, 3), changed at random, and its label."""

    @abstractmethod
    def whole(self, pixels: Pixels, item: Item) -> tuple[Pixels, Any]:
        """The picture to validate on, and its label."""

    @abstractmethod
    def collate(self, labels: Sequence[Any]) -> Any:
        """The labels of a batch."""


def only_source(sources: Sequence[Path]) -> Path:
    """The one place of data that numbers its classes; raises PMAVAEError for several."""
    if len(sources) != 1:
        raise PMAVAEError(f"{len(sources)} sources number their classes each in its own way: give one --data")
    return sources[0]


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """(H, W, 3) as (height, width, 3)."""
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def fitting(pixels: Pixels, side: int, smaller_only: bool = True) -> tuple[int, int]:
    """Width and height that a picture has with `side` px on its longer side."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if smaller_only:
        scale = min(1.0, scale)
    return max(1, round(width * scale)), max(1, round(height * scale))
