"""Time and memory of VMamba-T, ViT-S/16 and ConvNeXt-T against the side of a picture, 224 to 1536 px.

    pip install timm torchvision
    python benchmarks/vmamba_scaling.py [--sides 224,384,512,768,1024,1536] [--runs 3] [--threads 1]
        [--models vmamba-t,vit-s,vit-s-matrix,convnext-t] [--plot vmamba-scaling.png] [--json FILE]

Classification of one picture, float32, inference, random weights, none of which changes the cost. The ViT
is that of timm with positions interpolated for the size; `vit-s` computes attention in torch's fused form,
which has no n × n matrix in memory, `vit-s-matrix` writes that matrix. Every model and side has a process
of its own; those of one side take turns, so that what else the machine does disturbs them alike, and each
figure is the minimum of its runs. A pass that needs more than `--limit-gb` is told as out of memory.

Prints for every side and model the processor time, the wall time, the spread of the wall times (median over
minimum) and the most memory of a pass beyond that of the model at rest; then the exponents of processor
time and memory against the number of pixels, fitted by least squares over all sides and over those from
512 px: 1 is linear, 2 is quadratic. `--plot` draws both, without any library but Pillow. Needs Linux, which
tells the most memory of a process from /proc.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from any_torchvision import allow_any_torchvision

MODELS = {
    "vmamba-t": ("VMamba-T", (200, 60, 40)),
    "vit-s": ("ViT-S/16", (40, 90, 190)),
    "vit-s-matrix": ("ViT-S/16, matrix in memory", (120, 160, 220)),
    "convnext-t": ("ConvNeXt-T", (40, 140, 80)),
}
WARM = 160  # px; from there on all code of a pass has run, the compiled scan with it
LARGE = 512  # px, from which the second exponent is fitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", default="224,384,512,768,1024,1536")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-gb", type=float, default=12.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path, help="what was measured, or with --runs 0 what is read again")
    parser.add_argument("--point", nargs=2, metavar=("MODEL", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        serve(args.point[0], int(args.point[1]), args.threads, args.limit_gb)
        return
    if args.runs:
        points = measure(args)
        if args.json:
            args.json.write_text(json.dumps(points, indent=1) + "\n")
    else:
        points = json.loads(args.json.read_text())
    print_table(points)
    if args.plot:
        plot(points, args.plot)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every side and model."""
    points = []
    for side in map(int, args.sides.split(",")):
        children = {name: start(name, side, args) for name in args.models.split(",")}
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in children}
        for _ in range(args.runs):
            for name, child in children.items():
                assert child.stdin and child.stdout
                try:
                    child.stdin.write("go\n")
                    child.stdin.flush()
                    answer = json.loads(child.stdout.readline() or "null")
                except BrokenPipeError:
                    answer = None
                if answer:
                    runs[name].append(answer)
        for name, child in children.items():
            child.communicate()
            row: dict[str, Any] = {"model": name, "side": side}
            if len(runs[name]) == args.runs:
                walls = sorted(run["wall"] for run in runs[name])
                row |= {
                    "wall": walls[0],
                    "spread": walls[len(walls) // 2] / walls[0],
                    "processor": min(run["processor"] for run in runs[name]),
                    "memory": max(run["memory"] for run in runs[name]),
                }
            points.append(row)
            print(row, file=sys.stderr, flush=True)
    return points


def start(name: str, side: int, args: argparse.Namespace) -> subprocess.Popen[str]:
    """The process of one model and side, waiting for its turn."""
    command = [sys.executable, __file__, "--point", name, str(side)]
    command += ["--threads", str(args.threads), "--limit-gb", str(args.limit_gb)]
    environment = {**os.environ, "TIMM_FUSED_ATTN": "0" if name == "vit-s-matrix" else "1"}
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout
    if child.stdout.readline() != "ready\n":
        raise SystemExit(f"{name} at {side} px did not start")
    return child


def serve(name: str, side: int, threads: int, limit_gb: float) -> None:
    """In a process of its own: a pass for every line of stdin."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build(name, side).eval()
    with torch.no_grad():
        model(torch.rand(1, 3, WARM, WARM))
        picture = torch.rand(1, 3, side, side)
        at_rest = status("VmData")
        cap = at_rest + int(limit_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)  # what glibc kept of the first pass would not be counted again
        print("ready", flush=True)
        for _ in sys.stdin:
            resident = status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            wall, processor = time.perf_counter(), time.process_time()
            try:
                model(picture)
            except (MemoryError, RuntimeError) as error:
                if "memory" not in str(error) and not isinstance(error, MemoryError):
                    raise
                return
            answer = {
                "wall": time.perf_counter() - wall,
                "processor": time.process_time() - processor,
                "memory": status("VmHWM") - resident,
            }
            print(json.dumps(answer), flush=True)


def build(name: str, side: int) -> Any:
    """A model with random weights."""
    if name == "vmamba-t":
        from pmavae.vmamba import VMAMBA, VMamba

        return VMamba(VMAMBA["vmamba-tiny"])
    allow_any_torchvision()
    import timm

    if name == "convnext-t":
        return timm.create_model("convnext_tiny", pretrained=False)
    return timm.create_model("vit_small_patch16_224", pretrained=False, img_size=side, dynamic_img_size=True)


def status(field: str) -> int:
    """Bytes, as Linux has them of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def exponent(points: list[dict[str, Any]], model: str, what: str, smallest: int = 0) -> float:
    """The slope of log(what) against log(pixels)."""
    found = [
        (2 * math.log(p["side"]), math.log(p[what]))
        for p in points
        if p["model"] == model and what in p and p["side"] >= smallest
    ]
    if len(found) < 2:
        return math.nan
    mean_x, mean_y = (sum(values) / len(found) for values in zip(*found, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in found)
    return covariance / sum((x - mean_x) ** 2 for x, _ in found)


def print_table(points: list[dict[str, Any]]) -> None:
    """All points and exponents as Markdown."""
    print("| side | model | processor time | wall time | spread | memory of a pass |")
    print("| --- | --- | --- | --- | --- | --- |")
    for p in points:
        cells = [f"{p['side']}²", MODELS[p["model"]][0]]
        if "wall" in p:
            cells += [f"{p['processor']:.2f} s", f"{p['wall']:.2f} s", f"{p['spread']:.2f}"]
            cells.append(f"{p['memory'] / 2**20:.0f} MiB")
        else:
            cells += ["out of memory", "", "", ""]
        print(f"| {' | '.join(cells)} |")
    print(f"\n| exponent against pixels | time | time from {LARGE}² | memory | memory from {LARGE}² |")
    print("| --- | --- | --- | --- | --- |")
    for model in dict.fromkeys(p["model"] for p in points):
        fits = [exponent(points, model, w, s) for w in ("processor", "memory") for s in (0, LARGE)]
        print(f"| {MODELS[model][0]} | {' | '.join(f'{fit:.2f}' for fit in fits)} |")


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Time and memory over the side, both axes logarithmic, side by side in one PNG."""
    from PIL import Image, ImageDraw, ImageFont

    width, height, margin = 480, 400, 56
    image = Image.new("RGB", (2 * width, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    sides = sorted({p["side"] for p in points})
    panels = (("processor", "processor time, s", 1.0), ("memory", "memory of a pass, MiB", 2.0**20))
    for column, (what, title, unit) in enumerate(panels):
        measured = [p for p in points if what in p]
        low = math.floor(math.log10(min(p[what] / unit for p in measured)))
        high = math.ceil(math.log10(max(p[what] / unit for p in measured)))
        left, right = column * width + margin, (column + 1) * width - 16
        top, bottom = 32, height - 40

        def place(
            side: float,
            value: float,
            box: tuple[int, int, int, int] = (left, right, top, bottom),
            decades: tuple[int, int] = (low, high),
        ) -> tuple[float, float]:
            x = math.log(side / sides[0]) / math.log(sides[-1] / sides[0])
            y = (math.log10(value) - decades[0]) / (decades[1] - decades[0])
            return box[0] + x * (box[1] - box[0]), box[3] - y * (box[3] - box[2])

        draw.text((left, 8), title, "black", font)
        for decade in range(low, high + 1):
            start, end = place(sides[0], 10.0**decade), place(sides[-1], 10.0**decade)
            draw.line([start, end], (220, 220, 220))
            draw.text((left - 8, start[1]), f"{10.0**decade:g}", "black", font, anchor="rm")
        for side in sides:
            draw.line([place(side, 10.0**low), place(side, 10.0**high)], (235, 235, 235))
            draw.text((place(side, 10.0**low)[0], bottom + 6), f"{side}", "black", font, anchor="mt")
        draw.text(((left + right) / 2, height - 18), "side of the picture, px", "black", font, anchor="mt")
        for number, model in enumerate(dict.fromkeys(p["model"] for p in points)):
            name, colour = MODELS[model]
            line = [place(p["side"], p[what] / unit) for p in measured if p["model"] == model]
            draw.line(line, colour, 2)
            for x, y in line:
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
            draw.text((left + 8, top + 4 + 17 * number), name, colour, font)
    image.quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    main()
