"""Outputs as bytes, and the bytes in their place."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pmavae import Latents, Style
from pmavae.errors import ImageError
from pmavae.latent_file import latents_to_bytes, style_to_bytes
from pmavae.tensor_file import write_atomically
from pmavae_cli.carried import fit_header, unpack, unpack_alpha
from pmavae_cli.colour import from_srgb, is_sound
from pmavae_cli.formats import Format
from pmavae_cli.jobs import Output, OutputError
from pmavae_cli.session import Session

MAX_METADATA = {"JPEG": 65_500}  # of a kind: one segment of a JPEG file
XMP_TAG = 700  # of TIFF


def render_latents(session: Session, latents: Latents, carried: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """A latent file, and a note for all that it cannot hold."""
    kept, notes = fit_header(carried)
    return latents_to_bytes(latents, session.header(kept), session.dtype), notes


def render_style(session: Session, style: Style) -> bytes:
    """A latent file that holds a style alone."""
    return style_to_bytes(style, session.header({}), session.dtype)


def check_size(width: int, height: int, form: Format) -> None:
    """Raise OutputError for a picture that a format has no room for."""
    if form.is_image and max(width, height) > form.max_side:
        raise OutputError(f"{width}×{height} px is too large for {form.name}: choose another format")


def render_picture(
    pixels: NDArray[np.uint8], carried: Mapping[str, str], form: Format, quality: int
) -> tuple[bytes, list[str]]:
    """A picture file, and a note for all that its format cannot hold.

    pixels: (H, W, 3). quality: 1–100, of JPEG, WebP and AVIF.
    """
    image = Image.fromarray(pixels)
    check_size(*image.size, form)
    notes = []
    settings: dict[str, Any] = {}
    grey = carried.get("mode") == "L"
    profile = unpack(carried, "icc") or b""
    # A format that cannot say in which colours it is, is in sRGB.
    if form.icc and profile[16:20] == (b"GRAY" if grey and form.grey else b"RGB "):
        if not is_sound(profile, "L" if profile[16:20] == b"GRAY" else "RGB"):
            raise ImageError("the icc that the latents carry is damaged: encode the picture again")
        image, settings["icc_profile"] = from_srgb(image, profile), profile
    if grey:
        image = image.convert("L")
        if not form.grey:
            image = image.convert("RGB")
    if alpha := unpack_alpha(carried):
        if form.alpha:
            if alpha.size != image.size:
                alpha = alpha.resize(image.size, Image.Resampling.LANCZOS)
            image.putalpha(alpha)
        else:
            notes.append(f"{form.name} cannot hold its transparency, which is left out")
    if form.exif and (exif := unpack(carried, "exif")):
        if len(exif) <= MAX_METADATA.get(form.pillow, len(exif)):
            settings["exif"] = exif
        else:
            notes.append(f"{form.name} cannot hold so much EXIF metadata, which is left out")
    if form.xmp and (xmp := unpack(carried, "xmp")):
        if len(xmp) <= MAX_METADATA.get(form.pillow, len(xmp)):
            settings |= _xmp_settings(form, xmp, settings.get("exif", b""))
        else:
            notes.append(f"{form.name} cannot hold so much XMP metadata, which is left out")
    if form.pillow in ("JPEG", "WEBP", "AVIF"):
        settings["quality"] = quality
    if form.pillow == "JPEG":
        settings["subsampling"] = 0  # 4:4:4: halved colour is what people see first
    if form.pillow == "AVIF":
        settings["subsampling"] = "4:4:4"
    if form.pillow == "TIFF":
        settings["compression"] = "tiff_deflate"
    stream = io.BytesIO()
    image.save(stream, form.pillow, **settings)
    return stream.getvalue(), notes


def _xmp_settings(form: Format, xmp: bytes, exif: bytes) -> dict[str, Any]:
    """How Pillow is told, by format."""
    if form.pillow == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        return {"pnginfo": info}
    if form.pillow == "TIFF":
        tags = Image.Exif()  # in this format both are in one directory
        tags.load(exif)
        tags[XMP_TAG] = xmp
        return {"exif": tags}
    return {"xmp": xmp}


def write(output: Output, data: bytes, overwrite: bool) -> None:
    """Put an output in its place, whole or not at all; raises OutputError, naming it."""
    if output.path is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        output.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise OutputError(f"{output.name} cannot be written: {reason.strerror or reason}") from None
    if output.path.is_file() and not overwrite:
        raise OutputError(f"{output.name} was made by someone else meanwhile: use --overwrite to replace it")
    write_atomically(output.path, data, error=OutputError)
