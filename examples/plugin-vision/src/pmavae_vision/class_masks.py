"""Data of semantic segmentation: images/NAME.jpg, masks/NAME.png with a number for each pixel, labels.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pmavae.errors import ImageError, PMAVAEError
from pmavae.training.evaluation import picture_paths
from pmavae_vision.examples import VALIDATION_SIDE, LabelledPictures, Pixels, fitting, resized
from pmavae_vision.pictures import read_classes

IGNORED = 255  # in a mask: a pixel that nobody labelled
SCALES = 0.75, 1.5  # at random


def open_class_masks(source: Path, validate: Path | None) -> ClassMasks:
    """Raises PMAVAEError for a folder that is not of this kind, and for a picture without a mask."""
    try:
        lines = (source / "labels.txt").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise PMAVAEError(
            f"{source / 'labels.txt'} cannot be read as UTF-8 text ({error}): write a class on each line"
        ) from None
    labels = [line.strip() for line in lines if line.strip()]
    if not 2 <= len(labels) <= IGNORED:
        raise PMAVAEError(f"{source / 'labels.txt'} has {len(labels)} classes: give from 2 to {IGNORED}")
    return ClassMasks(_items(source), labels, None if validate is None else _items(validate))


def _items(source: Path) -> list[tuple[Path, Path]]:
    items = []
    for path in picture_paths(source / "images"):
        mask = source / "masks" / f"{path.stem}.png"
        if not mask.is_file():
            raise PMAVAEError(f"{path} has no mask {mask}: add it, or leave the picture out")
        items.append((path, mask))
    return items


class ClassMasks(LabelledPictures[Path]):
    """Pictures with the path of a mask each."""

    def _mask(self, path: Path, pixels: Pixels) -> Pixels:
        mask = read_classes(path)
        if mask.shape != pixels.shape[:2]:
            raise ImageError(f"{path} is not of the size of its picture: make both the same")
        if odd := sorted(set(np.unique(mask).tolist()) - {*range(len(self.labels)), IGNORED}):
            raise ImageError(f"{path} has the class {odd[0]}, and labels.txt {len(self.labels)} from 0 on")
        return mask

    def cut(
        self, pixels: Pixels, item: Path, crop: int, random: np.random.Generator
    ) -> tuple[Pixels, Pixels]:
        """A crop of the picture, scaled by chance and mirrored by chance."""
        mask = self._mask(item, pixels)
        scale = max(crop / min(mask.shape), random.uniform(*SCALES))
        height, width = (max(crop, round(length * scale)) for length in mask.shape)
        top, left = int(random.integers(height - crop + 1)), int(random.integers(width - crop + 1))
        part = slice(top, top + crop), slice(left, left + crop)
        picture, mask = resized(pixels, width, height)[part], _scaled(mask, width, height)[part]
        return (picture[:, ::-1], mask[:, ::-1]) if random.random() < 0.5 else (picture, mask)

    def whole(self, pixels: Pixels, item: Path) -> tuple[Pixels, Pixels]:
        """All of it, made smaller where it is large."""
        size = fitting(pixels, VALIDATION_SIDE)
        return resized(pixels, *size), _scaled(self._mask(item, pixels), *size)

    def collate(self, labels: Sequence[Pixels]) -> Tensor:
        """(B, H, W) int64."""
        return torch.from_numpy(np.stack(labels)).long()


def _scaled(mask: Pixels, width: int, height: int) -> Pixels:
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
