"""Outputs as bytes, and the bytes in their place."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from pmavae.errors import ImageError
from pmavae.files.tensors import atomic_file, write_atomically
from pmavae.images.pixels import Pixels, eight_bits, luma, sixteen_bits
from pmavae_cli.images.codecs import (
    jpeg_rows,
    png_bytes,
    tiff_bytes,
    tiff_rows,
    write_jpeg,
    write_png,
    write_tiff,
)
from pmavae_cli.images.formats import Format, Output, OutputError
from pmavae_cli.images.icc import from_srgb, is_grey, is_sound
from pmavae_cli.images.metadata import unpack, unpack_alpha
from pmavae_cli.images.transparency import fit_alpha

MAX_METADATA = {"JPEG": 65_500}  # of a kind: one segment of a JPEG file


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
    channels, profile = in_profile(pixels, carried, form)
    if not form.deep:
        channels = eight_bits(channels)
    if (alpha := unpack_alpha(carried)) is not None:
        if form.alpha:
            fitted = fit_alpha(alpha, width, height, channels.dtype)
            channels = np.concatenate((channels, fitted[..., None]), axis=2)
        else:
            notes.append(f"{form.name} cannot hold its transparency, which is left out")
    exif = kept_metadata(carried, "exif", "EXIF", form.exif, form, notes)
    xmp = kept_metadata(carried, "xmp", "XMP", form.xmp, form, notes)
    if channels.dtype == np.uint16:
        return _render_deep(channels, form, profile, exif, xmp), notes
    return _render(channels, form, quality, profile, exif, xmp), notes


def in_profile(pixels: Pixels, carried: Mapping[str, str], form: Format) -> tuple[Pixels, bytes]:
    """The channels (H, W, 3 or 1) of a file, or of rows of it, and their profile, which is empty for sRGB."""
    grey = carried.get("mode") == "L"
    profile = unpack(carried, "icc") or b""
    # A format that cannot say in which colours it is, is in sRGB.
    if form.icc and profile[16:20] == (b"GRAY" if grey and form.grey else b"RGB "):
        if not is_sound(profile, 1 if is_grey(profile) else 3):
            raise ImageError("the icc that the latents carry is damaged: encode the picture again")
        pixels = from_srgb(pixels, profile)
    else:
        profile = b""
    if not grey:
        return pixels, profile
    greys = pixels if pixels.shape[2] == 1 else luma(pixels)[..., None]
    return greys if form.grey else greys.repeat(3, axis=2), profile


def kept_metadata(
    carried: Mapping[str, str], key: str, what: str, holds: bool, form: Format, notes: list[str]
) -> bytes:
    """Metadata that a format has room for, else none and a note."""
    data = unpack(carried, key) or b""
    if not data or not holds:
        return b""
    if len(data) > MAX_METADATA.get(form.pillow, len(data)):
        notes.append(f"{form.name} cannot hold so much {what} metadata, which is left out")
        return b""
    return data


def _render_deep(channels: Pixels, form: Format, profile: bytes, exif: bytes, xmp: bytes) -> bytes:
    deep = sixteen_bits(channels)
    if form.pillow == "PNG":
        return png_bytes(deep, profile, exif, xmp)
    if deep.shape[2] == 2:  # hardly a reader knows greys with transparency of these bits
        deep = deep[..., [0, 0, 0, 1]]
        profile = b"" if is_grey(profile) else profile
    return tiff_bytes(deep, profile, exif, xmp)


def _render(channels: Pixels, form: Format, quality: int, profile: bytes, exif: bytes, xmp: bytes) -> bytes:
    if form.pillow == "TIFF":
        return tiff_bytes(channels, profile, exif, xmp)
    if form.pillow == "PNG":
        return png_bytes(channels, profile, exif, xmp)
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    settings: dict[str, Any] = {}
    if profile:
        settings["icc_profile"] = profile
    if exif:
        settings["exif"] = exif
    if xmp:
        settings["xmp"] = xmp
    if form.pillow in ("JPEG", "WEBP", "AVIF"):
        settings["quality"] = quality
    if form.pillow == "JPEG":
        settings["subsampling"] = 0  # 4:4:4: halved colour is what people see first
    if form.pillow == "AVIF":
        settings["subsampling"] = "4:4:4"
    stream = io.BytesIO()
    image.save(stream, form.pillow, **settings)
    return stream.getvalue()


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


STRIP_FORMATS = frozenset(("PNG", "TIFF", "JPEG"))  # Pillow's names of those that can be written so
_PNG_BYTES = 1 << 21  # of the rows that are filtered at a time


def write_strips(
    output: Output,
    pixels: Iterable[Pixels],
    size: tuple[int, int],
    carried: Mapping[str, str],
    quality: int,
    overwrite: bool,
) -> list[str]:
    """Consecutive rows (h, W, 3), from the top to the bottom, as a file like that of `render_picture`.

    It comes in its place as a whole or not at all. size: width and height. Returns a note for all that the
    format cannot hold. Raises OutputError, naming the output, and what `pixels` raises.
    """
    width, height = size
    form = output.format
    check_size(width, height, form)
    check_place(output, overwrite)
    notes: list[str] = []
    if "alpha" in carried:
        notes.append("so large a picture is written without its transparency")
    exif = kept_metadata(carried, "exif", "EXIF", form.exif, form, notes)
    xmp = kept_metadata(carried, "xmp", "XMP", form.xmp, form, notes)
    deep = form.deep and carried.get("depth") == "16"
    kind: np.dtype[Any] = np.dtype(np.uint16 if deep else np.uint8)
    blank, profile = in_profile(np.zeros((1, 1, 3), kind), carried, form)
    channels = blank.shape[2]
    converted = _converted(pixels, carried, form, kind)

    def save(stream: BinaryIO) -> None:
        row_bytes = width * channels * kind.itemsize
        if form.pillow == "PNG":
            strips = _of_height(converted, max(1, _PNG_BYTES // row_bytes))
            write_png(stream, strips, size, kind, channels, profile, exif, xmp)
        elif form.pillow == "TIFF":
            rows = tiff_rows(row_bytes)
            strips = _of_height(converted, rows)
            write_tiff(stream, strips, size, kind, channels, profile, exif, xmp, rows)
        else:
            settings = {"icc_profile": profile, "exif": exif, "xmp": xmp}
            settings = {key: value for key, value in settings.items() if value}
            strips = _of_height(converted, jpeg_rows(width))
            write_jpeg(stream, strips, size, {**settings, "quality": quality, "subsampling": 0})

    if output.path and (output.path.is_file() or not output.path.exists()):
        with atomic_file(output.path, error=OutputError) as stream:
            save(stream)
            check_place(output, overwrite)
        return notes
    # A pipe or a device gets the whole, as any other output, and none of a picture that fails.
    with TemporaryFile() as whole:
        try:
            save(whole)
            whole.seek(0)
        except OSError as reason:
            raise OutputError(f"{output.name} cannot be written: {reason.strerror or reason}") from None
        if output.path is None:
            shutil.copyfileobj(whole, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return notes
        with atomic_file(output.path, error=OutputError) as stream:
            shutil.copyfileobj(whole, stream)
    return notes


def _converted(
    pixels: Iterable[Pixels], carried: Mapping[str, str], form: Format, kind: np.dtype[Any]
) -> Iterator[Pixels]:
    for strip in pixels:
        channels, _ = in_profile(strip, carried, form)
        yield channels if kind == np.uint16 else eight_bits(channels)


def _of_height(strips: Iterator[Pixels], height: int) -> Iterator[Pixels]:
    """The same rows in strips of one height, but for the last."""
    waiting: list[Pixels] = []
    count = 0
    for strip in strips:
        top = 0
        while count + len(strip) - top >= height:
            end = top + height - count
            yield np.concatenate((*waiting, strip[top:end])) if waiting else strip[top:end]
            waiting, count, top = [], 0, end
        if top < len(strip):
            waiting.append(strip[top:])
            count += len(strip) - top
    if waiting:
        yield np.concatenate(waiting)
