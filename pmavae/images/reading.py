"""Picture files that nobody vouches for, in folders: their size from the header, their pixels as RGB."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from pmavae.errors import ImageError

# Every other reader of Pillow stays shut: some run other programs, many are rarely fuzzed.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"))
MIN_SIDE = 64  # px; a smaller picture has hardly a crop to give
MAX_FILE_BYTES = 2**30  # more than the largest picture that is accepted takes uncompressed
MAX_PIXELS = 2**28 // 3  # beyond it Pillow warns of a decompression bomb

# What reading a picture out of a tar raises where that is damaged.
DAMAGED_TAR = (tarfile.TarError, EOFError, zlib.error, OSError)

# Pillow's names of the kinds of pixels that are read.
GREY_MODES = frozenset(("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I"))
COLOUR_MODES = frozenset(("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "HSV"))

# What Pillow raises for a file that is damaged, as its own fuzz test has it.
UNREADABLE = (
    OSError,
    SyntaxError,
    MemoryError,
    ValueError,
    NotImplementedError,
    OverflowError,
    Image.DecompressionBombError,
)

_Any = TypeVar("_Any", bound=np.generic)


def upright(pixels: NDArray[_Any], orientation: int) -> NDArray[_Any]:
    """(H, W) or (H, W, C) turned by its EXIF orientation; one that is not from 2 to 8 changes nothing."""
    if orientation not in range(2, 9):
        return pixels
    found: NDArray[_Any] = np.swapaxes(pixels, 0, 1) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        found = found[::-1]
    if orientation in (2, 3, 6, 7):
        found = found[:, ::-1]
    return np.ascontiguousarray(found)


def without_low_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits, which Pillow would not round but cut off, as ones of 8."""
    values = np.asarray(image).astype(np.float32).clip(0, 65535)
    return Image.fromarray((values / 257).round().astype(np.uint8))


def picture_size(stream: IO[bytes], name: str) -> tuple[int, int]:
    """Width and height, as stored, out of the header; nothing is decoded.

    Raises ImageError, one sentence that starts with `name`, for a file that is no picture, is too
    small for training or has too many pixels.
    """
    with refusing(name), _open(stream, name) as image:
        return image.size


def decode_rgb(stream: IO[bytes], name: str) -> NDArray[np.uint8]:
    """The first frame as (H, W, 3) uint8, turned upright; transparency lies on white.

    Raises ImageError as `picture_size` does, and for pixels that are damaged or of an unusual kind.
    """
    with refusing(name), _open(stream, name) as file:
        if file.mode not in GREY_MODES | COLOUR_MODES:
            raise ImageError(f"{name} has pixels of kind {file.mode}: convert it to 8-bit RGB")
        file.load()
        image: Image.Image = file
        if image.mode.startswith("I"):
            image = without_low_bits(image)
        if image.has_transparency_data:
            colours = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
        return upright(np.asarray(image.convert("RGB")), _orientation(file))


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turn what a damaged picture or tar makes Python raise into ImageError, a sentence on `name`."""
    try:
        yield
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture (JPEG, PNG, WebP, TIFF or BMP), or is damaged") from None
    except Image.DecompressionBombError:
        most = MAX_PIXELS // 1_000_000
        raise ImageError(f"{name} has more than {most} million pixels: make it smaller") from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is: make it smaller") from None
    except (*UNREADABLE, *DAMAGED_TAR) as error:
        raise ImageError(
            f"{name} cannot be read or is damaged ({short_reason(error)}): copy it again"
        ) from None


def short_reason(error: Exception) -> str:
    """What an exception says, in one line that fits into brackets."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return reason.splitlines()[0].rstrip(":. ")


def _open(stream: IO[bytes], name: str) -> Image.Image:
    image = Image.open(stream, formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name} is too small ({width}×{height} px): both sides must have at least {MIN_SIDE} px"
        )
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(Base.Orientation, 1))
    except Exception:  # metadata is parsed by many readers; whatever they raise, the pixels are sound
        return 1
