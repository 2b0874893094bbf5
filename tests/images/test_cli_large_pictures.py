"""Pictures with more pixels than are read as a whole: read, encoded, decoded and written by strips."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from conftest import Command, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pmavae import PMAVAE, PRESETS
from pmavae.errors import ImageError
from pmavae.files.latent_file import read_latents
from pmavae.images.pixels import ArrayRows, Pixels, RowSource, sixteen_bits
from pmavae_cli.images import codecs, strips
from pmavae_cli.images.formats import Output, OutputError, format_named
from pmavae_cli.images.large import MAX_PIXELS, _Sequence, open_large
from pmavae_cli.images.metadata import Extras, pack
from pmavae_cli.images.reading import TooLargeError, read_picture
from pmavae_cli.images.strips import write_strips
from pmavae_cli.images.writing import render_picture
from pmavae_cli.options import RunOptions
from pmavae_cli.run.checks import pixels_of as pixels_of_file

SIZE = (210, 150)
LIMIT = 10_000  # pixels that are read as a whole in these tests
EXIF = Image.Exif()
EXIF[0x010E] = "a wall"


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)


def profile_of(grey: bool = False) -> bytes:
    """One that is far from sRGB."""
    if not grey:
        return adobe_like()
    text, gamma = b"desc" + bytes(4) + b"\0\0\0\5grey\0" + bytes(79), b"curv" + struct.pack(">IIH", 0, 1, 256)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    tags = [(b"desc", text + bytes(-len(text) % 4)), (b"kTRC", gamma + bytes(2)), (b"wtpt", white)]
    table, data, place = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    size = place + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data


def adobe_like() -> bytes:
    plain = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    place = 128 + 4
    for entry in range(int.from_bytes(plain[128:132], "big")):
        name, start, _ = struct.unpack(">4sII", plain[place + 12 * entry : place + 12 * entry + 12])
        if name == b"rXYZ":  # a red that is further out
            plain[start + 8 : start + 12] = struct.pack(">i", 39900)
    return bytes(plain)


def pixels_of(deep: bool, grey: bool) -> Pixels:
    found: Pixels = np.asarray(picture(SIZE))
    if grey:
        found = found[..., :1].repeat(3, axis=2)
    if deep:
        noise = np.random.default_rng(0).integers(0, 200, found.shape[:2], np.uint16)
        return sixteen_bits(found) // 2 + noise[..., None]
    return found


def file_of(name: str, pixels: Pixels, grey: bool, profile: bytes, **more: Any) -> bytes:
    channels = np.ascontiguousarray(pixels[..., 0] if grey else pixels)
    if name == "png" and pixels.dtype == np.uint16:
        data = bytes(imagecodecs.png_encode(channels))
        return data[:33] + codecs.png_metadata(Extras(profile, EXIF.tobytes())) + data[33:]
    stream = io.BytesIO()
    if name.startswith("tiff"):
        photometric = "minisblack" if grey else "rgb"
        tifffile.imwrite(stream, channels, photometric=photometric, iccprofile=profile or None, **more)
    else:
        Image.fromarray(channels).save(stream, name, icc_profile=profile, exif=EXIF, **more)
    return stream.getvalue()


def opened(place: bytes | Path, name: str = "a") -> Any:
    error = TooLargeError("too large")
    error.pixels = SIZE[0] * SIZE[1]
    return open_large(place, name, error)


@pytest.mark.parametrize("profiled", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("name", "deep", "more"),
    [
        ("png", False, {}),
        ("png", True, {}),
        ("jpeg", False, {"quality": 90}),
        ("tiff", False, {"compression": "zlib"}),
        ("tiff", True, {"compression": "zlib", "rowsperstrip": 7}),
        ("tiff", True, {"tile": (64, 48)}),
        ("tiff", False, {"bigtiff": True}),
    ],
)
def test_strips_are_the_picture(
    name: str, deep: bool, more: dict[str, Any], grey: bool, profiled: bool, tmp_path: Path
) -> None:
    data = file_of(name, pixels_of(deep, grey), grey, profile_of(grey) if profiled else b"", **more)
    whole = read_picture(io.BytesIO(data), "a")
    assert "icc" in whole.carried or not profiled
    path = tmp_path / "file"
    path.write_bytes(data)
    for place in (data, path):
        found = opened(place)
        rows = found.rows
        assert isinstance(rows, RowSource)
        assert rows.shape == whole.pixels.shape and rows.dtype == whole.pixels.dtype
        assert found.carried == whole.carried and found.notes == whole.notes
        for _ in range(2):
            joined = np.concatenate([rows.rows(top, min(top + 40, SIZE[1])) for top in range(0, SIZE[1], 40)])
            assert np.array_equal(joined, whole.pixels)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 600)), min_size=1), max_size=3))
def test_any_windows_that_go_down(passes: list[list[tuple[int, int]]]) -> None:
    height = 1000
    whole = np.arange(height * 6, dtype=np.uint16).reshape(height, 2, 3)
    place = 0

    def start() -> Any:
        nonlocal place
        place = 0

        def read(first: int, last: int) -> Pixels:
            nonlocal place
            assert place <= first < last <= height, "rows come only in their order"
            place = last
            return whole[first:last]

        return read

    rows = _Sequence(start, height)
    for windows in passes:
        for first, count in sorted(windows, key=lambda window: window[0]):
            last = min(first + count, height)
            assert np.array_equal(rows.rows(first, last), whole[first:last])


def carried_of(deep: bool, grey: bool, profiled: bool) -> dict[str, str]:
    carried = {"exif": pack(EXIF.tobytes()), "xmp": pack(b"<x:xmpmeta/>")}
    if deep:
        carried["depth"] = "16"
    if grey:
        carried["mode"] = "L"
    if profiled:
        carried["icc"] = pack(profile_of(grey))
    return carried


def in_strips(pixels: Pixels) -> Iterator[Pixels]:
    edges = [0, 1, 17, 18, 90, 101, len(pixels)]
    return (pixels[top:bottom] for top, bottom in pairwise(edges))


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "_FILTERED_BYTES", 13 * 3 * SIZE[0])
    monkeypatch.setattr(codecs, "_STRIP_BYTES", 11 * 3 * SIZE[0])
    monkeypatch.setattr(strips, "_MOST_ROWS", 16)


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("profiled", [False, True])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("name", "deep"), [("png", False), ("png", True), ("tiff", False), ("tiff", True), ("jpg", False)]
)
def test_what_is_written_by_strips_is_what_is_written_whole(
    name: str, deep: bool, grey: bool, profiled: bool, tmp_path: Path
) -> None:
    pixels, carried, form = pixels_of(deep, grey), carried_of(deep, grey, profiled), format_named(name)
    expected, _ = render_picture(pixels, carried, form, 90)
    path = tmp_path / f"out.{name}"
    notes = write_strips(Output(path, form), in_strips(pixels), SIZE, carried, 90, False)
    assert not notes and [*tmp_path.iterdir()] == [path]
    ours, whole = read_picture(io.BytesIO(path.read_bytes()), "a"), read_picture(io.BytesIO(expected), "a")
    assert np.array_equal(ours.pixels, whole.pixels)
    assert ours.carried == whole.carried and {"exif", "xmp"} <= ours.carried.keys()
    assert len(path.read_bytes()) < 1.25 * len(expected)
    if name == "tiff":  # byte for byte, whatever strips the rows came in
        assert path.read_bytes() == expected


def test_a_tiff_file_beyond_four_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "MOST", 1000)
    monkeypatch.setattr(codecs, "_STRIP_BYTES", 11 * 3 * SIZE[0])
    pixels, path = pixels_of(True, False), tmp_path / "a.tif"
    write_strips(
        Output(path, format_named("tif")), in_strips(pixels), SIZE, carried_of(True, False, False), 90, False
    )
    assert path.read_bytes()[:4] == b"II+\0"
    assert np.array_equal(tifffile.imread(path), pixels)
    found = read_picture(io.BytesIO(path.read_bytes()), "a")
    assert np.array_equal(found.pixels, pixels) and "exif" in found.carried


@pytest.mark.parametrize("ending", [KeyboardInterrupt, ImageError])
@pytest.mark.parametrize("name", ["png", "tif", "jpg"])
def test_nothing_is_left_of_a_picture_that_ends_early(
    name: str, ending: type[BaseException], tmp_path: Path
) -> None:
    def broken() -> Iterator[Pixels]:
        yield pixels_of(False, False)[:140]
        raise ending("x")

    path = tmp_path / f"a.{name}"
    for before in (None, b"older"):
        if before:
            path.write_bytes(before)
        with pytest.raises(ending, match="x"):
            write_strips(Output(path, format_named(name)), broken(), SIZE, {}, 90, True)
        assert [*tmp_path.iterdir()] == ([path] if before else [])
    assert path.read_bytes() == b"older"


def test_a_file_that_comes_up_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.png"

    def slow() -> Iterator[Pixels]:
        path.write_bytes(b"other")
        yield pixels_of(False, False)

    with pytest.raises(OutputError, match="someone else"):
        write_strips(Output(path, format_named("png")), slow(), SIZE, {}, 90, False)
    assert path.read_bytes() == b"other" and [*tmp_path.iterdir()] == [path]


@pytest.mark.usefixtures("low")
def test_encode_and_decode_go_by_strips(pmavae: Command, weights: str, here: Path) -> None:
    pixels = pixels_of(True, False)
    Path("a.png").write_bytes(file_of("png", pixels, False, b""))
    assert (
        pmavae("encode", "a.png", "--weights", weights, "-o", "a.safetensors", "--dtype", "float32").status
        == 0
    )
    model = PMAVAE.from_pretrained(weights)
    expected = model.encode(ArrayRows(pixels))
    found, _ = read_latents("a.safetensors", PRESETS.__getitem__)
    for name in ("z_base", "z_detail", "z_style"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    whole = model.decode_pixels(found, np.uint16)
    for name in ("b.png", "b.tif"):
        done = pmavae(
            *("decode", "a.safetensors", "--weights", weights, "-o", name, "--json", "--dtype", "float32")
        )
        assert done.status == 0 and b'"width": 210' in done.out
    assert np.array_equal(imagecodecs.imread("b.png"), whole)
    assert np.array_equal(tifffile.imread("b.tif"), whole)
    to_stdout = pmavae(
        "decode", "a.png", "--weights", weights, "-o", "-", "--format", "tif", "--dtype", "float32"
    )
    assert to_stdout.out == Path("b.tif").read_bytes()
    assert b"a wall" in to_stdout.out
    piped = pmavae(
        "encode",
        "-",
        "--weights",
        weights,
        "-o",
        "c.safetensors",
        "--dtype",
        "float32",
        stdin=Path("a.png").read_bytes(),
    )
    assert piped.status == 0 and Path("c.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
    assert {path.name for path in here.iterdir()} == {
        "a.png",
        "a.safetensors",
        "b.png",
        "b.tif",
        "c.safetensors",
    }


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("turned.jpg", {"exif": 6}, "turn the pixels first"),
        ("ink.jpg", {"mode": "CMYK"}, "pixels of kind cmyk"),
        ("other.webp", {}, "of its format only smaller ones are read; convert it to TIFF first"),
        ("cut.png", {"cut": 0.6}, "is damaged or truncated"),
        ("cut.jpg", {"cut": 0.6}, "is damaged or truncated"),
        ("cut.tif", {"cut": 0.6}, "is damaged or truncated"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    name: str, settings: dict[str, Any], said: str, pmavae: Command, weights: str, here: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
    image = Image.fromarray(noise).convert(settings.get("mode", "RGB"))
    exif = Image.Exif()
    exif[0x0112] = settings.get("exif", 1)
    image.save(name, exif=exif)
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[: int(len(data) * settings.get("cut", 1))])
    done = pmavae("encode", name, "--weights", weights)
    assert done.status == 1 and not done.out
    assert done.err.count("\n") == 1 and name in done.err and said in done.err
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.usefixtures("low")
def test_transparency_is_left_out_with_a_note_and_a_mirror_is_undone(
    pmavae: Command, weights: str, here: Path
) -> None:
    image = picture(SIZE).convert("RGBA")
    image.putalpha(200)
    image.save("a.png")
    done = pmavae("encode", "a.png", "--weights", weights)
    assert done.status == 0 and "a.png: so large a picture is read without its transparency" in done.err


def test_a_mirrored_picture_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 2
    picture(SIZE).save(tmp_path / "b.jpg", exif=exif)
    with (tmp_path / "b.jpg").open("rb") as stream:
        whole = read_picture(stream, "b.jpg")
    assert np.array_equal(opened(tmp_path / "b.jpg").rows.rows(0, SIZE[1]), whole.pixels)


@pytest.mark.usefixtures("low")
def test_other_tasks_say_what_can_be_done(pmavae: Command, weights: str, here: Path) -> None:
    picture(SIZE).save("a.png")
    for task in (("style-mix", "a.png", "a.png"), ("encode", "a.png", "--only", "style")):
        done = pmavae(*task, "--weights", weights, "-o", "b.safetensors")
        assert done.status == 1
        assert "million pixels: make it smaller first" in done.err
        assert "pmavae encode and pmavae decode take more" in done.err


@pytest.mark.usefixtures("low")
def test_without_the_extra(
    pmavae: Command, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(SIZE).save("a.png")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    done = pmavae("encode", "a.png", "--weights", weights)
    assert done.status == 1 and "a.png has 0 million pixels: pip install 'pmavae[large]' reads" in done.err


def test_a_header_that_claims_too_much_is_all_that_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = TooLargeError("too large")
    error.pixels = MAX_PIXELS + 1_000_000
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(
        ImageError, match=r"^a has 1001 million pixels: make it smaller first, to 1000 million"
    ):
        open_large(b"\x89PNG", "a", error)


@pytest.mark.usefixtures("low")
def test_the_room_that_is_looked_for_counts_what_will_be_read(tmp_path: Path) -> None:
    picture(SIZE).save(tmp_path / "a.png")
    assert pixels_of_file(tmp_path / "a.png", RunOptions()) == SIZE[0] * SIZE[1]
    header = bytearray((tmp_path / "a.png").read_bytes())
    header[16:24] = struct.pack(">II", 60_000, 60_000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    (tmp_path / "a.png").write_bytes(header)
    assert pixels_of_file(tmp_path / "a.png", RunOptions()) == 0
