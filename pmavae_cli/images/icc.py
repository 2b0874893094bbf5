"""Colour profiles: to the sRGB that the model knows, and back to what a picture came in.

By Little CMS through imagecodecs, which unlike Pillow converts 16 bits a channel too.
"""

from functools import lru_cache
from itertools import product

import imagecodecs
import numpy as np
from PIL import ImageCms

from pmavae.images.pixels import Pixels

STEPS = (0, 32, 64, 128, 192, 255)  # of the colours that tell whether a profile is sRGB
SAME = 2  # levels of 255 that a profile may differ from sRGB and still be it: encoders round
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_CMS = imagecodecs.CMS


def is_sound(profile: bytes, channels: int) -> bool:
    """Whether a profile can be read and is for pictures of so many channels, 3 or 1."""
    try:
        to_srgb(np.zeros((1, 1, channels), np.uint8), profile)
    except (imagecodecs.CmsError, ValueError, TypeError):
        return False
    return True


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """(H, W, 3) or (H, W, 1) in its profile as (H, W, 3) in sRGB; the profile `is_sound`.

    What lies beyond sRGB becomes the nearest colour in it.
    """
    if pixels.shape[2] == 1:
        return _convert(pixels[..., 0], profile, SRGB, "gray", "rgb")
    return pixels if _is_srgb(profile) else _convert(pixels, profile, SRGB, "rgb", "rgb")


def from_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """The inverse of `to_srgb`: (H, W, 3) in sRGB to the profile's (H, W, 3) or (H, W, 1)."""
    if is_grey(profile):
        return _convert(pixels, SRGB, profile, "rgb", "gray").reshape(*pixels.shape[:2], 1)
    return pixels if _is_srgb(profile) else _convert(pixels, SRGB, profile, "rgb", "rgb")


def is_grey(profile: bytes) -> bool:
    """Whether it is a profile of greys."""
    return profile[16:20] == b"GRAY"


def _convert(pixels: Pixels, own: bytes, other: bytes, colours: str, others: str) -> Pixels:
    """Black to black. Raises imagecodecs.CmsError for profiles that are damaged or of other colours."""
    # The tables that it makes of a profile to be quicker are coarser than 16 bits.
    exact = _CMS.FLAGS.NOOPTIMIZE if pixels.dtype == np.uint16 else 0
    converted: Pixels = imagecodecs.cms_transform(
        np.ascontiguousarray(pixels),
        own,
        other,
        colorspace=colours,
        outcolorspace=others,
        intent=_CMS.INTENT.RELATIVE_COLORIMETRIC,
        flags=_CMS.FLAGS.BLACKPOINTCOMPENSATION | exact,
    )
    return converted


@lru_cache(maxsize=8)
def _is_srgb(profile: bytes) -> bool:
    """Whether it means what sRGB means, so that pixels need not be rounded twice."""
    colours = np.array(list(product(STEPS, repeat=3)), np.uint8)[None]
    return int(np.abs(_convert(colours, profile, SRGB, "rgb", "rgb").astype(int) - colours).max()) <= SAME
