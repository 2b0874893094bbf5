"""Makes the pictures of docs/gallery.md with the installed command.

    python benchmarks/gallery.py CONTENTS STYLES OUT [--work FOLDER]

CONTENTS and STYLES are folders with the pictures named below. What is in --work already is not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HEIGHT, GAP, LABEL = 320, 6, 22  # px, of a picture on a strip, between two, and of the line above
QUALITY = 84
Cell = tuple[str, list[str]]  # label, arguments of pmavae


def strips(contents: Path, styles: Path) -> dict[str, list[Cell]]:
    """The rows of pictures, each a name and what makes it."""

    def mix(content: str, *arguments: str) -> list[str]:
        return ["style-mix", str(contents / f"{content}.png"), *arguments]

    def style(name: str, weight: int = 1) -> str:
        return f"{styles / name}.jpg:{weight}"

    night, portrait = style("starry-night"), style("self-portrait")
    ramp = [
        (f"strength {s}", mix("castle", night, "--strength", s)) for s in ("0.2", "0.4", "0.6", "0.8", "1")
    ]
    blend = [("Starry Night", mix("china", night))]
    for a, b in ((3, 1), (1, 1), (1, 3)):
        blend.append(
            (f"{a} : {b}", mix("china", style("starry-night", a), "--style", style("self-portrait", b)))
        )
    blend.append(("Self-Portrait", mix("china", portrait)))
    colour: list[Cell] = []
    for content, name in (("astronaut", "daffodils"), ("bee", "starry-night")):
        colour.append((name, mix(content, style(name))))
        colour.append(("--preserve-color", mix(content, style(name), "--preserve-color")))
    scale = [(f"--style-scale {s}", mix("castle", portrait, "--style-scale", s)) for s in ("0.5", "1", "2")]
    return {"ramp": ramp, "blend": blend, "color": colour, "scale": scale}


def strip(pictures: list[tuple[str, Path]]) -> Image.Image:
    """Pictures of one height in a row, with their labels above."""
    scaled = []
    for label, path in pictures:
        picture = Image.open(path).convert("RGB")
        width = round(picture.width * HEIGHT / picture.height)
        scaled.append((label, picture.resize((width, HEIGHT), Image.Resampling.LANCZOS)))
    sheet = Image.new("RGB", (sum(p.width + GAP for _, p in scaled) - GAP, HEIGHT + LABEL), "white")
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(15), 0
    for label, picture in scaled:
        draw.text((left + 2, 2), label, "black", font)
        sheet.paste(picture, (left, LABEL))
        left += picture.width + GAP
    return sheet


def run(*arguments: str) -> None:
    subprocess.run(["pmavae", *arguments, "--skip-existing", "-q"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("contents", type=Path)
    parser.add_argument("styles", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        work = args.work or Path(name)
        grid = work / "grid.png"
        run("style-mix", str(args.contents), str(args.styles), "--grid", "-o", str(grid))
        sheet = Image.open(grid)
        half = sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS)
        half.save(args.out / "style-mix.jpg", quality=QUALITY)
        for title, cells in strips(args.contents, args.styles).items():
            pictures = []
            for number, (label, command) in enumerate(cells):
                path = work / f"{title}-{number}.png"
                run(*command, "-o", str(path))
                pictures.append((label, path))
            strip(pictures).save(args.out / f"gallery-{title}.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
