"""Picture files that are written as their rows are computed, because these are too many for memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from pmavae.files.tensors import atomic_file
from pmavae.images.pixels import Pixels, eight_bits
from pmavae_cli.images.codecs import tiff_rows
from pmavae_cli.images.formats import Format
from pmavae_cli.images.strip_jpeg import jpeg_rows, write_jpeg
from pmavae_cli.images.strip_png import write_png
from pmavae_cli.images.strip_tiff import write_tiff
from pmavae_cli.images.writing import check_place, check_size, in_profile, kept_metadata
from pmavae_cli.run.jobs import Output, OutputError

FORMATS = frozenset(("PNG", "TIFF", "JPEG"))  # Pillow's names of those that can be written so
_PNG_BYTES = 1 << 21  # of the rows that are filtered at a time


def write_strips(
    output: Output,
    pixels: Iterable[Pixels],
    size: tuple[int, int],
    carried: Mapping[str, str],
    quality: int,
    overwrite: bool,
) -> list[str]:
    """Consecutive rows (h, W, 3), from the top to the bottom, as a file like that of `render_picture`.

    It comes in its place as a whole or not at all. size: width and height. Returns a note for all that the
    format cannot hold. Raises OutputError, naming the output, and what `pixels` raises.
    """
    width, height = size
    form = output.format
    check_size(width, height, form)
    check_place(output, overwrite)
    notes: list[str] = []
    if "alpha" in carried:
        notes.append("so large a picture is written without its transparency")
    exif = kept_metadata(carried, "exif", "EXIF", form.exif, form, notes)
    xmp = kept_metadata(carried, "xmp", "XMP", form.xmp, form, notes)
    deep = form.deep and carried.get("depth") == "16"
    kind: np.dtype[Any] = np.dtype(np.uint16 if deep else np.uint8)
    blank, profile = in_profile(np.zeros((1, 1, 3), kind), carried, form)
    channels = blank.shape[2]
    converted = _converted(pixels, carried, form, kind)

    def save(stream: BinaryIO) -> None:
        row_bytes = width * channels * kind.itemsize
        if form.pillow == "PNG":
            strips = _of_height(converted, max(1, _PNG_BYTES // row_bytes))
            write_png(stream, strips, size, kind, channels, profile, exif, xmp)
        elif form.pillow == "TIFF":
            rows = tiff_rows(row_bytes)
            strips = _of_height(converted, rows)
            write_tiff(stream, strips, size, kind, channels, profile, exif, xmp, rows)
        else:
            settings = {"icc_profile": profile, "exif": exif, "xmp": xmp}
            settings = {key: value for key, value in settings.items() if value}
            strips = _of_height(converted, jpeg_rows(width))
            write_jpeg(stream, strips, size, {**settings, "quality": quality, "subsampling": 0})

    if output.path and (output.path.is_file() or not output.path.exists()):
        with atomic_file(output.path, error=OutputError) as stream:
            save(stream)
            check_place(output, overwrite)
        return notes
    # A pipe or a device gets the whole, as any other output, and none of a picture that fails.
    with TemporaryFile() as whole:
        try:
            save(whole)
            whole.seek(0)
        except OSError as reason:
            raise OutputError(f"{output.name} cannot be written: {reason.strerror or reason}") from None
        if output.path is None:
            shutil.copyfileobj(whole, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return notes
        with atomic_file(output.path, error=OutputError) as stream:
            shutil.copyfileobj(whole, stream)
    return notes


def _converted(
    pixels: Iterable[Pixels], carried: Mapping[str, str], form: Format, kind: np.dtype[Any]
) -> Iterator[Pixels]:
    for strip in pixels:
        channels, _ = in_profile(strip, carried, form)
        yield channels if kind == np.uint16 else eight_bits(channels)


def _of_height(strips: Iterator[Pixels], height: int) -> Iterator[Pixels]:
    """The same rows in strips of one height, but for the last."""
    waiting: list[Pixels] = []
    count = 0
    for strip in strips:
        top = 0
        while count + len(strip) - top >= height:
            end = top + height - count
            yield np.concatenate((*waiting, strip[top:end])) if waiting else strip[top:end]
            waiting, count, top = [], 0, end
        if top < len(strip):
            waiting.append(strip[top:])
            count += len(strip) - top
    if waiting:
        yield np.concatenate(waiting)
