"""TIFF files that are written from strips of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from pmavae.images.pixels import Pixels
from pmavae_cli.images.codecs import tiff_head, tiff_strip

MOST = 2**32 - 2**24  # bytes of pixels beyond which the places in a file take 64 bits: BigTIFF


def write_tiff(
    stream: BinaryIO,
    strips: Iterator[Pixels],
    size: tuple[int, int],
    kind: np.dtype[np.generic],
    channels: int,
    profile: bytes,
    exif: bytes,
    xmp: bytes,
    rows: int,
) -> None:
    """Strips of so many rows, (rows, W, 1 or 3) of uint8 or uint16, which is `kind`, as a deflated file.

    The last strip may have fewer rows. size: width and height. The stream is seekable.
    """
    width, height = size
    big = width * height * channels * kind.itemsize > MOST

    def head(lengths: list[int]) -> bytes:
        return tiff_head((height, width, channels), kind, rows, lengths, profile, exif, xmp, big)

    # How long the head is does not depend on the lengths in it, which are known only at the end.
    start = len(head([0] * -(-height // rows)))
    stream.seek(start)
    lengths = [stream.write(tiff_strip(strip)) for strip in strips]
    stream.seek(0)
    stream.write(head(lengths))
    stream.seek(start + sum(lengths))
