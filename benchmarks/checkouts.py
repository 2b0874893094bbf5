"""Codec, start, batch and memory of two checkouts, in turn, as ratios of this one to the other.

    git worktree add ../before COMMIT
    python benchmarks/checkouts.py ../before [--runs 5] [--only codec start]

Every measurement is a process of its own; the two checkouts take turns, and which goes first changes. Printed
is the median of the ratios pair by pair, with the least and the largest: of processor seconds (wall seconds
of a busy machine say little), and of peak memory. Below 1 this checkout needs less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

CHECKOUT = Path(__file__).resolve().parents[1]
CODEC = """
import os, sys, time
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
import numpy as np, torch
from pmavae import PMAVAE, PRESETS
preset, width, height, threads = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
torch.manual_seed(0)
model = PMAVAE(PRESETS[preset]).eval()
pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
times = []
for _ in range(3):
    began = time.process_time()
    model.decode_pixels(model.encode(pixels))
    times.append(time.process_time() - began)
print(min(times))
"""


PROGRAM = ["-m", "pmavae_cli"]
QUIET = ["--overwrite", "-q"]


@dataclass(frozen=True)
class Case:
    """A command of Python, and what is compared: "printed" or "processor" seconds, or the "peak"."""

    name: str
    command: list[str]
    quantity: str = "processor"


CASES = {
    "codec": [
        Case(f"{preset} {width}×{height}, {threads} thread(s)", ["-c", CODEC, preset, *sizes], "printed")
        for preset, *sizes in (
            ("tiny", "512", "512", "1"),
            ("tiny", "1920", "1080", "2"),
            ("small", "512", "512", "1"),
        )
        for width, height, threads in (sizes,)
    ],
    "start": [
        Case("--help", [*PROGRAM, "--help"]),
        Case("decode 256×256", [*PROGRAM, "decode", "small.safetensors", "-o", "out.png", *QUIET]),
    ],
    "batch": [
        Case(f"{task} 8 pictures", [*PROGRAM, task, "batch", "-o", f"made-{task}/", *QUIET])
        for task in ("encode", "denoise")
    ],
    "memory": [
        Case(f"{task} 1920×1080", [*PROGRAM, task, source, "-o", output, *QUIET], "peak")
        for task, source, output in (
            ("encode", "large.png", "out.safetensors"),
            ("decode", "large.safetensors", "out.png"),
            ("denoise", "large.png", "out.png"),
        )
    ],
}


def measure(case: Case, root: Path, folder: Path) -> float:
    """Run a case with a checkout's code, in a folder."""
    env = os.environ | {"PYTHONPATH": str(root), "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen([sys.executable, *case.command], env=env, cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{root}: {case.name} failed")
    if case.quantity == "printed":
        return float(text)
    return usage.ru_maxrss if case.quantity == "peak" else usage.ru_utime + usage.ru_stime


def make_pictures(folder: Path) -> None:
    """A large picture, a small one, the latents of both, and a batch."""
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
    picture.save(folder / "large.png")
    picture.crop((0, 0, 256, 256)).save(folder / "small.png")
    (folder / "batch").mkdir()
    for number in range(8):
        picture.crop((number, 0, number + 1152, 864)).save(folder / f"batch/{number}.jpg", quality=95)
    for name in ("large", "small"):
        line = ["encode", f"{name}.png", "-o", f"{name}.safetensors", "-q"]
        measure(Case("encode", [*PROGRAM, *line]), CHECKOUT, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    args = parser.parse_args()
    other = args.other.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_pictures(folder)
        for group in args.only:
            for case in CASES[group]:
                ratios = []
                for number in range(-1, args.runs):  # the first fills caches, and is not counted
                    pair = (CHECKOUT, other) if number % 2 else (other, CHECKOUT)
                    found = {root: measure(case, root, folder) for root in pair}
                    ratios.append(found[CHECKOUT] / found[other])
                ratios = sorted(ratios[1:])
                spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
                print(f"{group:<7} {case.name:<28} {statistics.median(ratios):.3f}  ({spread})", flush=True)


if __name__ == "__main__":
    main()
