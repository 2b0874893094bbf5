"""Writing a picture strip by strip, which is too large to be held as a whole: PNG, TIFF and JPEG files."""

import io
import shutil
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.files.tensors import atomic_file
from pmavae.images.pixels import Pixels
from pmavae_cli.images.codecs import of_height, png_chunk, png_metadata, write_tiff
from pmavae_cli.images.formats import Output, OutputError
from pmavae_cli.images.metadata import Extras
from pmavae_cli.images.writing import channels_of, check_place, check_size, held_extras, pillow_settings


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
    extras = held_extras(carried, form, notes)
    strips = (channels_of(strip, carried, form, extras.profile) for strip in pixels)
    first = next(strips)
    shape, kind = (height, width, first.shape[2]), first.dtype
    whole = chain((first,), strips)
    del first  # of a wide picture it is large

    def save(stream: BinaryIO) -> None:
        if form.pillow == "PNG":
            write_png(stream, whole, shape, kind, extras)
        elif form.pillow == "TIFF":
            write_tiff(stream, whole, shape, kind, extras)
        else:
            write_jpeg(stream, whole, shape, pillow_settings(form, quality, extras))

    if output.path and (output.path.is_file() or not output.path.exists()):
        with atomic_file(output.path, error=OutputError) as stream:
            save(stream)
            check_place(output, overwrite)
        return notes
    # A pipe or a device gets the whole, as any other output, and none of a picture that fails.
    with TemporaryFile() as file:
        try:
            save(file)
            file.seek(0)
        except OSError as reason:
            raise OutputError(f"{output.name} cannot be written: {reason.strerror or reason}") from None
        if output.path is None:
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return notes
        with atomic_file(output.path, error=OutputError) as stream:
            shutil.copyfileobj(file, stream)
    return notes


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}
_LEVEL = 6  # of zlib
_FILTERED_BYTES = 1 << 21  # of the rows that are filtered at a time
_LEAST = 1 << 16  # bytes of a chunk of pixels
_SUB, _UP, _PAETH = 1, 2, 4  # how a row may be told from its neighbours


def write_png(
    stream: BinaryIO, strips: Iterator[Pixels], shape: tuple[int, ...], kind: np.dtype[Any], extras: Extras
) -> None:
    """Strips (h, W, 1 or 3) of a picture of this shape, (H, W, C), and kind, uint8 or uint16, as a file."""
    height, width, channels = shape
    step = channels * kind.itemsize
    header = struct.pack(">IIBBBBB", width, height, 8 * kind.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    stream.write(_SIGNATURE + png_chunk(b"IHDR", header) + png_metadata(extras))
    packer, waiting = zlib.compressobj(_LEVEL), bytearray()
    above = np.zeros(width * step, np.uint8)
    for strip in of_height(strips, max(1, _FILTERED_BYTES // (width * step))):
        rows = np.ascontiguousarray(strip, kind.newbyteorder(">")).view(np.uint8).reshape(len(strip), -1)
        waiting += packer.compress(_filtered(rows, above, step))
        above = rows[-1].copy()
        if len(waiting) >= _LEAST:
            stream.write(png_chunk(b"IDAT", bytes(waiting)))
            waiting.clear()
    stream.write(png_chunk(b"IDAT", bytes(waiting) + packer.flush()) + png_chunk(b"IEND", b""))


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> bytes:
    """Rows (h, n) after the row above them, each by the filter whose differences are smallest.

    step: bytes of a pixel. The heuristic is that of the PNG specification, section 12.7.
    """
    up = np.concatenate((above[None], rows[:-1]))
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], corner[:, step:] = rows[:, :-step], up[:, :-step]
    kinds = np.array((_SUB, _UP, _PAETH), np.uint8)
    ways = np.stack((rows - left, rows - up, rows - _paeth(left, up, corner)))
    costs = np.abs(ways.view(np.int8).astype(np.int16)).sum(2, dtype=np.int64)
    best = costs.argmin(0)
    found = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    found[:, 0] = kinds[best]
    found[:, 1:] = ways[best, np.arange(len(rows))]
    return found.tobytes()


def _paeth(left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of the three neighbours the one that is nearest to left + up - corner."""
    over, beside = up.astype(np.int16) - corner, left.astype(np.int16) - corner
    to_left, to_up, to_corner = np.abs(over), np.abs(beside), np.abs(over + beside)
    second = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, second)


_BLOCK = 8  # px: pixels are coded in squares of it, as no channel is halved
_MOST_BLOCKS = 65_535  # between two restart markers
_MOST_ROWS = 128
_START_OF_FRAME, _START_OF_SCAN, _RESTART_INTERVAL, _RESTART = 0xC0, 0xDA, 0xDD, 0xD0
_END = b"\xff\xd9"


def write_jpeg(
    stream: BinaryIO, strips: Iterator[Pixels], shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    """Strips (h, W, 1 or 3) uint8 of a picture of this shape, (H, W, C), as a file.

    settings: what Pillow's writer takes, with subsampling 0.
    """
    height, width, _ = shape
    across = -(-width // _BLOCK)  # blocks
    rows = min(_MOST_ROWS, _MOST_BLOCKS // across * _BLOCK)
    plain = {key: settings[key] for key in ("quality", "subsampling")}
    for number, strip in enumerate(of_height(strips, rows)):
        image = Image.fromarray(strip[..., 0] if strip.shape[2] == 1 else strip)
        coded = io.BytesIO()
        image.save(coded, "JPEG", **(plain if number else settings))
        head, scan = _head_and_scan(coded.getvalue(), height, across * rows // _BLOCK)
        stream.write(bytes((0xFF, _RESTART + (number - 1) % 8)) if number else head)
        stream.write(scan)
    stream.write(_END)


def _head_and_scan(data: bytes, height: int, interval: int) -> tuple[bytes, bytes]:
    """The head of a file, with the height of the whole and the restart interval in it, and what is coded."""
    head, place = bytearray(data[:2]), 2
    while True:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        segment = bytearray(data[place : place + 2 + length])
        if marker == _START_OF_FRAME:
            segment[5:7] = struct.pack(">H", height)  # after the marker, the length and the bits of a channel
        if marker == _START_OF_SCAN:
            head += struct.pack(">BBHH", 0xFF, _RESTART_INTERVAL, 4, interval)
        head += segment
        place += len(segment)
        if marker == _START_OF_SCAN:
            return bytes(head), data[place : -len(_END)]
