"""Colour profiles: to the sRGB that the model knows, and back to what a picture came in."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageCms

STEPS = (0, 32, 64, 128, 192, 255)  # of the colours that tell whether a profile is sRGB
SAME = 2  # levels of 255 that a profile may differ from sRGB and still be it: encoders round
_DAMAGED = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def is_sound(profile: bytes, mode: str) -> bool:
    """Whether a profile can be read and is for pictures of this mode, "RGB" or "L"."""
    try:
        return _transform(profile, mode, True) is not None
    except _DAMAGED:
        return False


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An "RGB" or "L" picture in its profile as "RGB" in sRGB; the profile `is_sound`.

    What lies beyond sRGB becomes the nearest colour in it.
    """
    if image.mode == "RGB" and _is_srgb(profile):
        return image
    converted = ImageCms.applyTransform(image, _transform(profile, image.mode, True))
    assert converted is not None
    return converted


def from_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The inverse of `to_srgb`: "RGB" in sRGB to a picture of the profile's mode."""
    mode = "L" if profile[16:20] == b"GRAY" else "RGB"
    if mode == "RGB" and _is_srgb(profile):
        return image
    converted = ImageCms.applyTransform(image, _transform(profile, mode, False))
    assert converted is not None
    return converted


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str, to: bool) -> ImageCms.ImageCmsTransform:
    """Between a profile and sRGB, black to black; raises one of _DAMAGED."""
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    if to:
        return ImageCms.buildTransform(own, srgb, mode, "RGB", intent, flags)
    return ImageCms.buildTransform(srgb, own, "RGB", mode, intent, flags)


@lru_cache(maxsize=8)
def _is_srgb(profile: bytes) -> bool:
    """Whether it means what sRGB means, so that pixels need not be rounded twice."""
    colours = np.array(list(product(STEPS, repeat=3)), np.uint8)[None]
    converted = ImageCms.applyTransform(Image.fromarray(colours), _transform(profile, "RGB", True))
    assert converted is not None
    return int(np.abs(np.asarray(converted).astype(int) - colours).max()) <= SAME
