"""How much memory restoration takes, by the size of the picture.

    python benchmarks/restoration_memory.py PICTURE [--threads N]

The picture is resized and made noisy, and goes through the command in a process of its own. The table has
the peak of that process and, beside it, the peak without the bytes of the pixels that went in and came out,
the latter three times, as Pillow holds them while it writes a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((1000, 750), (2000, 1500), (4000, 3000))
TASKS = (("denoise", ()), ("upscale", ("--scale", "2")), ("upscale", ("--scale", "4")))
COPIES = 3  # of an output's pixels while it is written


def write_noisy(picture: Path, size: tuple[int, int], target: Path) -> None:
    pixels = np.asarray(Image.open(picture).convert("RGB").resize(size)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 15, pixels.shape)
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(target)


def peak_bytes(command: list[str]) -> int:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--threads", default="1")
    args = parser.parse_args()
    print(f"{'task':14}{'input':>12}{'peak MB':>10}{'without pixels':>16}")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / "out.png"
        for task, options in TASKS:
            for size in SIZES:
                # In a process of its own: a child is counted with what its parent had when it was born.
                maker = get_context("spawn").Process(target=write_noisy, args=(args.picture, size, source))
                maker.start()
                maker.join()
                command = [sys.executable, "-m", "pmavae_cli", task, str(source), "-o", str(target)]
                peak = peak_bytes([*command, "--overwrite", "--threads", args.threads, *options])
                factor = int(options[1]) ** 2 if options else 1
                own = 3 * size[0] * size[1] * (1 + COPIES * factor)
                name = " ".join((task, *options[1:]))
                print(f"{name:14}{size[0]:>6}×{size[1]:<5}{peak / 1e6:>10.0f}{(peak - own) / 1e6:>16.0f}")


if __name__ == "__main__":
    main()
