"""Reading pictures of every kind, and writing them with what they came with."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms
from PIL.ExifTags import Base

from pmavae.errors import ImageError
from pmavae_cli.images.formats import FORMATS, OutputError, format_named
from pmavae_cli.images.metadata import HEADER_BUDGET, fit_header, pack, pack_alpha, unpack, unpack_alpha
from pmavae_cli.images.reading import Picture, read_picture
from pmavae_cli.images.writing import render_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def file_of(image: Image.Image, kind: str = "PNG", **settings: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    stream.seek(0)
    return stream


def read(image: Image.Image, kind: str = "PNG", **settings: object) -> Picture:
    return read_picture(file_of(image, kind, **settings), "a.png")


def difference(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).max())


def render(
    carried: dict[str, str], kind: str, size: tuple[int, int] = (48, 40)
) -> tuple[Image.Image, list[str]]:
    data, notes = render_picture(np.asarray(picture(size)), carried, format_named(kind), 95)
    image = Image.open(io.BytesIO(data))
    image.load()
    return image, notes


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_applied_once_and_gone(orientation: int) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif[Base.Artist] = "somebody"
    found = read(picture(), exif=exif)
    assert np.array_equal(np.asarray(found.pixels), TURNS[orientation](np.asarray(picture())))
    kept = Image.Exif()
    kept.load(unpack(found.carried, "exif") or b"")
    assert dict(kept) == {Base.Artist: "somebody"}


def test_a_picture_without_metadata_carries_nothing() -> None:
    assert read(picture()).carried == {}


def test_metadata_of_a_tiff_file_says_nothing_about_its_layout() -> None:
    exif = Image.Exif()
    exif[Base.Artist] = "somebody"
    found = read(picture(), "TIFF", exif=exif, compression="tiff_lzw", icc_profile=SRGB)
    kept = Image.Exif()
    kept.load(unpack(found.carried, "exif") or b"")
    assert dict(kept) == {Base.Artist: "somebody"}
    assert unpack(found.carried, "icc") == SRGB


def test_metadata_that_cannot_be_parsed_does_not_cost_the_picture() -> None:
    found = read(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert np.array_equal(np.asarray(found.pixels), np.asarray(picture()))


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_pictures_are_known_as_such(mode: str) -> None:
    grey = picture().convert("L")
    grey = grey if mode == "L" else grey.convert(mode)
    found = read(grey)
    assert found.carried["mode"] == "L"
    assert difference(found.pixels, grey.convert("RGB")) == 0


def test_alpha_of_every_kind_is_carried() -> None:
    alpha = picture(seed=2).convert("L")
    rgba = picture()
    rgba.putalpha(alpha)
    found = read(rgba)
    kept = unpack_alpha(found.carried)
    assert kept is not None
    assert difference(kept, alpha) == 0
    assert difference(found.pixels, picture()) == 0
    grey = picture().convert("LA")
    grey.putalpha(alpha)
    assert set(read(grey).carried) == {"alpha", "mode"}
    palette = picture().quantize(16)
    kept = unpack_alpha(read(palette, transparency=3).carried)
    assert kept is not None
    assert np.array_equal(np.asarray(kept) == 0, np.asarray(palette) == 3)
    assert "alpha" not in read(palette).carried


def test_alpha_is_turned_with_its_picture() -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    rgba = picture()
    rgba.putalpha(picture(seed=2).convert("L"))
    found = read(rgba, exif=exif)
    kept = unpack_alpha(found.carried)
    assert kept is not None
    assert kept.shape == found.pixels.shape[:2] == (48, 40)


def test_cmyk_becomes_rgb_and_its_profile_stays_behind() -> None:
    found = read(picture().convert("CMYK"), "TIFF", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 200)
    assert difference(found.pixels, picture()) <= 1
    assert "icc" not in found.carried


def test_of_an_animation_the_first_frame_is_used_and_said() -> None:
    frames = [picture(seed=s) for s in range(3)]
    found = read(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert found.notes == ("the first of its 3 frames is used",)
    assert difference(found.pixels, frames[0]) == 0


def test_a_picture_too_small_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"a\.png is 48×15 px, and both sides must be at least 16 px"):
        read(picture((48, 15)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with pytest.raises(ImageError, match="million pixels: make it smaller"):
        read(picture((48, 40)))  # a warning of Pillow
    with pytest.raises(ImageError, match="million pixels: make it smaller"):
        read(picture((100, 100)))  # an error of Pillow


def test_pixels_of_an_unusual_kind_are_refused() -> None:
    with pytest.raises(ImageError, match=r"a\.png has pixels of kind F"):
        read(picture().convert("F"), "TIFF")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("eighths", range(8))
def test_a_truncated_file_is_refused_in_one_sentence(kind: str, eighths: int) -> None:
    data = file_of(picture((64, 64)), kind).getvalue()
    part = data[: len(data) * eighths // 8]
    with pytest.raises(ImageError, match=r"a\.png is (empty|damaged|neither)") as error:
        read_picture(io.BytesIO(part), "a.png")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [f.name for f in FORMATS if f.is_image])
def test_each_format_keeps_what_it_can(kind: str) -> None:
    exif = Image.Exif()
    exif[Base.Artist] = "somebody"
    alpha = picture(seed=2).convert("L")
    carried = {"icc": pack(SRGB), "exif": pack(exif.tobytes()), "alpha": pack_alpha(np.asarray(alpha))}
    image, notes = render(carried, kind)
    form = format_named(kind)
    assert image.size == (48, 40)
    assert difference(image.convert("RGB"), picture()) <= (60 if kind in ("jpg", "webp", "avif") else 0)
    assert (image.info.get("icc_profile") == SRGB) is form.icc
    assert (image.getexif().get(Base.Artist) == "somebody") is form.exif
    if form.alpha:
        assert difference(image.getchannel("A"), alpha) <= (24 if kind == "avif" else 0)
        assert not notes
    else:
        assert image.mode == "RGB"
        assert notes == [f"{kind} cannot hold its transparency, which is left out"]


@pytest.mark.parametrize("kind", [f.name for f in FORMATS if f.is_image])
def test_grey_stays_grey_without_a_profile_of_colours(kind: str) -> None:
    image, _ = render({"mode": "L", "icc": pack(SRGB)}, kind)
    assert image.mode == ("L" if format_named(kind).grey else "RGB")
    channels = np.asarray(image.convert("RGB"))
    assert np.array_equal(channels[..., 0], channels[..., 2])
    assert ("icc_profile" in image.info) is (kind in ("webp", "avif"))


def test_jpeg_keeps_all_colour_and_leaves_out_oversized_metadata() -> None:
    from PIL import JpegImagePlugin

    image, notes = render({"exif": pack(b"Exif\0\0" + b"\0" * 70_000)}, "jpg")
    assert JpegImagePlugin.get_sampling(image) == 0
    assert notes == ["jpg cannot hold so much EXIF metadata, which is left out"]


def test_alpha_follows_the_size_of_the_output() -> None:
    image, _ = render({"alpha": pack_alpha(np.full((20, 24), 77, np.uint8))}, "png")
    assert (image.mode, image.size) == ("RGBA", (48, 40))
    assert set(np.asarray(image)[..., 3].ravel()) == {77}


def test_a_picture_too_large_for_its_format_is_refused() -> None:
    with pytest.raises(OutputError, match="too large for webp"):
        render_picture(np.zeros((16, 16_400, 3), np.uint8), {}, format_named("webp"), 95)


@pytest.mark.parametrize("carried", [{"icc": "?"}, {"alpha": "?"}, {"alpha": pack(b"no picture")}])
def test_damaged_carried_data_is_refused(carried: dict[str, str]) -> None:
    with pytest.raises(ImageError, match="that the latents carry is damaged"):
        render(carried, "png")


def test_what_a_latent_file_cannot_hold_gives_way_with_a_note() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000), dtype=np.uint8)
    carried = {"alpha": pack_alpha(noise), "icc": pack(SRGB)}
    kept, notes = fit_header(carried)
    alpha = unpack_alpha(kept)
    assert alpha is not None
    assert alpha.shape == (500, 500)
    assert kept["icc"] == carried["icc"]
    assert sum(map(len, kept.values())) <= HEADER_BUDGET
    assert len(notes) == 1
    kept, notes = fit_header({"icc": "x" * (HEADER_BUDGET + 1), "exif": "x"})
    assert (kept, len(notes)) == ({"exif": "x"}, 1)
    assert fit_header({"mode": "L"}) == ({"mode": "L"}, [])


def test_a_huge_profile_does_not_cost_the_transparency() -> None:
    alpha = pack_alpha(np.asarray(picture().convert("L")))
    kept, notes = fit_header({"alpha": alpha, "icc": "A" * (HEADER_BUDGET + 1), "exif": "AAAA"})
    assert kept == {"alpha": alpha, "exif": "AAAA"}
    assert any("colour profile" in note for note in notes)
    assert not any("transparency" in note for note in notes)
