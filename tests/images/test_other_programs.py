"""What exiftool and ImageMagick find in our outputs is what was in the inputs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import picture
from evil_files import deep_png
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from test_cli_colour import GREY, WIDE

EXIFTOOL = shutil.which("exiftool")
SIZE = (48, 40)
FORMATS = ("png", "jpg", "webp", "tif", "avif")
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    b' tiff:Orientation="6" xmp:Label="rated"/></rdf:RDF></x:xmpmeta>'
)


def imagemagick(name: str) -> str | None:
    """A program of ImageMagick 6 or 7; many others are called convert as well."""
    for command in (f"{name}-im6.q16", name):
        if program := shutil.which(command):
            told = subprocess.run([program, "-version"], capture_output=True, text=True)
            if "ImageMagick" in told.stdout:
                return program
    return None


CONVERT, IDENTIFY = imagemagick("convert"), imagemagick("identify")
needs_exiftool = pytest.mark.skipif(not EXIFTOOL, reason="no exiftool here")
needs_imagemagick = pytest.mark.skipif(not (CONVERT and IDENTIFY), reason="no ImageMagick here")


def deep(channels: int) -> NDArray[np.uint16]:
    """Values of which 8 bits tell little: slow ramps, with alpha as the last of 2 or 4 channels."""
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width]
    planes = [20_000 + 13 * (width * y + x), 41_000 - 9 * (width * y + x), 30_000 + 7 * (width * y + x)]
    planes = planes[: 1 if channels < 3 else 3]
    if channels in (2, 4):
        planes.append(9_001 + 25 * (height * x + y))
    return np.stack(planes, -1).astype(np.uint16)


DEEP = {"deep-grey": 1, "deep-grey-alpha": 2, "deep-rgb": 3, "deep-rgba": 4}


def make_inputs(folder: Path) -> None:
    folder.mkdir()
    image = picture(SIZE)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        image.save(folder / f"turned-{orientation}.jpg", exif=exif, quality=95, subsampling=0)
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make], exif[Base.Copyright] = 6, "Maker", "(c) somebody"
    exif.get_ifd(IFD.Exif)[Base.ISOSpeedRatings] = 400
    exif.get_ifd(IFD.GPSInfo).update({GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (48.0, 12.0, 30.0)})
    image.save(folder / "all.jpg", exif=exif, icc_profile=WIDE, xmp=XMP, quality=95, subsampling=0)
    # Pale colours: those beyond sRGB cannot stay as they are.
    Image.blend(image, Image.new("RGB", SIZE, "gray"), 0.6).save(folder / "icc.png", icc_profile=WIDE)
    image.convert("L").save(folder / "grey.png")
    image.convert("L").save(folder / "grey-icc.png", icc_profile=GREY)
    image.putalpha(picture(SIZE, seed=3).convert("L"))
    image.save(folder / "alpha.png")
    image.convert("LA").save(folder / "grey-alpha.png")
    for name, channels in DEEP.items():
        (folder / f"{name}.png").write_bytes(deep_png(deep(channels)))
        if CONVERT and channels != 2:
            subprocess.run([CONVERT, folder / f"{name}.png", folder / f"{name}-tiff.tif"], check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs and, by format, what became of them where nothing was to be done to the pixels."""
    from small_restorers import saved, untrained

    from pmavae_cli.main import main

    folder = tmp_path_factory.mktemp("made")
    make_inputs(folder / "in")
    weights = saved(untrained("denoise"), folder / "weights", "test-denoise")
    same = ("--strength", "0", "--weights", str(weights), "--quiet")
    for form in FORMATS:
        out = ("-o", f"{folder}/{form}/", "--format", form)
        main(["denoise", str(folder / "in"), *same, *out])  # what is missing then, the tests find
        out = ("-o", f"{folder}/strip-{form}/", "--format", form)
        main(["denoise", str(folder / "in" / "all.jpg"), *same, *out, "--metadata", "strip"])
    return folder


@pytest.fixture(scope="module")
def tags(made: Path) -> Callable[[str], dict[str, Any]]:
    """What exiftool tells of each file, by its place."""
    assert EXIFTOOL
    done = subprocess.run(
        [EXIFTOOL, "-json", "-n", "-G", "-b", "-all", "-ICC_Profile", "-r", "."],
        cwd=made,
        capture_output=True,
        text=True,
    )
    told = {str(Path(row["SourceFile"])): row for row in json.loads(done.stdout)}
    return lambda place: told[place]


@pytest.fixture(scope="module")
def magick(made: Path) -> Callable[[str], dict[str, str]]:
    """What ImageMagick tells of each output, by its place."""
    assert IDENTIFY
    files = [path for path in sorted(made.glob("*/*")) if path.suffix != ".safetensors"]
    files = [path for path in files if path.suffix[1:] in (*FORMATS, "tiff")]
    what = "%i\t%w %h\t%z\t%[channels]\t%[orientation]\n"
    done = subprocess.run([IDENTIFY, "-format", what, *files], capture_output=True, text=True)
    told = {}
    for line in done.stdout.splitlines():
        path, size, depth, channels, orientation = line.split("\t")
        told[str(Path(path).relative_to(made))] = {
            "size": size,
            "depth": depth,
            "channels": channels,
            "orientation": orientation,
        }
    return lambda place: told[place]


def pixels(path: Path, channels: str = "rgb", depth: int = 8, *options: str) -> NDArray[Any]:
    """The pixels that ImageMagick reads, as (values)."""
    assert CONVERT
    order = ["-endian", "MSB"] if depth == 16 else []
    done = subprocess.run(
        [CONVERT, path, *options, *order, "-depth", str(depth), f"{channels}:-"], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, ">u2" if depth == 16 else np.uint8).astype(float)


@needs_imagemagick
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_the_one_that_imagemagick_turns(
    made: Path, magick: Callable[[str], dict[str, str]], orientation: int
) -> None:
    name = f"turned-{orientation}"
    expected = pixels(made / "in" / f"{name}.jpg", "rgb", 8, "-auto-orient")
    size = SIZE if orientation < 5 else SIZE[::-1]
    for form, loss in (("png", 0.6), ("jpg", 2.0), ("tif", 0.6)):
        told = magick(f"{form}/{name}.{form}")
        assert told["size"] == f"{size[0]} {size[1]}"
        assert told["orientation"] in ("Undefined", "TopLeft")
        found = pixels(made / form / f"{name}.{form}")
        assert np.abs(found - expected).mean() < loss
        # Whoever turns it once more turns nothing.
        assert np.array_equal(pixels(made / form / f"{name}.{form}", "rgb", 8, "-auto-orient"), found)


@needs_exiftool
@pytest.mark.parametrize("form", FORMATS)
def test_exiftool_finds_what_was_kept_and_nothing_that_was_stripped(
    tags: Callable[[str], dict[str, Any]], form: str
) -> None:
    given, kept, stripped = tags("in/all.jpg"), tags(f"{form}/all.{form}"), tags(f"strip-{form}/all.{form}")
    for tag in ("EXIF:Make", "EXIF:Copyright", "EXIF:ISO", "EXIF:GPSLatitude", "XMP:Label"):
        assert kept[tag] == given[tag]
    assert (given["EXIF:Orientation"], given["XMP:Orientation"]) == (6, 6)
    assert (kept.get("EXIF:Orientation", 1), kept["XMP:Orientation"]) == (1, 1)
    assert {"EXIF:Make", "EXIF:ISO", "EXIF:GPSLatitude", "XMP:Label"} <= set(given) - set(stripped)
    for told in (kept, stripped):
        assert told["ICC_Profile:ICC_Profile"] == given["ICC_Profile:ICC_Profile"]
        assert told["ICC_Profile:ProfileDescription"] == "test"


@needs_exiftool
def test_exiftool_finds_the_profile_of_greys(tags: Callable[[str], dict[str, Any]]) -> None:
    given = tags("in/grey-icc.png")["ICC_Profile:ICC_Profile"]
    for form in ("png", "jpg", "tif"):
        told = tags(f"{form}/grey-icc.{form}")
        assert told["ICC_Profile:ICC_Profile"] == given
        assert told["ICC_Profile:ColorSpaceData"] == "GRAY"


@needs_imagemagick
def test_imagemagick_sees_the_colours_of_the_profile(made: Path) -> None:
    expected = pixels(made / "in" / "icc.png")
    for form, loss in (("png", 1.0), ("tif", 1.0), ("jpg", 2.5), ("webp", 4.0)):
        assert np.abs(pixels(made / form / f"icc.{form}") - expected).mean() < loss, form


@needs_imagemagick
@pytest.mark.parametrize(
    ("name", "form", "channels"),
    [
        ("all", "png", "srgb"),
        ("grey", "png", "gray"),
        ("grey", "jpg", "gray"),
        ("grey", "tif", "gray"),
        ("alpha", "png", "srgba"),
        ("alpha", "webp", "srgba"),
        ("alpha", "tif", "srgba"),
        ("alpha", "jpg", "srgb"),
        ("grey-alpha", "png", "graya"),
        ("grey-alpha", "tif", "graya"),
    ],
)
def test_imagemagick_finds_the_channels_that_were_there(
    magick: Callable[[str], dict[str, str]], name: str, form: str, channels: str
) -> None:
    told = magick(f"{form}/{name}.{form}")
    assert (told["channels"], told["depth"]) == (channels, "8")


@needs_imagemagick
@pytest.mark.parametrize("name", ["alpha", "grey-alpha"])
@pytest.mark.parametrize("form", ["png", "tif", "webp"])  # version 6 knows none of AVIF
def test_imagemagick_finds_the_transparency_that_was_there(made: Path, name: str, form: str) -> None:
    expected = pixels(made / "in" / f"{name}.png", "gray", 8, "-alpha", "extract")
    assert len(set(expected)) > 50
    found = pixels(made / form / f"{name}.{form}", "gray", 8, "-alpha", "extract")
    assert np.array_equal(found, expected)


@needs_imagemagick
@pytest.mark.parametrize("source", ["", "-tiff"])
@pytest.mark.parametrize("form", ["png", "tif"])
@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bits_go_in_and_out(
    made: Path, magick: Callable[[str], dict[str, str]], name: str, form: str, source: str
) -> None:
    channels = DEEP[name]
    if channels == 2 and source:
        pytest.skip("ImageMagick writes no such TIFF file")
    expected = deep(channels).astype(float)
    place = f"{form}/{name}{source}.{form}"
    assert magick(place)["depth"] == "16"
    colours = "gray" if channels < 3 else "rgb"
    found = pixels(made / place, colours, 16, "-alpha", "off").reshape(*SIZE[::-1], -1)
    # Rounding to 8 bits is wrong by 64 of 65535 in the mean.
    assert np.abs(found - expected[..., : found.shape[-1]]).mean() < 2
    if channels in (2, 4):
        alpha = pixels(made / place, "gray", 16, "-alpha", "extract").reshape(SIZE[::-1])
        assert np.abs(alpha - expected[..., -1]).mean() < 2


@needs_exiftool
@pytest.mark.parametrize("name", DEEP)
def test_exiftool_finds_sixteen_bits(tags: Callable[[str], dict[str, Any]], name: str) -> None:
    channels = DEEP[name]
    assert tags(f"png/{name}.png")["PNG:BitDepth"] == 16
    bits = str(tags(f"tif/{name}.tif")["EXIF:BitsPerSample"]).split()
    assert set(bits) == {"16"} and len(bits) >= channels
    assert tags(f"jpg/{name}.jpg")["File:BitsPerSample"] == 8
