"""Outputs as bytes, and the bytes in their place."""

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from pmavae.errors import ImageError
from pmavae.files.tensors import write_atomically
from pmavae.images.pixels import Pixels, eight_bits, luma
from pmavae_cli.images.codecs import png_bytes, tiff_bytes
from pmavae_cli.images.formats import Format, Output, OutputError
from pmavae_cli.images.icc import from_srgb, is_grey, is_sound
from pmavae_cli.images.metadata import Extras, fit_alpha, unpack, unpack_alpha

STRIP_FORMATS = frozenset(("PNG", "TIFF", "JPEG"))  # Pillow's names of those that strips.py writes
MAX_METADATA = {"JPEG": 65_500}  # of a kind: one segment of a JPEG file
SUBSAMPLING = {"JPEG": 0, "AVIF": "4:4:4"}  # none: halved colour is what people see first


def check_size(width: int, height: int, form: Format) -> None:
    """Raise OutputError for a picture that a format has no room for."""
    if form.is_image and max(width, height) > form.max_side:
        raise OutputError(f"{width}×{height} px is too large for {form.name}: choose another format")


def render_picture(
    pixels: Pixels, carried: Mapping[str, str], form: Format, quality: int
) -> tuple[bytes, list[str]]:
    """A picture file, and a note for all that its format cannot hold.

    pixels: (H, W, 3), uint8, or uint16 where the format holds as much; else they are rounded.
    quality: 1–100, of JPEG, WebP and AVIF.
    """
    height, width = pixels.shape[:2]
    check_size(width, height, form)
    notes: list[str] = []
    alpha = unpack_alpha(carried)
    if alpha is not None and not form.alpha:
        notes.append(f"{form.name} cannot hold its transparency, which is left out")
    extras = held_extras(carried, form, notes)
    channels = channels_of(pixels, carried, form, extras.profile)
    if alpha is not None and form.alpha:
        fitted = fit_alpha(alpha, width, height, channels.dtype)
        channels = np.concatenate((channels, fitted[..., None]), axis=2)
    if form.pillow == "PNG":
        return png_bytes(channels, extras), notes
    if form.pillow == "TIFF":
        # Hardly a reader knows greys with transparency of 16 bits.
        if channels.dtype == np.uint16 and channels.shape[2] == 2:
            channels = channels[..., [0, 0, 0, 1]]
            extras = extras._replace(profile=b"") if is_grey(extras.profile) else extras
        return tiff_bytes(channels, extras), notes
    stream = io.BytesIO()
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    image.save(stream, form.pillow, **pillow_settings(form, quality, extras))
    return stream.getvalue(), notes


def held_extras(carried: Mapping[str, str], form: Format, notes: list[str]) -> Extras:
    """What of it a format has room for, and a note for what it has none for."""
    profile = unpack(carried, "icc") or b""
    # A format that cannot say in which colours it is, is in sRGB.
    if not form.icc or profile[16:20] != (b"GRAY" if carried.get("mode") == "L" and form.grey else b"RGB "):
        profile = b""
    elif not is_sound(profile, 1 if is_grey(profile) else 3):
        raise ImageError("the icc that the latents carry is damaged: encode the picture again")

    def metadata(key: str, holds: bool) -> bytes:
        data = unpack(carried, key) or b""
        if holds and len(data) > MAX_METADATA.get(form.pillow, len(data)):
            notes.append(f"{form.name} cannot hold so much {key.upper()} metadata, which is left out")
            return b""
        return data if holds else b""

    return Extras(profile, metadata("exif", form.exif), metadata("xmp", form.xmp))


def channels_of(pixels: Pixels, carried: Mapping[str, str], form: Format, profile: bytes) -> Pixels:
    """The channels, (H, W, 3 or 1), of a file or of rows of it: in its profile, which is empty for sRGB."""
    if profile:
        pixels = from_srgb(pixels, profile)
    if carried.get("mode") == "L":
        greys = pixels if pixels.shape[2] == 1 else luma(pixels)[..., None]
        pixels = greys if form.grey else greys.repeat(3, axis=2)
    return pixels if form.deep else eight_bits(pixels)


def pillow_settings(form: Format, quality: int, extras: Extras) -> dict[str, Any]:
    """What Pillow's writer of a format takes."""
    found: dict[str, Any] = {"icc_profile": extras.profile, "exif": extras.exif, "xmp": extras.xmp}
    found = {key: value for key, value in found.items() if value}
    if form.pillow in ("JPEG", "WEBP", "AVIF"):
        found["quality"] = quality
    if form.pillow in SUBSAMPLING:
        found["subsampling"] = SUBSAMPLING[form.pillow]
    return found


def write(output: Output, data: bytes, overwrite: bool) -> None:
    """Put an output in its place, whole or not at all; raises OutputError, naming it."""
    if output.path is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    check_place(output, overwrite)
    write_atomically(output.path, data, error=OutputError)


def check_place(output: Output, overwrite: bool) -> None:
    """Make the folder of an output; raises OutputError where that cannot be, or where a file has come up."""
    if output.path is None:
        return
    try:
        output.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise OutputError(f"{output.name} cannot be written: {reason.strerror or reason}") from None
    if output.path.is_file() and not overwrite:
        raise OutputError(f"{output.name} was made by someone else meanwhile: use --overwrite to replace it")
