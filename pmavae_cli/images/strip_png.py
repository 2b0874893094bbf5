"""PNG files that are written from strips of rows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pmavae.images.pixels import Pixels
from pmavae_cli.images.codecs import png_chunk, png_metadata

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}
_LEVEL = 6  # of zlib
_LEAST = 1 << 16  # bytes of a chunk of pixels
_SUB, _UP, _PAETH = 1, 2, 4  # how a row may be told from its neighbours


def write_png(
    stream: BinaryIO,
    strips: Iterator[Pixels],
    size: tuple[int, int],
    kind: np.dtype[np.generic],
    channels: int,
    profile: bytes,
    exif: bytes,
    xmp: bytes,
) -> None:
    """Strips (h, W, 1 or 3) of uint8 or uint16, which is `kind`, as a file; size: width and height."""
    header = struct.pack(">IIBBBBB", *size, 8 * kind.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    stream.write(_SIGNATURE + png_chunk(b"IHDR", header) + png_metadata(profile, exif, xmp))
    packer, waiting = zlib.compressobj(_LEVEL), bytearray()
    above = np.zeros(size[0] * channels * kind.itemsize, np.uint8)
    for strip in strips:
        rows = np.ascontiguousarray(strip, kind.newbyteorder(">")).view(np.uint8).reshape(len(strip), -1)
        waiting += packer.compress(_filtered(rows, above, channels * kind.itemsize))
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
