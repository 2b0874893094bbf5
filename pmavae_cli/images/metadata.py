"""What comes with a picture beside its colours, and goes with its latents to the output.

The form is that of a latent file's header: a map of strings, binary values in base64. A picture
is given this form as soon as it is read, so that a detour through a latent file changes nothing.

    mode   "L" for a greyscale picture
    depth  "16" for one with 16 bits a channel
    icc    the colour profile
    exif   metadata; the orientation is applied and gone
    xmp    more of it; its orientation is 1
    alpha  transparency, as a greyscale PNG of 8 or 16 bits
"""

import io
import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from pmavae.errors import ImageError
from pmavae.images.pixels import Pixels, eight_bits, sixteen_bits
from pmavae.images.reading import UNREADABLE

METADATA = frozenset(("exif", "xmp"))  # what --metadata strip leaves out
HEADER_BUDGET = 900_000  # characters; the header of a latent file ends at 1 MiB
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


class Extras(NamedTuple):
    """What a picture file holds beside its pixels; what is empty is not there."""

    profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""


def extras_of(image: Image.Image, with_exif: bool = True) -> tuple[int, Extras]:
    """The orientation tag, and what else an open file holds, but for what describes the file itself.

    EXIF data and XMP packet then say no other orientation. EXIF data that cannot be parsed are no reason to
    refuse the pixels, and none are looked for without `with_exif`.
    """
    found = image.info.get("xmp") or b""
    xmp: bytes = found.encode() if isinstance(found, str) else bytes(found)
    for pattern in _XMP_ORIENTATION:
        xmp = pattern.sub(rb"\g<1>1\g<2>", xmp)
    orientation, exif = _exif_of(image) if with_exif else (1, b"")
    return orientation, Extras(image.info.get("icc_profile") or b"", exif, xmp)


def _exif_of(image: Image.Image) -> tuple[int, bytes]:
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


def carry(kind: np.dtype[Any], grey: bool, extras: Extras, alpha: Pixels | None = None) -> dict[str, str]:
    """The map of a picture that was read with these bits and with this transparency, (H, W)."""
    found = {
        "depth": "16" if kind == np.uint16 else "",
        "mode": "L" if grey else "",
        "icc": pack(extras.profile),
        "alpha": "" if alpha is None else pack_alpha(alpha),
        "exif": pack(extras.exif),
        "xmp": pack(extras.xmp),
    }
    return {key: value for key, value in found.items() if value}


def pack(data: bytes) -> str:
    """Bytes as a string."""
    return b64encode(data).decode("ascii")


def unpack(carried: Mapping[str, str], key: str) -> bytes | None:
    """The bytes under a key, None where there are none; raises ImageError where they are damaged."""
    if key not in carried:
        return None
    try:
        return b64decode(carried[key], validate=True)
    except ValueError:
        raise ImageError(f"the {key} that the latents carry is damaged: encode the picture again") from None


def pack_alpha(alpha: Pixels) -> str:
    """Transparency (H, W), uint8 or uint16, as a string."""
    stream = io.BytesIO()
    Image.fromarray(alpha).save(stream, "PNG")
    return pack(stream.getvalue())


def unpack_alpha(carried: Mapping[str, str]) -> Pixels | None:
    """What is under "alpha", (H, W), None where there is none; raises ImageError where it is damaged."""
    data = unpack(carried, "alpha")
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as alpha:
            return np.asarray(alpha if alpha.mode == "I;16" else alpha.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ImageError("the alpha that the latents carry is damaged: encode the picture again") from None


def fit_alpha(alpha: Pixels, width: int, height: int, dtype: np.dtype[Any]) -> Pixels:
    """Transparency (H, W) for a picture of another size, by Lanczos, or of other bits."""
    if alpha.shape != (height, width):
        most = np.iinfo(alpha.dtype).max
        image = Image.fromarray(alpha.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS)
        alpha = np.asarray(image).round().clip(0, most).astype(alpha.dtype)
    return eight_bits(alpha) if dtype == np.uint8 else sixteen_bits(alpha)


def fit_header(carried: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What of it fits the header of a latent file, and a note for all that had to give way."""
    kept = dict(carried)
    notes: list[str] = []
    if _size(kept) <= HEADER_BUDGET:
        return kept, notes
    blobs = [("exif", "EXIF metadata"), ("xmp", "XMP metadata"), ("icc", "colour profile")]
    for key, what in sorted(blobs, key=lambda blob: -len(kept.get(blob[0], ""))):
        # What fills the header alone goes first: shrinking the transparency could not save it.
        if _size(kept) - len(kept.get("alpha", "")) > HEADER_BUDGET and key in kept:
            del kept[key]
            notes.append(f"its {what} is too large for a latent file and is left out")
    alpha = unpack_alpha(kept)
    if alpha is not None and _size(kept) > HEADER_BUDGET:
        alpha = eight_bits(alpha)
        kept["alpha"] = pack_alpha(alpha)
    while alpha is not None and _size(kept) > HEADER_BUDGET and min(alpha.shape) > 1:
        height, width = alpha.shape
        image = Image.fromarray(alpha).resize((width // 2, height // 2), Image.Resampling.BOX)
        alpha = np.asarray(image)
        kept["alpha"] = pack_alpha(alpha)
    if kept.get("alpha") != carried.get("alpha"):
        notes.append("its transparency is too large for a latent file and is kept with less precision")
    return kept, notes


def _size(carried: Mapping[str, str]) -> int:
    return sum(map(len, carried.values()))
