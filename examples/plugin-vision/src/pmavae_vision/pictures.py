"""Picture files, in and out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pmavae.errors import ImageError, PMAVAEError
from pmavae.files.tensors import write_atomically
from pmavae.images.reading import FORMATS, MAX_PIXELS, refusing
from pmavae.training.evaluation import picture_paths

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class OutputError(PMAVAEError):
    """An output that cannot be written."""


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture, upright, as (H, W, 3); transparency lies on white. Raises ImageError, naming the file."""
    with _opened(path) as image:
        if image.mode in _SIXTEEN_BITS:
            values = np.asarray(image).astype(np.float32).clip(0, 65535)
            image = Image.fromarray((values / 257).round().astype(np.uint8))
        turned = ImageOps.exif_transpose(image)
        if turned.has_transparency_data:
            colours = turned.convert("RGBA")
            turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), colours)
        return np.array(turned.convert("RGB"))


def read_classes(path: Path) -> NDArray[np.uint8]:
    """A picture of numbers, such as a PNG with a palette, as (H, W). Raises ImageError."""
    with _opened(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise ImageError(f"{path} has pixels of kind {image.mode}: a mask has one number of 8 bits each")
        return np.array(image.convert("L") if image.mode == "1" else image)


class _opened:
    """An open picture that is loaded; what goes wrong is an ImageError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Image.Image:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read: {error.strerror or error}") from None
        with refusing(str(self.path)):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{self.path} has more than {MAX_PIXELS} pixels: make it smaller")
            image.load()
            return image

    def __exit__(self, *_: object) -> None: ...


def expand(arguments: Sequence[str]) -> Iterator[Path]:
    """The pictures that arguments name: files, and all in folders. Raises PMAVAEError for an empty folder."""
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            yield from picture_paths(path)
        else:
            yield path


def output_path(picture: Path, task: str, output: Path | None, many: bool, suffix: str) -> Path:
    """Where the result of a picture goes: beside it, into a folder, or to the file that -o names."""
    if output is None:
        return picture.with_name(f"{picture.stem}.{task}{suffix}")
    if many or output.is_dir():
        return output / f"{picture.stem}{suffix}"
    return output


@dataclass
class Outputs:
    """The files of one run."""

    overwrite: bool
    _pictures: dict[Path, Path] = field(default_factory=dict)  # whose results they are

    def claim(self, path: Path, picture: Path) -> None:
        """Say which file is to be written. Raises OutputError where that would destroy another one."""
        if _same(path, picture):
            raise OutputError(f"{path} would be written over its own input: give another -o")
        other = self._pictures.setdefault(path, picture)
        if other != picture:
            raise OutputError(f"{path} is the output of {other} already, not of {picture}: rename one")
        if path.exists() and not self.overwrite:
            raise OutputError(f"{path} exists already: give --overwrite, or another -o")

    def write(self, path: Path, data: bytes) -> None:
        """Write a file as a whole. Raises OutputError where it cannot be."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent} cannot be made: {error.strerror or error}") from None
        write_atomically(path, data, error=OutputError)


def _same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
