"""Made pictures with labels: rectangles, discs and triangles of several colours on a textured ground."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

KINDS = ("disc", "rectangle", "triangle")
# Two of each kind's own, so that small networks learn them within seconds.
COLOURS = {
    "disc": ((230, 40, 30), (240, 200, 20)),
    "rectangle": ((30, 60, 220), (20, 210, 220)),
    "triangle": ((40, 200, 40), (245, 245, 245)),
}


def scene(
    random: np.random.Generator, side: int, objects: int, kinds: tuple[str, ...] = KINDS, grid: int = 2
) -> Any:
    """A picture and its objects, (kind, polygon) each, in cells of their own."""
    y, x = np.mgrid[0:side, 0:side]
    waves = [np.sin(x * random.uniform(0.2, 1.5) + y * random.uniform(0.2, 1.5) + c) for c in range(3)]
    ground = 110 + 25 * np.stack(waves, -1) + random.normal(0, 12, (side, side, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    cells = random.permutation(grid * grid)[:objects]
    found = []
    for cell in cells:
        half = side / grid / 2
        radius = random.uniform(0.55, 0.9) * half
        centre = np.array([half + 2 * half * (cell % grid), half + 2 * half * (cell // grid)])
        centre += random.uniform(-1, 1, 2) * (half - radius)
        kind = kinds[int(random.integers(len(kinds)))]
        angles = {"disc": np.linspace(0, 2 * np.pi, 40)[:-1], "triangle": np.arange(3) * 2 * np.pi / 3}.get(
            kind, np.pi / 4 + np.arange(4) * np.pi / 2
        )
        polygon = [float(v) for a in angles for v in centre + radius * np.array([np.sin(a), -np.cos(a)])]
        colour = COLOURS[kind][int(random.integers(2))]
        draw.polygon(polygon, fill=colour)
        found.append((kind, polygon))
    return image, found


def make_classes(folder: Path, count: int, side: int, seed: int) -> None:
    """A folder for each kind, of pictures with one object of it."""
    random = np.random.default_rng(seed)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            scene(random, side, 1, (kind,), 1)[0].save(folder / kind / f"{seed}-{number}.png")


def make_masks(folder: Path, count: int, side: int, seed: int) -> None:
    """Pictures and masks: 0 is the ground."""
    random = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "labels.txt").write_text("\n".join(("ground", *KINDS)))
    for number in range(count):
        image, found = scene(random, side, 2)
        image.save(folder / f"images/{seed}-{number}.png")
        mask = Image.new("L", image.size)
        for kind, polygon in found:
            ImageDraw.Draw(mask).polygon(polygon, fill=1 + KINDS.index(kind))
        mask.save(folder / f"masks/{seed}-{number}.png")


def make_coco(folder: Path, count: int, side: int, seed: int) -> None:
    """Pictures and annotations.json."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        image, found = scene(random, side, 2)
        name = f"{seed}-{number}.png"
        image.save(folder / name)
        images.append({"id": number, "file_name": name, "width": side, "height": side})
        for kind, polygon in found:
            row = {"id": len(annotations), "image_id": number, "category_id": 1 + KINDS.index(kind)}
            annotations.append({**row, "segmentation": [polygon], "iscrowd": 0})
    categories = [{"id": 1 + i, "name": kind} for i, kind in enumerate(KINDS)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(data))
