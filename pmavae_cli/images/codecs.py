"""PNG and TIFF files with 16 bits a channel, which Pillow reads and writes with 8.

PNG files with 8 bits are written here too, in less memory. TIFF files with 8 bits are read and written here:
of a damaged one Pillow's library writes to stderr by itself, and Pillow's writer fails where EXIF has
directories in it, as that of every camera has.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags

from pmavae.images.pixels import Pixels
from pmavae_cli.images.metadata import Extras

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # what it warns of is no use to a user

_PNG_HEADER_END = 33  # signature and IHDR
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNKNOWN, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2  # what a fourth channel is
_DEFLATE, _DIFFERENCES = 8, 2
_LENGTHS, _OFFSETS = 279, 273  # of strips
_CLASSIC, _BIG = b"II*\0\0\0\0\0", b"II+\0\x08\0\0\0\0\0\0\0\0\0\0\0"
_STRIP_BYTES = 1 << 20  # of a TIFF file, so that a reader need not hold all of it
MOST = 2**32 - 2**24  # bytes of pixels beyond which the places in a TIFF file take 64 bits: BigTIFF
_XMP, _ICC = 700, 34675  # tags of TIFF


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


def png_bytes(pixels: Pixels, extras: Extras) -> bytes:
    """A PNG file: (H, W, C), uint8 or uint16, with 1 to 4 channels.

    Of a picture with 8 bits too, without the copies of the whole that Pillow makes.
    """
    squeezed = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    data = bytes(imagecodecs.png_encode(squeezed, level=6))
    chunks = png_metadata(extras)
    if not chunks:
        return data
    return data[:_PNG_HEADER_END] + chunks + data[_PNG_HEADER_END:]


def png_metadata(extras: Extras) -> bytes:
    """The chunks of a PNG file that hold them."""
    chunks = b""
    if extras.profile:
        chunks += png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(extras.profile))
    if extras.exif:
        chunks += png_chunk(b"eXIf", extras.exif.removeprefix(b"Exif\0\0"))
    if extras.xmp:
        chunks += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + extras.xmp)
    return chunks


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff_bytes(pixels: Pixels, extras: Extras) -> bytes:
    """A TIFF file, deflated: (H, W, C), uint8 or uint16, with 1 to 4 channels."""
    stream = io.BytesIO()
    write_tiff(stream, iter((pixels,)), pixels.shape, pixels.dtype, extras)
    return stream.getvalue()


def write_tiff(
    stream: BinaryIO, strips: Iterator[Pixels], shape: tuple[int, ...], kind: np.dtype[Any], extras: Extras
) -> None:
    """Strips (h, W, C) of a picture of this shape, (H, W, C), and kind, as `tiff_bytes`.

    The stream is seekable.
    """
    height, width, channels = shape
    rows = max(1, _STRIP_BYTES // (width * channels * kind.itemsize))
    # How long the head is does not depend on the lengths in it, which are known only at the end.
    start = len(_tiff_head(shape, kind, rows, [0] * -(-height // rows), extras))
    stream.seek(start)
    lengths = [stream.write(_tiff_strip(strip)) for strip in of_height(strips, rows)]
    stream.seek(0)
    stream.write(_tiff_head(shape, kind, rows, lengths, extras))
    stream.seek(start + sum(lengths))


def of_height(strips: Iterator[Pixels], height: int) -> Iterator[Pixels]:
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


def _tiff_head(
    shape: tuple[int, ...], kind: np.dtype[Any], rows: int, lengths: Sequence[int], extras: Extras
) -> bytes:
    """What precedes strips of so many rows and bytes."""
    height, width, channels = shape
    big = height * width * channels * kind.itemsize > MOST
    directory = TiffImagePlugin.ImageFileDirectory_v2(_BIG if big else _CLASSIC)
    carried = Image.Exif()
    carried.load(extras.exif)
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
    for tag, kind_of_tag, data in (
        (_ICC, TiffTags.UNDEFINED, extras.profile),
        (_XMP, TiffTags.BYTE, extras.xmp),
    ):
        if data:
            directory.tagtype[tag], directory[tag] = kind_of_tag, data
    stream = io.BytesIO()
    directory.save(stream)
    return stream.getvalue()


def _tiff_strip(rows: Pixels) -> bytes:
    """Rows as differences along them, which compress well, deflated."""
    differences = np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1]))  # modulo 256 or 65536
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<"), copy=False).tobytes())
