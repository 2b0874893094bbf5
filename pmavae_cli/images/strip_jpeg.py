"""JPEG files that are written from strips of rows.

A strip is encoded as a picture of its own, with the tables that all of them have; what it is coded as then
follows that of the strip before it, after a restart marker. So the file decodes to what it would if the
picture had been encoded as a whole.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from PIL import Image

from pmavae.images.pixels import Pixels

BLOCK = 8  # px: pixels are coded in squares of it, as no channel is halved
_MOST_BLOCKS = 65_535  # between two restart markers
_MOST_ROWS = 128
_START_OF_FRAME, _START_OF_SCAN, _RESTART_INTERVAL, _RESTART = 0xC0, 0xDA, 0xDD, 0xD0
_END = b"\xff\xd9"


def jpeg_rows(width: int) -> int:
    """The rows that each strip but the last has to have."""
    return min(_MOST_ROWS, _MOST_BLOCKS // -(-width // BLOCK) * BLOCK)


def write_jpeg(
    stream: BinaryIO, strips: Iterator[Pixels], size: tuple[int, int], settings: dict[str, Any]
) -> None:
    """Strips of `jpeg_rows` rows, (h, W, 1 or 3) uint8, as a file; size: width and height.

    settings: what Pillow's writer takes, with subsampling 0.
    """
    width, height = size
    interval = -(-width // BLOCK) * jpeg_rows(width) // BLOCK
    plain = {key: settings[key] for key in ("quality", "subsampling")}
    for number, strip in enumerate(strips):
        image = Image.fromarray(strip[..., 0] if strip.shape[2] == 1 else strip)
        coded = io.BytesIO()
        image.save(coded, "JPEG", **(plain if number else settings))
        head, scan = _parted(coded.getvalue(), height, interval)
        stream.write(bytes((0xFF, _RESTART + (number - 1) % 8)) if number else head)
        stream.write(scan)
    stream.write(_END)


def _parted(data: bytes, height: int, interval: int) -> tuple[bytes, bytes]:
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
