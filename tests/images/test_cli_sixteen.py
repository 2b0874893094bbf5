"""Pictures of 16 bits a channel: read, computed and written as such."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import Command, picture
from PIL import Image

from pmavae.errors import ImageError
from pmavae.images.pixels import eight_bits, luma, sixteen_bits, to_pixels
from pmavae_cli.images.metadata import unpack_alpha
from pmavae_cli.images.reading import Picture, read_picture

Deep = np.ndarray[Any, np.dtype[np.uint16]]


def deep(size: tuple[int, int] = (48, 40), channels: int = 3) -> Deep:
    """Values that 8 bits cannot tell apart."""
    plain = np.asarray(picture(size)).astype(np.float64) * 256
    noise = np.random.default_rng(0).integers(0, 256, (*plain.shape[:2], 4))
    whole = np.concatenate((plain, plain[..., :1] // 2 + 16_000), axis=2) + noise
    found = whole.astype(np.uint16)
    return {1: found[..., 0], 2: found[..., [0, 3]], 3: found[..., :3], 4: found}[channels]


def png(pixels: Deep) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]


def tiff(pixels: Deep, **settings: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.ascontiguousarray(pixels), **settings)
    return stream.getvalue()


def read(data: bytes) -> Picture:
    return read_picture(io.BytesIO(data), "a")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_files_of_all_kinds(channels: int) -> None:
    pixels = deep(channels=channels)
    found = read(png(pixels))
    assert found.carried["depth"] == "16" and not found.notes
    colours = np.stack([pixels if channels == 1 else pixels[..., 0]] * 3, -1) if channels < 3 else pixels
    assert np.array_equal(found.pixels, colours[..., :3])
    assert ("mode" in found.carried) is (channels < 3)
    alpha = unpack_alpha(found.carried)
    if channels in (2, 4):
        assert alpha is not None and np.array_equal(alpha, pixels[..., -1])
    else:
        assert alpha is None


def test_a_colour_that_stands_for_transparency_in_a_png_file() -> None:
    pixels = deep()
    key = struct.pack(">HHH", *map(int, pixels[3, 5]))
    alpha = unpack_alpha(read(with_chunk(png(pixels), b"tRNS", key)).carried)
    assert alpha is not None and alpha[3, 5] == 0
    assert (alpha == 0).sum() == (pixels == pixels[3, 5]).all(-1).sum()


@pytest.mark.parametrize(
    ("channels", "settings"),
    [
        (1, {"photometric": "minisblack", "compression": "lzw", "predictor": True}),
        (1, {"photometric": "minisblack", "byteorder": ">"}),
        (3, {"photometric": "rgb", "compression": "zlib", "predictor": True, "byteorder": ">"}),
        (3, {"photometric": "rgb", "tile": (16, 16)}),
        (4, {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "lzw"}),
    ],
)
def test_tiff_files_of_many_kinds(channels: int, settings: dict[str, Any]) -> None:
    pixels = deep(channels=channels)
    found = read(tiff(pixels, **settings))
    assert found.carried["depth"] == "16"
    wanted = np.stack([pixels] * 3, -1) if channels == 1 else pixels[..., :3]
    assert np.array_equal(found.pixels, wanted)
    alpha = unpack_alpha(found.carried)
    assert (alpha is None) if channels < 4 else np.array_equal(alpha, pixels[..., 3])


def test_tiff_files_with_planes_with_white_as_zero_and_with_premultiplied_colours() -> None:
    pixels = deep()
    planes = tiff(pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(planes).pixels, pixels)
    negative = tiff(65535 - deep(channels=1), photometric="miniswhite")
    assert np.array_equal(read(negative).pixels[..., 0], deep(channels=1))
    alpha = deep(channels=4)[..., 3:]
    multiplied = (pixels.astype(float) * alpha / 65535).round().astype(np.uint16)
    both = np.concatenate((multiplied, alpha), axis=2)
    found = read(tiff(both, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(found.pixels.astype(int) - pixels).max() <= 4  # as many as were lost by multiplying


def test_a_damaged_file_is_refused_in_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    for data in (png(deep()), tiff(deep(), photometric="rgb", compression="zlib")):
        with pytest.raises(ImageError, match=r"^a is damaged or truncated"):
            read(data[: len(data) * 3 // 4])
    assert capfd.readouterr().err == ""  # not even by a library


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_a_task_leaves_alone_comes_out_as_it_was(
    pmavae: Command, here: Path, kind: str, channels: int
) -> None:
    pixels = deep(channels=channels)
    Path("in.png").write_bytes(png(pixels))
    assert pmavae("denoise", "in.png", "--strength", "0", "-o", f"out.{kind}").status == 0
    data = Path(f"out.{kind}").read_bytes()
    written = imagecodecs.png_decode(data) if kind == "png" else tifffile.imread(io.BytesIO(data))
    if kind == "tif" and channels == 2:  # which hardly a reader knows
        pixels = pixels[..., [0, 0, 0, 1]]
    assert written.dtype == np.uint16 and np.array_equal(written, pixels)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_metadata_and_profile_are_in_files_of_16_bits_too(pmavae: Command, here: Path, kind: str) -> None:
    from test_cli_colour import WIDE, XMP

    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "described", 6
    exif.get_ifd(0x8769)[0x829A] = 0.5  # exposure time, in a directory of its own
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    chunks = {
        b"iCCP": b"wide\0\0" + zlib.compress(WIDE),
        b"eXIf": exif.tobytes().removeprefix(b"Exif\0\0"),
        b"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP,
    }
    data = png((deep().astype(np.float64) / 3 + 20_000).astype(np.uint16))
    for name, content in chunks.items():
        data = with_chunk(data, name, content)
    Path("in.png").write_bytes(data)
    assert pmavae("denoise", "in.png", "--strength", "0", "-o", f"out.{kind}").status == 0
    with Image.open(f"out.{kind}") as kept:
        assert kept.size == (40, 48) and kept.info["icc_profile"] == WIDE
        found = kept.getexif()
        assert found[0x010E] == "described" and found.get(0x0112, 1) == 1
        assert found.get_ifd(0x8769)[0x829A] == 0.5 and found.get_ifd(0x8825)[1] == "N"
        assert kept.info["xmp"] == XMP.replace(b'"6"', b'"1"')
    # To sRGB and back, with far less than the 257 levels that 8 bits would cost.
    data = Path(f"out.{kind}").read_bytes()
    written = imagecodecs.png_decode(data) if kind == "png" else tifffile.imread(io.BytesIO(data))
    original = imagecodecs.png_decode(Path("in.png").read_bytes())
    assert np.abs(written.astype(int) - np.rot90(original, -1)).max() <= 8


def test_the_model_sees_and_makes_more_than_8_bits(pmavae: Command, weights: str, here: Path) -> None:
    Path("in.png").write_bytes(png(deep()))
    assert pmavae("decode", "in.png", "-o", "deep.png", "--weights", weights).status == 0
    Image.fromarray(eight_bits(deep())).save("flat.png")
    assert pmavae("decode", "flat.png", "-o", "eight.png", "--weights", weights).status == 0
    made = imagecodecs.png_decode(Path("deep.png").read_bytes())
    assert made.dtype == np.uint16 and (made % 257 != 0).mean() > 0.9
    with Image.open("eight.png") as eight:
        assert eight.mode == "RGB"
        off = np.abs(made.astype(int) - np.asarray(eight).astype(int) * 257)
        assert 0 < off.max() <= 400  # half a level of 8 bits, and what the lost bits of the input make out
    # A chain through a latent file remembers, and gives the same bytes.
    assert pmavae("encode", "in.png", "-o", "in.safetensors", "--weights", weights).status == 0
    assert pmavae("decode", "in.safetensors", "-o", "chain.png", "--weights", weights).status == 0
    assert Path("chain.png").read_bytes() == Path("deep.png").read_bytes()
    assert pmavae("decode", "in.png", "-o", "small.jpg", "--weights", weights).status == 0


@pytest.mark.parametrize(
    "task",
    [
        ("upscale",),
        ("denoise", "--sigma", "10"),
        ("style-mix", "style.png", "--refine", "1"),
        ("style-mix", "style.png", "--refine", "0", "--preserve-color"),
    ],
    ids=lambda task: "-".join(task[:1]),
)
def test_tasks_that_return_pixels_return_16_bits(pmavae: Command, here: Path, task: tuple[str, ...]) -> None:
    Path("in.png").write_bytes(png(deep()))
    picture(seed=3).save("style.png")
    name, *options = task
    assert pmavae(name, "in.png", *options, "-o", "out.png").status == 0
    made = imagecodecs.png_decode(Path("out.png").read_bytes())
    assert made.dtype == np.uint16 and (made % 257 != 0).mean() > 0.9


def test_conversions_round_to_the_nearest() -> None:
    import torch

    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(eight_bits(every), np.round(every / 257).astype(np.uint8))
    eight = np.arange(256, dtype=np.uint8)
    assert np.array_equal(eight_bits(sixteen_bits(eight)), eight)
    grid = torch.linspace(0, 1, 65536).reshape(1, 256, 256).expand(3, -1, -1)
    assert np.array_equal(to_pixels(grid, np.uint16)[..., 0], every)
    white = np.full((2, 2, 3), 65535, np.uint16)
    assert (luma(white) == 65535).all()  # no overflow
    eight_rgb = np.asarray(picture())
    assert np.array_equal(luma(eight_rgb), np.asarray(picture().convert("L")))
