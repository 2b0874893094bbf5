"""Colour profiles and metadata: to the model in sRGB, and back as they came."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image, ImageCms

from pmavae.errors import ImageError
from pmavae.images.pixels import sixteen_bits
from pmavae_cli.images.formats import FORMATS
from pmavae_cli.images.icc import from_srgb, is_sound, to_srgb
from pmavae_cli.images.metadata import pack, unpack
from pmavae_cli.images.reading import read_picture
from pmavae_cli.images.writing import render_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"'
    b' dc:title="a \xc3\xa9"/></x:xmpmeta>'
)


def tagged(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2, of colours or greys."""
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", kind, b"XYZ ", b"acsp")
    white = struct.pack(">iii", 63190, 65536, 54061)
    header = header.ljust(68, b"\0") + white
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in values))


COMMON = {
    b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78,
    b"wtpt": xyz(0.9642, 1, 0.8249),
}
# Adobe RGB's primaries, adapted to D50, with a gamma of 2.2.
WIDE = tagged(
    b"RGB ",
    COMMON
    | {b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)}
    | {b"bXYZ": xyz(0.14919, 0.06322, 0.74457)}
    | {name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")},
)
GREY = tagged(b"GRAY", COMMON | {b"kTRC": gamma(1.0)})


def file(image: Image.Image, kind: str = "PNG", **settings: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)  # type: ignore[arg-type]
    stream.seek(0)
    return stream


def ramp() -> Image.Image:
    values = np.linspace(0, 255, 64).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.broadcast_arrays(values, values[::-1], values[:, None]), -1).copy())


def test_pixels_reach_the_model_in_srgb() -> None:
    flat = Image.new("RGB", (32, 32), (100, 160, 90))
    found = read_picture(file(flat, icc_profile=WIDE), "a.png")
    # By the definition of both spaces: Adobe RGB (100, 160, 90) is (54, 161, 85) in sRGB.
    assert np.abs(np.asarray(found.pixels)[0, 0].astype(int) - (54, 161, 85)).max() <= 3
    assert unpack(found.carried, "icc") == WIDE and not found.notes


def test_srgb_is_left_as_it_is() -> None:
    found = read_picture(file(ramp(), icc_profile=SRGB), "a.png")
    assert np.array_equal(np.asarray(found.pixels), np.asarray(ramp()))


@pytest.mark.parametrize("form", [form for form in FORMATS if form.is_image], ids=lambda form: form.name)
def test_pixels_go_back_to_the_profile_where_the_format_has_one(form) -> None:  # type: ignore[no-untyped-def]
    muted = ramp().point(lambda value: 90 + value * 70 // 255)  # inside of sRGB
    found = read_picture(file(muted, icc_profile=WIDE), "a.png")
    data, _ = render_picture(np.asarray(found.pixels), found.carried, form, 100)
    written = Image.open(io.BytesIO(data))
    wanted = muted if form.icc else found.pixels
    assert (written.info.get("icc_profile") == WIDE) is form.icc
    lossy = 8 if form.name in ("jpg", "webp", "avif") else 2
    assert np.abs(np.asarray(written.convert("RGB")).astype(int) - np.asarray(wanted)).mean() < lossy / 2


def test_greys_have_profiles_too() -> None:
    grey = ramp().convert("L")
    found = read_picture(file(grey, icc_profile=GREY), "a.png")
    assert found.carried["mode"] == "L" and unpack(found.carried, "icc") == GREY
    # Half the light is a bright grey in sRGB.
    assert np.asarray(found.pixels).mean() > np.asarray(grey).mean() + 20
    png = next(form for form in FORMATS if form.name == "png")
    written = Image.open(io.BytesIO(render_picture(np.asarray(found.pixels), found.carried, png, 95)[0]))
    assert written.mode == "L" and np.abs(np.asarray(written).astype(int) - np.asarray(grey)).max() <= 6


def test_a_damaged_profile_is_left_out_and_said() -> None:
    broken = WIDE[:140] + b"\xff" * 40
    assert not is_sound(broken, 3) and is_sound(WIDE, 3) and not is_sound(WIDE, 1)
    found = read_picture(file(ramp(), icc_profile=broken), "a.png")
    assert found.notes == ("its colour profile is damaged and is left out",) and "icc" not in found.carried
    with pytest.raises(ImageError, match="the icc that the latents carry is damaged"):
        render_picture(np.asarray(ramp()), {"icc": pack(broken)}, FORMATS[0], 95)


def test_there_and_back_is_the_same_inside_of_srgb() -> None:
    muted = np.asarray(ramp().point(lambda value: 90 + value * 70 // 255))
    inside = to_srgb(muted, WIDE)
    again = to_srgb(from_srgb(inside, WIDE), WIDE)
    assert np.abs(again.astype(int) - inside).max() <= 2
    deep = to_srgb(sixteen_bits(muted) + np.uint16(77), WIDE)
    again = to_srgb(from_srgb(deep, WIDE), WIDE)
    assert deep.dtype == np.uint16 and np.abs(again.astype(int) - deep).max() <= 3


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tiff", "avif"])
def test_xmp_goes_along_upright(pmavae: Command, weights: str, here: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "described"
    exif[0x0112] = 6
    (here / "in.jpg").write_bytes(file(picture(), "JPEG", exif=exif, xmp=XMP).getvalue())
    for out, options in ((f"out.{kind}", ()), (f"bare.{kind}", ("--metadata", "strip"))):
        assert pmavae("decode", "in.jpg", "-o", out, "--weights", weights, *options).status == 0
    with Image.open(here / f"out.{kind}") as kept, Image.open(here / f"bare.{kind}") as bare:
        assert kept.size == (40, 48)
        assert kept.info["xmp"] == XMP.replace(b'"6"', b'"1"')
        assert kept.getexif()[0x010E] == "described" and kept.getexif().get(0x0112, 1) == 1
        assert "xmp" not in bare.info and 0x010E not in bare.getexif()


def test_a_gif_is_read_and_its_frames_are_said(pmavae: Command, weights: str, here: Path) -> None:
    frames = [picture(seed=seed) for seed in (0, 1)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    result = pmavae("decode", "moving.gif", "-o", "out.avif", "--weights", weights)
    assert result.status == 0 and result.err == "pmavae: moving.gif: the first of its 2 frames is used\n"
    with Image.open("out.avif") as out:
        assert out.format == "AVIF" and out.size == frames[0].size
    assert pmavae("decode", "moving.gif", "-o", "out.gif", "--weights", weights).status == 2
    Path("cut.gif").write_bytes(Path("moving.gif").read_bytes()[:60])
    failed = pmavae("decode", "cut.gif", "-o", "cut.png", "--weights", weights)
    assert failed.status == 1 and "cut.gif is damaged or truncated" in failed.err
