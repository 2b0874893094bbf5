"""What a picture file is, as `pmavae info` tells it."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any, BinaryIO

from PIL import Image, ImageCms
from PIL.ExifTags import Base

from pmavae.images.picture_files import UNREADABLE
from pmavae_cli.images.formats import READABLE
from pmavae_cli.images.metadata import unpack
from pmavae_cli.images.reading import read_picture

_XMP_TAG = 700  # of TIFF
_BITS = {"1": 1, "I": 16, "F": 32}  # a channel; I;16 in its variants is asked for by prefix


def describe_picture(stream: BinaryIO, name: str) -> dict[str, Any]:
    """Read a whole picture file and tell of it; raises ImageError as `read_picture` does."""
    picture = read_picture(stream, name)
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(stream, formats=READABLE) as image:
            image.load()
            orientation = _orientation(image)
            bits = _bits(image, stream)
            assert picture.pixels is not None  # only `open_large` leaves them in the file
            height, width = picture.pixels.shape[:2]
            return {
                "kind": "picture",
                "format": image.format,
                "width": width,
                "height": height,
                "mode": image.mode,
                "bits_per_channel": bits,
                "transparency": "alpha" in picture.carried,
                "profile": _profile(image),
                "orientation": orientation,
                "exif": orientation != 1 or unpack(picture.carried, "exif") is not None,
                "xmp": _has_xmp(image),
                "frames": getattr(image, "n_frames", 1),
                "notes": list(picture.notes),
            }


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(Base.Orientation, 1)
    except (*UNREADABLE, KeyError, TypeError, struct.error):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _bits(image: Image.Image, stream: BinaryIO) -> int:
    """Of the file, where Pillow's mode has fewer."""
    if image.format == "PNG":
        stream.seek(24)  # in the first chunk
        return stream.read(1)[0]
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(258, 1)
        return int(max(found) if isinstance(found, tuple) else found)
    return 16 if image.mode.startswith("I;16") else _BITS.get(image.mode, 8)


def _profile(image: Image.Image) -> str | None:
    """The description of the colour profile, which may be damaged."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return "damaged"


def _has_xmp(image: Image.Image) -> bool:
    if any(image.info.get(key) for key in ("xmp", "XML:com.adobe.xmp")):
        return True
    return _XMP_TAG in getattr(image, "tag_v2", {})
