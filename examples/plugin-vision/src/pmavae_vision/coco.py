"""Data of instance segmentation: annotations as COCO has them, with pictures beside the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae_vision.examples import VALIDATION_SIDE, LabelledPictures, Pixels, fitting, resized

FILE = "annotations.json"
LEAST = 1.0  # px of a box's sides; what is smaller is left out
Masks = NDArray[np.bool_]  # (objects, H, W)


@dataclass(frozen=True)
class Objects:
    """What the annotations say of one picture."""

    masks: tuple[Any, ...]  # polygons or run lengths
    classes: tuple[int, ...]  # from 0


def open_coco(source: Path, validate: Path | None) -> CocoPictures:
    """Of a file, or of annotations.json in a folder. Raises PMAVAEError for one that cannot be read."""
    labels, items = _read(source)
    held = None
    if validate is not None:
        others, held = _read(validate)
        if others != labels:
            raise PMAVAEError(f"{validate} has other categories than {source}: give both the same")
    return CocoPictures(items, labels, held)


def _read(source: Path) -> tuple[list[str], list[tuple[Path, Objects]]]:
    path = source / FILE if source.is_dir() else source
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        categories = sorted(data["categories"], key=lambda category: int(category["id"]))
        numbers = {category["id"]: number for number, category in enumerate(categories)}
        labels = [str(category["name"]) for category in categories]
        found: dict[Any, list[Any]] = {image["id"]: [] for image in data["images"]}
        for row in data["annotations"]:
            if not row.get("iscrowd"):
                found[row["image_id"]].append((row["segmentation"], numbers[row["category_id"]]))
        items = []
        for image in data["images"]:
            masks, classes = zip(*found[image["id"]], strict=True) if found[image["id"]] else ((), ())
            items.append((_place(path.parent, str(image["file_name"])), Objects(masks, classes)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise PMAVAEError(
            f"{path} cannot be read as annotations of COCO ({reason}): check the file"
        ) from None
    if not items or not labels:
        raise PMAVAEError(f"{path} has no pictures or no categories: check the file")
    return labels, items


def _place(folder: Path, name: str) -> Path:
    inside = folder / "images" / name
    return inside if inside.exists() else folder / name


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Polygons, run lengths or compressed run lengths of COCO as (height, width). Raises ValueError."""
    if isinstance(segmentation, list):
        image = Image.new("1", (width, height))
        for polygon in segmentation:
            ImageDraw.Draw(image).polygon([float(value) for value in polygon], fill=1)
        return np.array(image)
    counts = segmentation["counts"]
    runs = np.array(_uncompressed(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if list(segmentation["size"]) != [height, width] or runs.min() < 0 or runs.sum() != height * width:
        raise ValueError("run lengths are not of the size of the picture")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Numbers in groups of 5 bits, from the third on as differences to the last but one."""
    numbers: list[int] = []
    value = shift = 0
    for byte in text.encode("ascii"):
        group = byte - 48
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
        value = shift = 0
    return numbers


class CocoPictures(LabelledPictures[Objects]):
    """Pictures with their objects."""

    def _masks(self, pixels: Pixels, item: Objects) -> Masks:
        height, width = pixels.shape[:2]
        try:
            masks = [decode_mask(segmentation, height, width) for segmentation in item.masks]
        except (ValueError, KeyError, TypeError, UnicodeError) as error:
            raise PMAVAEError(f"a mask of the annotations cannot be read ({error}): check the file") from None
        return np.stack(masks) if masks else np.zeros((0, height, width), bool)

    def cut(
        self, pixels: Pixels, item: Objects, crop: int, random: np.random.Generator
    ) -> tuple[Pixels, dict[str, Tensor]]:
        """The whole picture in a square, grey beside it, mirrored by chance."""
        masks = self._masks(pixels, item)
        if random.random() < 0.5:
            pixels, masks = np.ascontiguousarray(pixels[:, ::-1]), masks[:, :, ::-1]
        width, height = fitting(pixels, crop, smaller_only=False)
        square = np.full((crop, crop, 3), 124, np.uint8)
        square[:height, :width] = resized(pixels, width, height)
        placed = np.zeros((len(masks), crop, crop), bool)
        placed[:, :height, :width] = _scaled(masks, width, height)
        return square, _target(placed, item.classes)

    def whole(self, pixels: Pixels, item: Objects) -> tuple[Pixels, dict[str, Tensor]]:
        """All of it, made smaller where it is large."""
        width, height = fitting(pixels, VALIDATION_SIDE)
        masks = _scaled(self._masks(pixels, item), width, height)
        return resized(pixels, width, height), _target(masks, item.classes)

    def collate(self, labels: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Boxes (N, 4), classes (N,) from 1 on and masks (N, H, W) of each picture."""
        return list(labels)


def _scaled(masks: Masks, width: int, height: int) -> Masks:
    size = width, height
    rows = [Image.fromarray(mask).resize(size, Image.Resampling.NEAREST) for mask in masks]
    return np.array([np.array(row) for row in rows], bool).reshape(-1, height, width)


def _target(masks: Masks, classes: Sequence[int]) -> dict[str, Tensor]:
    boxes, kept = [], []
    for number, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        if min(box[2] - box[0], box[3] - box[1]) >= LEAST:
            boxes.append(box)
            kept.append(number)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([classes[number] + 1 for number in kept], dtype=torch.int64),
        "masks": torch.from_numpy(np.ascontiguousarray(masks[np.array(kept, np.intp)])).to(torch.uint8),
    }
