"""Before and after, at 200 %: the sheets docs/denoise.jpg and docs/upscale.jpg.

    python benchmarks/restoration_crops.py docs/ kodim04.png@200,190 kodim07.png@420,200 …

Each picture is damaged as a whole, restored as the command line does it (the level estimated from the 8-bit
picture), and cropped at LEFT,TOP.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pmavae.restoration.levels import Levels, estimate_levels
from pmavae.restoration.network import Restorer
from pmavae.restoration.tiles import restore_pixels
from pmavae.training.degradation import shrink
from pmavae.training.evaluation import read_rgb

CROP, ZOOM, LABEL = 128, 2, 18  # px


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


def compressed(pixels: np.ndarray, quality: int) -> tuple[np.ndarray, dict[int, list[int]]]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        tables = dict(image.quantization)
        return np.asarray(image.convert("RGB")), tables


def denoised(model: Restorer, pixels: np.ndarray) -> dict[str, np.ndarray]:
    columns = {}
    for sigma in (25, 50):
        damaged = noisy(pixels, sigma)
        columns[f"noise {sigma}"] = damaged
        columns[f"denoise ({sigma})"] = restore_pixels(model, damaged, estimate_levels(damaged).within())
    damaged, tables = compressed(pixels, 10)
    columns["JPEG 10"] = damaged
    columns["denoise (JPEG)"] = restore_pixels(model, damaged, estimate_levels(damaged, tables).within())
    return columns | {"original": pixels}


def upscaled(model: Restorer, pixels: np.ndarray) -> dict[str, np.ndarray]:
    columns = {}
    pixels = pixels[: pixels.shape[0] // 4 * 4, : pixels.shape[1] // 4 * 4]
    size = pixels.shape[1], pixels.shape[0]
    for scale in (2, 4):
        small = shrink(pixels, scale)
        bicubic = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        columns[f"bicubic x{scale}"] = np.asarray(bicubic)
        columns[f"upscale x{scale}"] = restore_pixels(model, small, Levels(), scale=scale)
    return columns | {"original": pixels}


def sheet(rows: list[dict[str, np.ndarray]], places: list[tuple[int, int]]) -> Image.Image:
    side = CROP * ZOOM
    made = Image.new("RGB", (len(rows[0]) * side, LABEL + len(rows) * side), "white")
    draw = ImageDraw.Draw(made)
    for number, (columns, (left, top)) in enumerate(zip(rows, places, strict=True)):
        for column, (name, pixels) in enumerate(columns.items()):
            crop = Image.fromarray(pixels[top : top + CROP, left : left + CROP])
            made.paste(
                crop.resize((side, side), Image.Resampling.NEAREST), (column * side, LABEL + number * side)
            )
            if number == 0:
                draw.text((column * side + 4, 3), name, fill="black")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the two sheets")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE@LEFT,TOP")
    parser.add_argument("--denoise", default="tiny", help="weights")
    parser.add_argument("--upscale", default="tiny", help="weights")
    args = parser.parse_args()
    named = [picture.rsplit("@", 1) for picture in args.pictures]
    pictures = [read_rgb(Path(name)) for name, _ in named]
    places = [tuple(map(int, place.split(","))) for _, place in named]
    for task, restored in (("denoise", denoised), ("upscale", upscaled)):
        model = Restorer.from_pretrained(getattr(args, task), task=task)
        rows = [restored(model, pixels) for pixels in pictures]
        sheet(rows, places).save(args.out / f"{task}.jpg", quality=90)


if __name__ == "__main__":
    main()
