"""Reading a picture file that nobody vouches for."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base

from pmavae.config import MIN_SIZE
from pmavae.errors import ImageError
from pmavae.images.pixels import STEP, Pixels, RowSource, eight_bits, luma, strips
from pmavae.images.reading import UNREADABLE, upright
from pmavae_cli.images.codecs import bits_of, is_read_here, read_channels
from pmavae_cli.images.formats import READABLE, READABLE_NAMES, starts_like_a_picture
from pmavae_cli.images.icc import is_sound, to_srgb
from pmavae_cli.images.metadata import pack, pack_alpha, unpack_alpha
from pmavae_cli.images.transparency import fill_hidden

_GREY = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I"})
_COLOUR = frozenset({"RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "HSV"})
_NO_EXIF = Image.Exif().tobytes()
# The first directory of EXIF is that of TIFF, where these tags tell of the picture and the others
# of the layout of the file it came in, which does not describe the output.
_LAYOUT = range(254, 533)
_DESCRIPTION = frozenset(
    (
        Base.DocumentName,
        Base.ImageDescription,
        Base.Make,
        Base.Model,
        Base.XResolution,
        Base.YResolution,
        Base.ResolutionUnit,
        Base.Software,
        Base.DateTime,
        Base.Artist,
        Base.HostComputer,
    )
)
_XMP_ORIENTATION = (
    re.compile(rb"(tiff:Orientation\s*=\s*[\"'])[1-8]([\"'])"),
    re.compile(rb"(<tiff:Orientation>\s*)[1-8](\s*<)"),
)
_OTHER_METADATA = frozenset((700, 33723, 34377, 34675))  # XMP, IPTC, Photoshop and ICC in a TIFF file


class TooLargeError(ImageError):
    """A picture with more pixels than are read as a whole."""

    pixels: int

    @classmethod
    def of(cls, name: str, reason: BaseException) -> TooLargeError:
        """From what Pillow says of a picture beyond its limit."""
        limit, pixels = millions(Image.MAX_IMAGE_PIXELS or 0), pixels_named(reason)
        error = cls(
            f"{name} has {millions(pixels)} million pixels: make it smaller first, to {limit} million "
            "at most; pmavae encode and pmavae decode take more"
        )
        error.pixels = pixels
        return error


def pixels_named(reason: BaseException) -> int:
    """The number of pixels in what Pillow says of a picture beyond its limit, which tells it only so."""
    found = re.search(r"\(([0-9]+) pixels\)", str(reason))
    return int(found[1]) if found else 0


def millions(pixels: int) -> int:
    """A number for messages."""
    return pixels // 1_000_000


@dataclass(frozen=True)
class Picture:
    """The first frame of a picture file, upright."""

    pixels: Pixels | None  # (H, W, 3), uint16 where the file has 16 bits a channel; None where it is large
    carried: dict[str, str]  # see metadata.py
    notes: tuple[str, ...]  # what of the file is not used
    tables: Mapping[int, Sequence[int]] | None = None  # quantisation tables of a JPEG file
    rows: RowSource | None = None  # of a large one, whose pixels are still in the file


def read_picture(stream: BinaryIO, name: str) -> Picture:
    """Read an open, seekable file; raises ImageError, in one sentence that starts with the name."""
    first_bytes = stream.read(16)
    if not first_bytes:
        raise ImageError(f"{name} is empty: copy it again from where it came")
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream, formats=READABLE) as image:
                return _convert(image, stream, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as reason:
        raise TooLargeError.of(name, reason) from None
    except UnidentifiedImageError:
        if starts_like_a_picture(first_bytes):
            raise ImageError(f"{name} is damaged or truncated: copy it again from where it came") from None
        raise ImageError(
            f"{name} is neither a picture ({READABLE_NAMES}) nor a latent file: "
            "convert it to one of these first"
        ) from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is: make it smaller first") from None
    except UNREADABLE as reason:
        raise ImageError(
            f"{name} is damaged or truncated ({reason}): copy it again from where it came"
        ) from None


def read_mask(stream: BinaryIO, name: str) -> NDArray[np.uint8]:
    """The greys of a picture file, (H, W), black where it is transparent; raises as `read_picture` does."""
    picture = read_picture(stream, name)
    assert picture.pixels is not None
    grey = luma(eight_bits(picture.pixels))
    if (alpha := unpack_alpha(picture.carried)) is not None:
        grey = np.asarray(ImageChops.multiply(Image.fromarray(grey), Image.fromarray(eight_bits(alpha))))
    return grey


def _convert(image: Image.Image, stream: BinaryIO, name: str) -> Picture:
    if min(image.size) < MIN_SIZE:
        raise ImageError(
            f"{name} is {image.width}×{image.height} px, and both sides must be at least {MIN_SIZE} px: "
            "make it larger first"
        )
    if image.mode not in _GREY | _COLOUR:
        raise ImageError(f"{name} has pixels of kind {image.mode}: convert it to 8-bit RGB first")
    notes = []
    frames = getattr(image, "n_frames", 1)
    # A phone's JPEG may hold previews of the same picture as further frames.
    if frames > 1 and image.format != "MPO":
        notes.append(f"the first of its {frames} frames is used")
    plain = is_read_here(image, stream)
    if not plain or image.format != "TIFF":
        image.load()  # some metadata of a PNG file come after its pixels
    carried: dict[str, str] = {}
    tables = getattr(image, "quantization", None)
    profile: bytes = image.info.get("icc_profile") or b""
    orientation, exif = metadata_of(image)
    xmp = xmp_of(image)
    if plain:
        colours, alpha = read_channels(image, stream)
    else:
        if image.mode.startswith("I") or bits_of(image) > 8:
            notes.append("it has more than 8 bits a channel, of which 8 are used")
        if image.mode == "CMYK":
            image, profile = _from_cmyk(image, profile), b""
        colours, alpha = _eight(image)
    if colours.dtype == np.uint16:
        carried["depth"] = "16"
    colours = upright(colours, orientation)
    alpha = None if alpha is None else upright(alpha, orientation)
    grey = colours.shape[2] == 1
    if grey:
        carried["mode"] = "L"
    # A profile of greys describes greys only, one of colours only colours.
    if profile[16:20] == (b"GRAY" if grey else b"RGB "):
        if is_sound(profile, colours.shape[2]):
            carried["icc"] = pack(profile)
            colours = to_srgb(colours, profile)
        else:
            notes.append("its colour profile is damaged and is left out")
    if colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if alpha is not None:
        carried["alpha"] = pack_alpha(alpha)
        colours = fill_hidden(colours, alpha)
    if exif:
        carried["exif"] = pack(exif)
    if xmp:
        carried["xmp"] = pack(xmp)
    return Picture(colours, carried, tuple(notes), tables or None)


def _eight(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """The channels of a loaded picture, (H, W, 3) or (H, W, 1), and its transparency."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    grey, transparent = image.mode in _GREY, image.has_transparency_data
    colours = np.empty((image.height, image.width, 1 if grey else 3), np.uint8)
    alpha = np.empty((image.height, image.width), np.uint8) if transparent else None
    # Pillow would make several copies of the whole.
    for rows in strips(image.height):
        part = image.crop((0, rows.start, image.width, rows.stop))
        if alpha is not None:
            part = part.convert("RGBA")
            alpha[rows] = np.asarray(part.getchannel("A"))
        plain = np.asarray(part.convert("L" if grey else "RGB"))
        colours[rows] = plain[..., None] if grey else plain
    return colours, alpha


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float32).clip(0, 65535)
    return Image.fromarray((values / STEP).round().astype(np.uint8))


def _from_cmyk(image: Image.Image, profile: bytes) -> Image.Image:
    """Ink to light: by the picture's own profile, to sRGB, where it has a sound one."""
    if profile[16:20] == b"CMYK":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


def xmp_of(image: Image.Image) -> bytes:
    """The XMP packet, which says as well that the picture is upright."""
    found = image.info.get("xmp") or b""
    packet: bytes = found.encode() if isinstance(found, str) else bytes(found)
    for pattern in _XMP_ORIENTATION:
        packet = pattern.sub(rb"\g<1>1\g<2>", packet)
    return packet


def metadata_of(image: Image.Image) -> tuple[int, bytes]:
    """The orientation tag, and the EXIF data without it and without what describes the file.

    Metadata that cannot be parsed is no reason to refuse the pixels.
    """
    try:
        exif = image.getexif()
        orientation = exif.get(Base.Orientation, 1)
        for tag in list(exif):
            if (tag in _LAYOUT and tag not in _DESCRIPTION) or tag in _OTHER_METADATA:
                del exif[tag]
        # Directories within it, such as GPS, count as well, and are not among its own tags.
        data = exif.tobytes()
        return orientation, data if len(data) > len(_NO_EXIF) else b""
    except (*UNREADABLE, KeyError, TypeError, struct.error):
        return 1, b""
