"""Reading a picture file that nobody vouches for."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError

from pmavae.config import MIN_SIZE
from pmavae.errors import ImageError
from pmavae.images.pixels import Pixels, RowSource, eight_bits, luma, strips
from pmavae.images.reading import COLOUR_MODES, GREY_MODES, UNREADABLE, upright, without_low_bits
from pmavae_cli.images.codecs import bits_of, is_read_here, read_channels
from pmavae_cli.images.formats import READABLE, READABLE_NAMES, starts_like_a_picture
from pmavae_cli.images.icc import is_sound, to_srgb
from pmavae_cli.images.metadata import carry, extras_of, unpack_alpha


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


def is_large(width: int, height: int) -> bool:
    """Whether a picture of this size is read and written by strips."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and width * height > limit


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
            raise damaged(name) from None
        raise ImageError(
            f"{name} is neither a picture ({READABLE_NAMES}) nor a latent file: "
            "convert it to one of these first"
        ) from None
    except MemoryError:
        raise ImageError(f"{name} needs more memory than there is: make it smaller first") from None
    except UNREADABLE as reason:
        raise damaged(name, reason) from None


def damaged(name: str, reason: object = None) -> ImageError:
    """That a file is, and why where that is known."""
    why = "" if reason is None else f" ({reason})"
    return ImageError(f"{name} is damaged or truncated{why}: copy it again from where it came")


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
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise ImageError(f"{name} has pixels of kind {image.mode}: convert it to 8-bit RGB first")
    notes = []
    frames = getattr(image, "n_frames", 1)
    # A phone's JPEG may hold previews of the same picture as further frames.
    if frames > 1 and image.format != "MPO":
        notes.append(f"the first of its {frames} frames is used")
    plain = is_read_here(image, stream)
    if not plain or image.format != "TIFF":
        image.load()  # some metadata of a PNG file come after its pixels
    tables = getattr(image, "quantization", None)
    orientation, extras = extras_of(image)
    if plain:
        colours, alpha = read_channels(image, stream)
    else:
        if image.mode.startswith("I") or bits_of(image) > 8:
            notes.append("it has more than 8 bits a channel, of which 8 are used")
        if image.mode == "CMYK":
            image, extras = _from_cmyk(image, extras.profile), extras._replace(profile=b"")
        colours, alpha = _eight(image)
    colours = upright(colours, orientation)
    alpha = None if alpha is None else upright(alpha, orientation)
    grey = colours.shape[2] == 1
    extras = extras._replace(profile=own_profile(extras.profile, grey, notes))
    carried = carry(colours.dtype, grey, extras, alpha)
    if extras.profile:
        colours = to_srgb(colours, extras.profile)
    if colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if alpha is not None:
        colours = fill_hidden(colours, alpha)
    return Picture(colours, carried, tuple(notes), tables or None)


def own_profile(profile: bytes, grey: bool, notes: list[str]) -> bytes:
    """The profile that a picture's colours are in; empty for sRGB, and with a note for a damaged one."""
    # A profile of greys describes greys only, one of colours only colours.
    if profile[16:20] != (b"GRAY" if grey else b"RGB "):
        return b""
    if not is_sound(profile, 1 if grey else 3):
        notes.append("its colour profile is damaged and is left out")
        return b""
    return profile


def _eight(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """The channels of a loaded picture, (H, W, 3) or (H, W, 1), and its transparency."""
    if image.mode.startswith("I"):
        image = without_low_bits(image)
    grey, transparent = image.mode in GREY_MODES, image.has_transparency_data
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


def fill_hidden(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours (H, W, 3) with those under full transparency (H, W) replaced by their surroundings'.

    Nobody saw what lay there, often black, and a network would draw it into the edges of what is seen and
    into the picture's style. Where nothing is opaque the colours stay.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    filled, found = colours.copy(), _surroundings(colours, alpha)
    for row in np.flatnonzero(hidden.any(1)):
        columns = np.flatnonzero(hidden[row])
        filled[row, columns] = found[row // 2, columns // 2].round().astype(colours.dtype)
    return filled


def _surroundings(colours: Pixels, alpha: Pixels) -> NDArray[np.float32]:
    """The mean colour of what is seen nearby, at the finest scale at which anything is, for 2 × 2 px each."""
    sums = [_halves(colours, alpha)]  # means over blocks of 2, 4, 8, … px
    while (sums[-1][1] == 0).any():
        sums.append(tuple(map(_halved, sums[-1])))  # type: ignore[arg-type]
    found = sums[-1][0] / sums[-1][1]
    for summed, seen in reversed(sums[:-1]):
        height, width = seen.shape[:2]
        found = found.repeat(2, 0).repeat(2, 1)[:height, :width]
        found = np.where(seen > 0, summed / np.maximum(seen, 1e-9), found)
    return found


def _halves(colours: Pixels, alpha: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted colours and weights, as means over 2 × 2 px; of strips, for the whole is large in float32."""
    height, width = (-(-side // 2) for side in alpha.shape)
    summed, weights = np.empty((height, width, 3), np.float32), np.empty((height, width, 1), np.float32)
    for rows in strips(alpha.shape[0]):  # of an even number of rows each, but for the last
        weight = alpha[rows].astype(np.float32)[..., None] / np.float32(np.iinfo(alpha.dtype).max)
        half = slice(rows.start // 2, -(-rows.stop // 2))
        summed[half], weights[half] = _halved(colours[rows] * weight), _halved(weight)
    return summed, weights


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 × 2, of what there is at the right and the bottom."""
    height, width = values.shape[:2]
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    return even.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).mean((1, 3))
