"""Files that nobody should have to read: damaged, mislabelled, enormous by their header, or merely odd.

Every stem occurs once, so that all of them fit into one run.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import picture
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

SIZE = (32, 24)
GOOD, BAD, EITHER = "good", "bad", "either"


@dataclass(frozen=True)
class Evil:
    """What has to become of one file."""

    outcome: str  # GOOD: an output; BAD: a sentence; EITHER: whatever Pillow can make of it
    size: tuple[int, int] = SIZE  # of the upright picture, if there is one


def encoded(image: Image.Image, form: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **settings)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(data))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, pixels, chunk(b"IEND", b"")])


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A picture of two bytes a channel, which Pillow cannot write; values: (H, W, 1, 2, 3 or 4)."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def jpeg_of_size(width: int, height: int) -> bytes:
    """One whose header lies."""
    data = bytearray(encoded(picture(SIZE), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return encoded(picture(SIZE), "JPEG", exif=exif)


def animated(form: str) -> bytes:
    frames = [picture(SIZE, seed=i) for i in range(3)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)


def palette() -> bytes:
    image = picture(SIZE).quantize(16)
    return encoded(image, "PNG", transparency=bytes(range(0, 256, 16)))


def bombs() -> Iterator[tuple[str, bytes, Evil]]:
    """Much from little."""
    zeros = zlib.compress(bytes(50_000_000), 1)
    row = b"\0" + bytes(3 * SIZE[0])
    text = chunk(b"zTXt", b"Comment\0\0" + zeros)
    profile = chunk(b"iCCP", b"icc\0\0" + zeros)
    yield "bomb-text.png", png(*SIZE, text, data=row * SIZE[1]), Evil(EITHER)
    yield "bomb-profile.png", png(*SIZE, profile, data=row * SIZE[1]), Evil(EITHER)
    yield "bomb-header.png", png(60_000, 60_000), Evil(BAD)
    yield "bomb-largest.png", png(2**31 - 1, 2**31 - 1), Evil(BAD)
    yield "bomb-pixels.png", png(60_000, 60_000, data=bytes(1000)), Evil(BAD)
    yield "bomb-below-the-limit.png", png(9_000, 9_000), Evil(BAD)
    yield "bomb-jpeg.jpg", jpeg_of_size(65_000, 65_000), Evil(BAD)
    yield "wide.png", encoded(Image.new("L", (100_000, 1)), "PNG"), Evil(BAD)
    yield "high.png", encoded(Image.new("L", (1, 100_000)), "PNG"), Evil(BAD)
    yield "slender.png", encoded(picture((16, 1_000)), "PNG"), Evil(GOOD, (16, 1_000))
    yield "smallest.png", encoded(picture((16, 16)), "PNG"), Evil(GOOD, (16, 16))


def kinds() -> Iterator[tuple[str, bytes, Evil]]:
    """Whole pictures of every kind."""
    image = picture(SIZE)
    good = Evil(GOOD)
    yield "palette.png", palette(), good
    yield "key.gif", encoded(image.quantize(8), "GIF", transparency=3), good
    yield "cmyk.jpg", encoded(image.convert("CMYK"), "JPEG"), good
    yield "cmyk-raw.tif", encoded(image.convert("CMYK"), "TIFF"), good
    yield "la.png", encoded(image.convert("LA"), "PNG"), good
    yield "bilevel.png", encoded(image.convert("1"), "PNG"), good
    yield (
        "grey16.png",
        encoded(Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257), "PNG"),
        good,
    )
    yield "grey32.tif", encoded(image.convert("I"), "TIFF"), Evil(EITHER)
    yield "float.tif", encoded(image.convert("F"), "TIFF"), Evil(EITHER)
    yield "lab.tif", encoded(image.convert("LAB"), "TIFF"), Evil(EITHER)
    yield "rgb16.png", deep_png(np.asarray(image).astype(np.uint16) * 257), good
    for form in ("GIF", "WEBP", "PNG"):
        yield f"animated-{form.lower()}.{form.lower()}", animated(form), good
    for orientation in range(1, 9):
        size = SIZE if orientation < 5 else SIZE[::-1]
        yield f"turned-{orientation}.jpg", turned(orientation), Evil(GOOD, size)
    yield "turned-99.jpg", turned(99), good
    yield "turned-0.jpg", turned(0), good
    for compression in ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg", "zstd", "lzma"):
        yield f"{compression}.tif", encoded(image, "TIFF", compression=compression), Evil(EITHER)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield f"{compression}.tif", encoded(image.convert("1"), "TIFF", compression=compression), Evil(EITHER)


def damaged() -> Iterator[tuple[str, bytes, Evil]]:
    """Broken somewhere, or not what they are called."""
    image, bad, either = picture(SIZE), Evil(BAD), Evil(EITHER)
    yield "empty.png", b"", bad
    yield "empty-latents.safetensors", b"", bad
    yield "one-byte.jpg", b"\xff", bad
    yield "text.jpg", b"Dear diary,\ntoday I was a picture.\n", bad
    yield "script.png", b"%!PS-Adobe-3.0\n(/etc/passwd) run\n", bad
    yield "zeros.tif", bytes(5000), bad
    yield "zero-by-zero.jpg", jpeg_of_size(0, 0), bad
    yield "zero-by-zero-2.png", png(0, 0), bad
    yield "no-frames.gif", b"GIF89a" + struct.pack("<HHBBB", *SIZE, 0, 0, 0) + b";", bad
    yield "exif-broken.jpg", encoded(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), Evil(GOOD)
    yield (
        "exif-loop.jpg",
        encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\x87i\0\4\0\0\0\1\0\0\0\x08"),
        either,
    )
    yield "icc-broken.jpg", encoded(image, "JPEG", icc_profile=b"not a profile" * 30), Evil(GOOD)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield "icc-lab.png", encoded(image, "PNG", icc_profile=lab), Evil(GOOD)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "icc-of-colours.png", encoded(image.convert("L"), "PNG", icc_profile=srgb), Evil(GOOD)
    yield "icc-cut.webp", encoded(image, "WEBP", icc_profile=srgb[: len(srgb) // 2]), Evil(GOOD)
    info = PngInfo()
    info.add_text("Comment", "\0\x1b[31m\n" * 50)
    yield "escape.png", encoded(image, "PNG", pnginfo=info), Evil(GOOD)
    yield "called-jpeg.jpg", encoded(image, "PNG"), Evil(GOOD)
    yield "called-latents.safetensors", encoded(image, "WEBP"), either
    yield "called-nothing", encoded(image, "BMP"), Evil(GOOD)
    yield "icon.ico", encoded(image, "ICO"), bad
    for form, suffix in (
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
    ):
        whole = encoded(image, form)
        for eighth in range(1, 8):
            yield f"{form.lower()}-{eighth}-eighths.{suffix}", whole[: len(whole) * eighth // 8], either


def changed_header(whole: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """A latent file with another header and without its checksum: change(description of tensors, fields)."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["pmavae"])
    change(header, fields)
    header["__metadata__"] = {"pmavae": json.dumps(fields)}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


def latent_files(whole: bytes, style: bytes) -> Iterator[tuple[str, bytes, Evil]]:
    """Out of a sound latent file and a sound style file."""
    bad = Evil(BAD)
    length = int.from_bytes(whole[:8], "little")

    def header(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
        return changed_header(whole, change)

    yield "z-unchanged.safetensors", header(lambda tensors, fields: None), Evil(GOOD)
    yield "z-called-png.png", whole, Evil(GOOD)
    yield "z-style.safetensors", style, bad
    for bit in range(0, 64, 9):
        yield f"z-length-{bit}.safetensors", (length ^ 1 << bit).to_bytes(8, "little") + whole[8:], bad
    yield "z-half.safetensors", whole[: len(whole) // 2], bad
    yield "z-longer.safetensors", whole + b"\0", bad
    yield "z-dtype.safetensors", header(lambda t, f: t["z_base"].update(dtype="I16")), bad
    yield "z-wide.safetensors", header(lambda t, f: t["z_base"].update(dtype="F64")), bad
    yield (
        "z-shape.safetensors",
        header(lambda t, f: t["z_base"].update(shape=t["z_base"]["shape"][::-1])),
        bad,
    )
    yield "z-name.safetensors", header(lambda t, f: t.update(z_other=t.pop("z_base"))), bad
    yield "z-future.safetensors", header(lambda t, f: f.update(version=2)), bad
    yield "z-other-model.safetensors", header(lambda t, f: f.update(weights_sha256="0" * 64)), bad
    yield "z-other-preset.safetensors", header(lambda t, f: f.update(preset="small")), bad
    yield "z-size.safetensors", header(lambda t, f: f.update(width=10**9, height=10**9)), bad
    yield (
        "z-picture.safetensors",
        header(lambda t, f: f.update(picture={"alpha": "AAAA", "icc": "!"})),
        Evil(EITHER),
    )
    unchanged = header(lambda tensors, fields: None)
    yield "z-nan.safetensors", unchanged[:-2] + struct.pack("<e", float("nan")), bad
    yield "z-infinite.safetensors", unchanged[:-2] + struct.pack("<e", float("inf")), bad
    yield "z-no-tensors.safetensors", struct.pack("<Q", 2) + b"{}", bad
    yield "z-deep.safetensors", struct.pack("<Q", 10**5) + b'{"a":' + b"[" * (10**5 - 5), bad


def make_evil_files(folder: Path, latents: bytes, style: bytes, weights: Path) -> dict[str, Evil]:
    """Write all of them and say what has to become of each, by name."""
    expected: dict[str, Evil] = {}
    for part in (kinds(), bombs(), damaged(), latent_files(latents, style)):
        for name, data, evil in part:
            assert name not in expected
            (folder / name).write_bytes(data)
            expected[name] = evil
    shutil.copy(weights, folder / "weights.safetensors")
    (folder / "folder.jpg").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "to-nowhere.png").symlink_to("nowhere.png")
    for name in ("weights.safetensors", "folder.jpg", "loop.png", "to-nowhere.png", "gone.png"):
        expected[name] = Evil(BAD)
    assert len({Path(name).stem for name in expected}) == len(expected)
    return expected
