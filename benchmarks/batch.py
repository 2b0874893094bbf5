"""A batch by one command beside single calls, and the share of its time that the model takes.

    python benchmarks/batch.py [--count 100] [--singles 10] [--size 1152x864] [--tasks encode,denoise]

Makes `--count` JPEG pictures of 1 MP, runs each task on all of them by one command, and on `--singles` of
them by a command each. Prints the seconds a picture of both and their ratio, and for the batch the share of
its time, from the first picture to the end of the process, in which the network was computing: calls of
`PMAVAE.encode`, `PMAVAE.decode_pixels` and of the restoring network are timed in the process itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

BATCH = """
import atexit, os, sys, time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
from pmavae import PMAVAE
from pmavae.restoration.network import Restorer
from pmavae_cli.main import main
spent, first = 0.0, 0.0
def timed(function):
    def call(*arguments, **named):
        global spent, first
        began = time.perf_counter()
        first = first or began
        try:
            return function(*arguments, **named)
        finally:
            spent += time.perf_counter() - began
    return call
PMAVAE.encode, PMAVAE.decode_pixels = timed(PMAVAE.encode), timed(PMAVAE.decode_pixels)
Restorer.__call__ = timed(Restorer.__call__)
atexit.register(lambda: print("share", spent / (time.perf_counter() - first)))
main()
"""


def make_pictures(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Soft noise, of which a JPEG file is about as large as that of a photograph."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number:03d}.jpg")
        picture.filter(ImageFilter.SHARPEN).save(paths[-1], quality=92)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--singles", type=int, default=10)
    parser.add_argument("--size", default="1152x864", help="WIDTHxHEIGHT")
    parser.add_argument("--tasks", default="encode,denoise", help="by comma")
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split("x"))
    pmavae = str(Path(sys.executable).parent / "pmavae")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        pictures = make_pictures(folder / "in", args.count, width, height)
        for task in args.tasks.split(","):
            arguments = [task, *map(str, pictures), "-q", "-o", f"{folder / task}/"]
            began = time.perf_counter()
            batch = subprocess.run(
                [sys.executable, "-c", BATCH, *arguments], check=True, capture_output=True, text=True
            )
            together = (time.perf_counter() - began) / args.count
            share = float(batch.stdout.split("share")[-1])
            began = time.perf_counter()
            for picture in pictures[: args.singles]:
                subprocess.run(
                    [pmavae, task, str(picture), "-q", "-o", f"{folder / task}-single/"], check=True
                )
            apart = (time.perf_counter() - began) / args.singles
            print(
                f"{task}: {together:.2f} s a picture in a batch of {args.count}, {apart:.2f} s by single "
                f"calls: {apart / together:.1f} ×; {100 * share:.0f} % of the batch's time in the model",
                flush=True,
            )


if __name__ == "__main__":
    main()
