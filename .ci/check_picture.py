"""Check that a result is a PNG of the content's size that differs from the content."""

import sys

from PIL import Image, ImageChops, ImageOps, ImageStat


def main(content_path: str, result_path: str) -> None:
    with Image.open(content_path) as content, Image.open(result_path) as result:
        upright = ImageOps.exif_transpose(content).convert("RGB")
        if result.format != "PNG" or result.size != upright.size:
            sys.exit(f"{result_path} is {result.format} {result.size}, not PNG {upright.size}")
        difference = ImageStat.Stat(ImageChops.difference(upright, result.convert("RGB"))).mean
    if max(difference) < 1:
        sys.exit(f"{result_path} is the content again: mean difference {difference} of 255")
    print(f"{result_path}: PNG {upright.size}, mean difference {[round(d, 1) for d in difference]} of 255")


main(*sys.argv[1:])
