"""Noise and JPEG quality, told from pictures that were damaged by a known amount."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pmavae.restoration.levels import (
    Levels,
    estimate_levels,
    noise_level,
    quality_of_pixels,
    quality_of_tables,
)

Pixels = NDArray[np.uint8]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))
PHOTOS = [path for path in EXAMPLES if path.name.startswith("content")]


def clean(path: Path) -> Pixels:
    """An example at a third of its size or less, where nothing of its own JPEG is left."""
    with Image.open(path) as image:
        size = min(image.width // 3, 480), min(image.height // 3, 360)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))


def noisy(pixels: Pixels, sigma: float, *, grey: bool = False) -> Pixels:
    """With Gaussian noise, as a file has it: clipped and rounded."""
    noise = np.random.default_rng(7).normal(0, sigma, (*pixels.shape[:2], 1 if grey else 3))
    return (pixels + noise).clip(0, 255).round().astype(np.uint8)


def jpeg(pixels: Pixels, quality: int, subsampling: int = 2) -> tuple[Pixels, dict[int, list[int]]]:
    """Decoded, and the tables of the file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(stream) as image:
        return np.asarray(image), image.quantization  # type: ignore[attr-defined]


def line_art() -> Pixels:
    """Black strokes with soft edges on white paper."""
    image = Image.new("L", (800, 600), 255)
    draw = ImageDraw.Draw(image)
    for k in range(40):
        draw.line((20 * k, 0, 790 - 13 * k, 600), fill=0, width=1 + k % 4)
        draw.ellipse((15 * k, 9 * k, 15 * k + 70, 9 * k + 90), outline=0, width=2)
    return np.asarray(image.resize((400, 300), Image.Resampling.BOX).convert("RGB"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_noise_is_measured_after_clipping(path: Path, sigma: float) -> None:
    # A shrunk painting has no smooth place: its texture adds to weak noise.
    tolerance = 0.1 if path in PHOTOS or sigma > 10 else 0.3
    assert noise_level(noisy(clean(path), sigma)) == pytest.approx(sigma, rel=tolerance)


def test_noise_is_right_on_average() -> None:
    for sigma in (10, 15, 25, 35, 50):
        levels = [noise_level(noisy(clean(path), sigma)) for path in PHOTOS]
        assert np.mean(levels) == pytest.approx(sigma, rel=0.05)


def test_noise_in_the_dark_is_that_before_clipping() -> None:
    dark = np.full((160, 160, 3), 40, np.uint8)
    assert noisy(dark, 35).std() < 32
    assert noise_level(noisy(dark, 35)) == pytest.approx(35, rel=0.05)


def test_photon_noise_reads_as_its_rms() -> None:
    pixels = clean(PHOTOS[0])
    gain = 15**2 / pixels.mean()
    damaged = (np.random.default_rng(0).poisson(pixels / gain) * gain).clip(0, 255).round().astype(np.uint8)
    assert noise_level(damaged) == pytest.approx(15, rel=0.2)


def test_noise_is_the_rms_over_unequal_channels() -> None:
    pixels = np.full((240, 320, 3), 120, np.float64)
    pixels += np.random.default_rng(0).normal(0, (4, 10, 16), pixels.shape)
    assert noise_level(pixels.round().astype(np.uint8)) == pytest.approx(11.14, rel=0.1)


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_clean_photographs_have_little_noise(path: Path) -> None:
    assert noise_level(clean(path)) < 3


def test_what_has_no_texture_has_no_noise() -> None:
    flat = np.full((64, 64, 3), 127, np.uint8)
    saturated = np.zeros((64, 64, 3), np.uint8)
    saturated[:, 30:] = 255
    ramp = np.repeat(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    for pixels in (flat, saturated, ramp, line_art(), flat[:16, :16], saturated[:16, 20:36]):
        assert estimate_levels(pixels) == Levels()


def test_borders_and_burnt_skies_do_not_hide_noise() -> None:
    pixels = noisy(clean(PHOTOS[0]), 15)
    height, width = pixels.shape[:2]
    framed = np.zeros((2 * height, 2 * width, 3), np.uint8)
    framed[: height // 2] = 255
    framed[height // 2 : height // 2 + height, 40 : 40 + width] = pixels
    assert noise_level(framed) == pytest.approx(15, rel=0.15)


def test_noise_everywhere_is_seen_and_not_in_a_corner_only() -> None:
    pixels = np.full((1200, 1600, 3), 128, np.uint8)
    pixels[700:, 900:] = noisy(pixels[700:, 900:], 20)
    assert noise_level(pixels) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 400), (37, 19)])
def test_small_pictures(height: int, width: int) -> None:
    pixels = noisy(np.full((height, width, 3), 128, np.uint8), 20)
    assert noise_level(pixels) == pytest.approx(20, rel=0.2)
    for quality in (10, 90):
        level = estimate_levels(*jpeg(pixels, quality))
        assert level.jpeg == quality and 0 <= level.noise < 40


def test_every_quality_of_a_file_is_told_from_its_tables() -> None:
    pixels = clean(PHOTOS[0])[:16, :16]
    assert [quality_of_tables(jpeg(pixels, quality)[1]) for quality in range(1, 101)] == list(range(1, 101))


def test_tables_of_other_programs_get_the_nearest_quality() -> None:
    tables = jpeg(clean(PHOTOS[0])[:16, :16], 75)[1]
    tuned = {0: [max(1, step + (-1) ** i) for i, step in enumerate(tables[0])], 1: [255] * 64}
    assert quality_of_tables(tuned) == pytest.approx(75, abs=2)
    assert quality_of_tables({0: [1000] * 64}) == 1


@pytest.mark.parametrize(
    "tables",
    [{}, {1: [1] * 64}, {0: [1] * 63}, {0: [0] + [1] * 63}, {0: [-4] * 64}, {0: [float("nan")] * 64}],
)
def test_damaged_tables_are_refused(tables: dict[int, list[int]]) -> None:
    with pytest.raises(ValueError, match="64 positive numbers"):
        quality_of_tables(tables)
    with pytest.raises(ValueError, match="64 positive numbers"):
        estimate_levels(np.zeros((16, 16, 3), np.uint8), tables)


@pytest.mark.parametrize("quality", [10, 20, 30, 50, 70, 80, 90])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_an_older_jpeg_is_found_in_the_pixels(quality: int, subsampling: int) -> None:
    for path in EXAMPLES:
        assert quality_of_pixels(jpeg(clean(path), quality, subsampling)[0]) == pytest.approx(quality, abs=3)


def test_an_older_jpeg_is_found_in_grey_line_art_and_in_clipped_colours() -> None:
    grey_paper = 40 + line_art() // 2  # on white paper, what decoding clips leaves no lattice
    assert quality_of_pixels(jpeg(grey_paper, 40)[0]) == pytest.approx(40, abs=3)
    grey = np.asarray(Image.fromarray(clean(PHOTOS[0])).convert("L").convert("RGB"))
    assert quality_of_pixels(jpeg(grey, 60)[0]) == 60
    bright = clean(PHOTOS[0]).astype(np.int64) * 2
    assert quality_of_pixels(jpeg(bright.clip(0, 255).astype(np.uint8), 15)[0]) == pytest.approx(15, abs=3)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_was_no_jpeg_is_not_called_one(path: Path) -> None:
    pixels = clean(path)
    assert quality_of_pixels(pixels) is None
    assert quality_of_pixels(noisy(pixels, 10)) is None
    assert quality_of_pixels(jpeg(pixels, 50)[0][5:, 3:]) is None


def test_a_repeated_tile_is_no_jpeg() -> None:
    tile = np.random.default_rng(0).integers(40, 200, (8, 8, 3)).astype(np.uint8)
    assert quality_of_pixels(np.tile(tile, (40, 40, 1))) is None


@pytest.mark.parametrize("quality", [10, 30, 50, 70])
def test_artefacts_of_jpeg_are_not_noise(quality: int) -> None:
    for path in PHOTOS:
        pixels, tables = jpeg(clean(path), quality)
        assert estimate_levels(pixels, tables) == Levels(0.0, quality)


@pytest.mark.parametrize(("sigma", "quality"), [(10, 90), (25, 90), (25, 70), (35, 70)])
def test_noise_before_jpeg_is_inferred(sigma: float, quality: int) -> None:
    levels = []
    for path in PHOTOS:
        pixels, tables = jpeg(noisy(clean(path), sigma), quality)
        level = estimate_levels(pixels, tables)
        assert level == estimate_levels(pixels)
        levels.append(level.noise)
    assert np.mean(levels) == pytest.approx(sigma, rel=0.15)


def test_noise_of_grey_pictures_is_not_taken_for_three_channels() -> None:
    pixels = np.full((240, 320, 3), 128, np.uint8)
    stored, tables = jpeg(noisy(pixels, 15, grey=True), 90)
    assert estimate_levels(stored, tables).noise == pytest.approx(15, rel=0.1)


def test_a_jpeg_of_the_highest_quality_is_none() -> None:
    pixels = noisy(clean(PHOTOS[0]), 20)
    level = estimate_levels(*jpeg(pixels, 96))
    assert level.jpeg is None
    assert level.noise == pytest.approx(20, rel=0.15)
    assert estimate_levels(*jpeg(pixels, 95)).jpeg == 95


def test_the_same_picture_has_the_same_levels_and_stays_as_it_is() -> None:
    pixels, _ = jpeg(noisy(clean(PHOTOS[1]), 12), 85)
    before = pixels.copy()
    assert estimate_levels(pixels) == estimate_levels(pixels) == estimate_levels(np.asfortranarray(pixels))
    assert (pixels == before).all()
