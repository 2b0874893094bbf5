"""Training pictures, decoded once into one memory-mapped file and sampled by class.

The cache is a flat file of uint8 RGB rows beside a JSON index. Each picture is there twice,
whole and two-fold downscaled: the second view doubles the scales seen and has no JPEG grid.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae.errors import PMAVAEError

# Share of crops that a class gets, whatever its number of files: for pictures and for styles.
CLASS_SHARES = {"photo": 0.5, "texture": 0.2, "painting": 0.12, "illustration": 0.08, "render": 0.1}
STYLE_SHARES = {"photo": 0.05, "texture": 0.25, "painting": 0.45, "illustration": 0.2, "render": 0.05}
FLAT_DEVIATION = 5.0  # of 255: a crop that varies less teaches nothing and is drawn again
MIN_VIEW = 64  # px; a downscaled view smaller than this is not worth keeping


@dataclass(frozen=True)
class View:
    """One picture at one scale: where its rows lie in the cache."""

    offset: int
    height: int
    width: int
    kind: str


def _pictures(sources: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for source in sources:
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"}):
                yield path.name, path.read_bytes()
        else:
            with tarfile.open(source) as tar:
                for member in tar:
                    if (file := tar.extractfile(member)) is not None:
                        yield Path(member.name).name, file.read()


def build_cache(sources: Sequence[Path], cache: Path, classes: dict[str, str] | None = None) -> None:
    """Decode tars and folders of pictures into `cache` (a .u8 file; the index gets .json)."""
    views: list[dict[str, object]] = []
    offset = 0
    partial = cache.with_suffix(".partial")
    with partial.open("wb") as out:
        for name, data in _pictures(sources):
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            for view in (picture, picture.reduce(2)):
                if min(view.size) < MIN_VIEW:
                    continue
                pixels = np.asarray(view)
                out.write(pixels.tobytes())
                kind = (classes or {}).get(name, "photo")
                views.append({"offset": offset, "height": view.height, "width": view.width, "kind": kind})
                offset += pixels.nbytes
    cache.with_suffix(".json").write_text(json.dumps(views))
    partial.replace(cache)


def read_classes(manifest: Path) -> dict[str, str]:
    """File name to class, from a CSV with the columns `file` and `class`."""
    with manifest.open(newline="") as file:
        return {row["file"]: row["class"] for row in csv.DictReader(file)}


class Corpus:
    """Random crops out of a cache, as a pure function of (seed, step): resuming needs no state."""

    def __init__(self, cache: Path, shares: dict[str, float] = CLASS_SHARES) -> None:
        self.pixels = np.memmap(cache, np.uint8, mode="r")
        self.views = [View(**row) for row in json.loads(cache.with_suffix(".json").read_text())]
        self.sides = np.array([min(view.height, view.width) for view in self.views])
        kinds = np.array([view.kind for view in self.views])
        # Within a class, views are drawn by area: every pixel has the same chance.
        area = np.array([view.height * view.width for view in self.views], dtype=np.float64)
        share = np.zeros(len(self.views))
        for kind in np.unique(kinds):
            chosen = kinds == kind
            share[chosen] = shares.get(str(kind), 0.1) * area[chosen] / area[chosen].sum()
        self.probability = share / share.sum()

    def batch(self, count: int, size: int, *, seed: int, step: int) -> Tensor:
        """(count, 3, size, size) float32 in [0, 1], flipped at random."""
        random = np.random.default_rng((seed, step))
        fits = self.sides >= size
        if not fits.any():
            raise PMAVAEError(f"no picture of the corpus has {size} px on both sides: use a smaller crop")
        probability = np.where(fits, self.probability, 0)
        probability /= probability.sum()
        crops = np.stack([self._crop(size, random, probability) for _ in range(count)])
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)

    def _crop(
        self, size: int, random: np.random.Generator, probability: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        for _attempt in range(8):
            view = self.views[random.choice(len(self.views), p=probability)]
            top = int(random.integers(view.height - size + 1))
            left = int(random.integers(view.width - size + 1))
            end = view.offset + view.height * view.width * 3
            rows = self.pixels[view.offset : end].reshape(view.height, view.width, 3)
            crop = np.asarray(rows[top : top + size, left : left + size])
            if crop[::4, ::4].std() >= FLAT_DEVIATION:
                break
        return crop[:, ::-1] if random.random() < 0.5 else crop
