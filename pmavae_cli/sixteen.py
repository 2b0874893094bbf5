"""PNG and TIFF files with 16 bits a channel, which Pillow reads and writes with 8.

PNG files with 8 bits are written here too, in less memory. TIFF files with 8 bits are read and written here:
of a damaged one Pillow's library writes to stderr by itself, and Pillow's writer fails where EXIF has
directories in it, as that of every camera has.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

from pmavae.errors import ImageError
from pmavae.pixels import Pixels

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # what it warns of is no use to a user

_PNG_HEADER_END = 33  # signature and IHDR
_BITS, _PHOTOMETRIC, _PLANAR, _EXTRA, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNKNOWN, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2  # what a fourth channel is
_DEFLATE, _DIFFERENCES = 8, 2
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
    chunks = b""
    if profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    if not chunks:
        return data
    return data[:_PNG_HEADER_END] + chunks + data[_PNG_HEADER_END:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff_bytes(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], profile: bytes, exif: bytes, xmp: bytes
) -> bytes:
    """A TIFF file, deflated: (H, W, C) of 8 or 16 bits, with 1 to 4 channels; otherwise as `png_bytes`.

    Raises ImageError beyond the 4 GB that it can hold.
    """
    height, width, channels = pixels.shape
    rows = max(1, _STRIP_BYTES // (pixels.itemsize * width * channels))
    strips = [_strip(pixels[top : top + rows]) for top in range(0, height, rows)]
    if sum(map(len, strips)) >= 2**32 - 2**20:
        raise ImageError("a TIFF file cannot hold so large a picture: choose another format")
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    carried = Image.Exif()
    carried.load(exif)
    for tag in carried:
        directory[tag] = carried.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else carried[tag]
    directory[256], directory[257] = width, height
    directory[_BITS] = (8 * pixels.itemsize,) * channels
    directory[259], directory[317] = _DEFLATE, _DIFFERENCES
    directory[_PHOTOMETRIC] = _BLACK_IS_ZERO if channels < 3 else _RGB
    directory[277], directory[278], directory[_PLANAR] = channels, rows, 1
    directory[279] = tuple(map(len, strips))
    directory[273] = tuple(sum(map(len, strips[:i])) for i in range(len(strips)))  # moved when it is written
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
    return b"".join((stream.getvalue(), *strips))


def _strip(rows: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Rows as differences along them, which compress well, deflated."""
    differences = np.diff(rows, axis=1, prepend=np.zeros_like(rows[:, :1]))  # modulo 256 or 65536
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<"), copy=False).tobytes())
