"""Opening a picture file that is too large to be read as a whole."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from pmavae.config import MIN_SIZE
from pmavae.errors import ImageError
from pmavae.files.latent_file import MAX_SIZE
from pmavae.images.picture_files import UNREADABLE
from pmavae_cli.images.icc import is_sound
from pmavae_cli.images.metadata import pack
from pmavae_cli.images.reading import TooLargeError, metadata_of, millions, xmp_of
from pmavae_cli.images.strip_reading import Rows

MAX_PIXELS = 1_000_000_000
# Opened by the class itself, a file is not refused for its size, and nothing but its header is read.
_CLASSES: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
}


@dataclass(frozen=True)
class LargePicture:
    """The first frame of a picture file, whose pixels are still in it."""

    rows: Rows
    carried: dict[str, str]  # see metadata.py; without transparency
    notes: tuple[str, ...]  # what of the file is not used


def open_large(place: bytes | Path, name: str, found: TooLargeError) -> LargePicture:
    """A JPEG, PNG or TIFF file, or its bytes, of more pixels than `read_picture` takes.

    found: what that raised. Raises ImageError, in one sentence that starts with the name.
    """
    has = f"{name} has {millions(found.pixels)} million pixels"
    if found.pixels > MAX_PIXELS:
        raise ImageError(f"{has}: make it smaller first, to {millions(MAX_PIXELS)} million at most")
    try:
        with warnings.catch_warnings(), _stream(place) as stream:
            warnings.simplefilter("ignore")
            kind = _CLASSES.get(stream.read(4)) or _CLASSES.get(_start(stream, 3))
            if kind is None:
                raise ImageError(f"{has}: of its format only smaller ones are read; convert it to TIFF first")
            stream.seek(0)
            with kind(stream) as image:
                return _opened(image, place, name, has)
    except (*UNREADABLE, UnidentifiedImageError) as reason:
        raise ImageError(
            f"{name} is damaged or truncated ({reason}): copy it again from where it came"
        ) from None


def _stream(place: bytes | Path) -> BinaryIO:
    return io.BytesIO(place) if isinstance(place, bytes) else place.open("rb")


def _start(stream: BinaryIO, length: int) -> bytes:
    stream.seek(0)
    return stream.read(length)


def _opened(image: ImageFile, place: bytes | Path, name: str, has: str) -> LargePicture:
    try:
        import pyvips  # noqa: F401
    except (ImportError, OSError):  # the binding without the library
        raise ImageError(f"{has}: pip install 'pmavae[large]' reads such a file by strips") from None
    width, height = image.size
    if min(width, height) < MIN_SIZE or max(width, height) > MAX_SIZE:
        raise ImageError(
            f"{name} is {width}×{height} px, and both sides must be from {MIN_SIZE} to {MAX_SIZE} px: "
            "cut it first"
        )
    late = image.format == "PNG" and "exif" not in image.info  # or none at all: it would be behind the pixels
    orientation, exif = (1, b"") if late else metadata_of(image)
    if orientation in range(3, 9):
        raise ImageError(f"{has}, and its EXIF orientation turns them: turn the pixels first (vips autorot)")
    rows = Rows(place, name, image.format or "", mirrored=orientation == 2)
    notes = []
    with suppress(*UNREADABLE):
        if (frames := getattr(image, "n_frames", 1)) > 1:
            notes.append(f"the first of its {frames} frames is used")
    if rows.more:
        notes.append("so large a picture is read without its transparency")
    if image.info.get("progressive") or image.info.get("interlace"):
        notes.append("it is progressive or interlaced, so all of it is in memory while it is read")
    carried: dict[str, str] = {}
    if rows.dtype.itemsize == 2:
        carried["depth"] = "16"
    if rows.grey:
        carried["mode"] = "L"
    profile: bytes = image.info.get("icc_profile") or b""
    if profile[16:20] == (b"GRAY" if rows.grey else b"RGB "):
        if is_sound(profile, 1 if rows.grey else 3):
            carried["icc"] = pack(profile)
            rows.profile = profile
        else:
            notes.append("its colour profile is damaged and is left out")
    if exif:
        carried["exif"] = pack(exif)
    if xmp := xmp_of(image):
        carried["xmp"] = pack(xmp)
    return LargePicture(rows, carried, tuple(notes))


def is_large(width: int, height: int) -> bool:
    """Whether a picture of this size is read and written by strips."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and width * height > limit
