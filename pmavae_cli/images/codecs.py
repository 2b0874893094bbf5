"""PNG and TIFF files with 16 bits a channel, which Pillow reads and writes with 8, and files strip by strip.

PNG files with 8 bits are written here too, in less memory. TIFF files with 8 bits are read and written here:
of a damaged one Pillow's library writes to stderr by itself, and Pillow's writer fails where EXIF has
directories in it, as that of every camera has.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

from pmavae.errors import ImageError
from pmavae.images.pixels import Pixels

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # what it warns of is no use to a user

_PNG_HEADER_END = 33  # signature and IHDR
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNKNOWN, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2  # what a fourth channel is
_DEFLATE, _DIFFERENCES = 8, 2
_LENGTHS, _OFFSETS = 279, 273  # of strips
_CLASSIC, _BIG = b"II*\0\0\0\0\0", b"II+\0\x08\0\0\0\0\0\0\0\0\0\0\0"
_STRIP_BYTES = 1 << 20  # of a TIFF file, so that a reader need not hold all of it
XMP, ICC = 700, 34675  # tags of TIFF


def bits_of(image: Image.Image) -> int:
    """The most bits that a channel of an open TIFF file has; 8 for files of other kinds."""
    return max(_tuple(image, _BITS, 8))


def is_read_here(image: Image.Image, stream: BinaryIO) -> bool:
    """Whether `read_channels` knows an open picture."""
    if image.format == "PNG":
        stream.seek(24)  # the depth, in IHDR
        return stream.read(1) == b"\x10"
    if image.format != "TIFF" or set(_tuple(image, _BITS, 1)) not in ({8}, {16}):
        return False
    if set(_tuple(image, _SAMPLE_FORMAT, 1)) != {1}:  # signed, or floating point
        return False
    return _tuple(image, _PHOTOMETRIC, -1)[0] in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)


def read_channels(image: Image.Image, stream: BinaryIO) -> tuple[Pixels, Pixels | None]:
    """The colours (H, W, 3) or greys (H, W, 1) of a picture that `is_read_here`, and its transparency (H, W).

    As they lie in the file: its orientation is the caller's. Raises ValueError for a damaged file.
    """
    stream.seek(0)
    data = stream.read()
    try:
        if image.format == "PNG":
            return _parted(imagecodecs.png_decode(data), _STRAIGHT)
        found = imagecodecs.tiff_decode(data, index=0)
    except (imagecodecs.PngError, imagecodecs.TiffError) as reason:
        raise ValueError(str(reason)) from None
    if _tuple(image, _PLANAR, 1)[0] == 2 and found.ndim == 3:  # a plane for each channel
        found = found.transpose(1, 2, 0)
    if _tuple(image, _PHOTOMETRIC, _RGB)[0] == _WHITE_IS_ZERO:
        found = np.iinfo(found.dtype).max - found
    return _parted(found, _tuple(image, _EXTRA, _STRAIGHT)[0])


def _tuple(image: Image.Image, tag: int, default: int) -> tuple[int, ...]:
    found = getattr(image, "tag_v2", {}).get(tag, default)
    if isinstance(found, tuple):
        return found or (default,)
    return (found,)


def _parted(found: Pixels, fourth: int) -> tuple[Pixels, Pixels | None]:
    if found.dtype not in (np.uint8, np.uint16) or found.ndim not in (2, 3):
        raise ValueError(f"its pixels are of kind {found.dtype} {found.shape}")
    whole = found[..., None] if found.ndim == 2 else found
    channels = 3 if whole.shape[2] >= 3 else 1
    colours: Pixels = np.ascontiguousarray(whole[..., :channels])
    if whole.shape[2] == channels or fourth == _UNKNOWN:
        return colours, None
    alpha: Pixels = np.ascontiguousarray(whole[..., channels])
    if fourth == _PREMULTIPLIED:
        most = np.iinfo(found.dtype).max
        straight = colours.astype(np.float32) * most / np.maximum(alpha, 1)[..., None]
        colours = straight.round().clip(0, most).astype(found.dtype)
    return colours, alpha


def png_bytes(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], profile: bytes, exif: bytes, xmp: bytes
) -> bytes:
    """A PNG file: (H, W, C) with 1 to 4 channels; profile, EXIF and XMP where they are not empty.

    Of a picture with 8 bits too, without the copies of the whole that Pillow makes.
    """
    squeezed = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    data = bytes(imagecodecs.png_encode(squeezed, level=6))
    chunks = png_metadata(profile, exif, xmp)
    if not chunks:
        return data
    return data[:_PNG_HEADER_END] + chunks + data[_PNG_HEADER_END:]


def png_metadata(profile: bytes, exif: bytes, xmp: bytes) -> bytes:
    """The chunks of a PNG file that hold what of the three is not empty."""
    chunks = b""
    if profile:
        chunks += png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if exif:
        chunks += png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        chunks += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    return chunks


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff_bytes(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], profile: bytes, exif: bytes, xmp: bytes
) -> bytes:
    """A TIFF file, deflated: (H, W, C) of 8 or 16 bits, with 1 to 4 channels; otherwise as `png_bytes`.

    Raises ImageError beyond the 4 GB that it can hold.
    """
    rows = tiff_rows(pixels.shape[1] * pixels.shape[2] * pixels.itemsize)
    strips = [tiff_strip(pixels[top : top + rows]) for top in range(0, len(pixels), rows)]
    lengths = [*map(len, strips)]
    if sum(lengths) >= 2**32 - 2**20:
        raise ImageError("a TIFF file cannot hold so large a picture: choose another format")
    return b"".join((tiff_head(pixels.shape, pixels.dtype, rows, lengths, profile, exif, xmp), *strips))


def tiff_rows(row_bytes: int) -> int:
    """The rows of a strip of a TIFF file."""
    return max(1, _STRIP_BYTES // row_bytes)


def tiff_head(
    shape: tuple[int, ...],
    kind: np.dtype[Any],
    rows: int,
    lengths: Sequence[int],
    profile: bytes,
    exif: bytes,
    xmp: bytes,
    big: bool = False,
) -> bytes:
    """What precedes the strips of a TIFF file: (H, W, C), uint8 or uint16, strips of so many rows and bytes.

    big: as BigTIFF, which holds more than 4 GB.
    """
    height, width, channels = shape
    directory = TiffImagePlugin.ImageFileDirectory_v2(_BIG if big else _CLASSIC)
    carried = Image.Exif()
    carried.load(exif)
    for tag in carried:
        directory[tag] = carried.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else carried[tag]
    directory[256], directory[257] = width, height
    directory[_BITS] = (8 * kind.itemsize,) * channels
    directory[259], directory[317] = _DEFLATE, _DIFFERENCES
    directory[_PHOTOMETRIC] = _BLACK_IS_ZERO if channels < 3 else _RGB
    directory[277], directory[278], directory[_PLANAR] = channels, rows, 1
    for tag in (_OFFSETS, _LENGTHS):
        directory.tagtype[tag] = TiffTags.LONG8 if big else TiffTags.LONG
    directory[_LENGTHS] = tuple(lengths)
    directory[_OFFSETS] = tuple(accumulate(lengths[:-1], initial=0))  # moved when it is written
    directory[_SAMPLE_FORMAT] = (1,) * channels
    if channels in (2, 4):
        directory[_EXTRA] = (_STRAIGHT,)
    if profile:
        directory.tagtype[ICC] = TiffTags.UNDEFINED
        directory[ICC] = profile
    if xmp:
        directory.tagtype[XMP] = TiffTags.BYTE
        directory[XMP] = xmp
    stream = io.BytesIO()
    directory.save(stream)
    return stream.getvalue()


def tiff_strip(rows: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Rows as differences along them, which compress well, deflated."""
    differences = np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1]))  # modulo 256 or 65536
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<"), copy=False).tobytes())


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
        head, scan = _head_and_scan(coded.getvalue(), height, interval)
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
