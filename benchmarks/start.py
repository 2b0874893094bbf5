"""Cold start: `pmavae --help`, and the first decoding of a 256² latent, beside `import torch`.

    python benchmarks/start.py [--runs 5]

Every call is a process of its own, in turn with `python -c "import torch"` and `python -c pass`, after one
that is not counted: it fills the cache of the disk and that of byte code, a folder of this run's own. Prints
the least seconds of each, in wall and in processor time, and their ratios to `import torch`. "torch, frozen"
imports torch as the command line does, without looking for garbage: below 1, as `decode` may be, because a
plain import looks for it again and again, and once more at the end. "decode, again" is the time of the same
decoding in a process that has done it before, which is the model's own run time. The aim is
(decode − again) / import torch; beside it stands the ratio to "torch, frozen".
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AGAIN = """
import os, sys, time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
from pmavae import PMAVAE, PRESETS
from pmavae.files.latent_file import read_latents
model, latents = PMAVAE.from_pretrained("tiny"), read_latents(sys.argv[1], PRESETS.__getitem__)[0]
times = []
for _ in range(4):
    began = time.perf_counter()
    model.decode_pixels(latents)
    times.append(time.perf_counter() - began)
print(min(times))
"""
FROZEN = "import gc; gc.disable(); import torch; gc.freeze(); gc.enable()"


def once(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    import numpy as np
    from PIL import Image

    python = sys.executable
    pmavae = str(Path(python).parent / "pmavae")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        picture, latent, output = (f"{folder}/{name}" for name in ("a.png", "a.safetensors", "b.png"))
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save(picture)
        subprocess.run([pmavae, "encode", picture, "-o", latent, "-q"], check=True, stdout=subprocess.DEVNULL)
        commands = {
            "python": [python, "-c", "pass"],
            "import torch": [python, "-c", "import torch"],
            "torch, frozen": [python, "-c", FROZEN],
            "--help": [pmavae, "--help"],
            "decode": [pmavae, "decode", latent, "-o", output, "--overwrite", "-q"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for run in range(args.runs + 1):
            for name, command in commands.items():
                cost = once(command, environment)
                if run:
                    times[name].append(cost)
        again = float(
            subprocess.run([python, "-c", AGAIN, latent], check=True, capture_output=True, text=True).stdout
        )
    walls = {name: min(wall for wall, _ in costs) for name, costs in times.items()}
    processor = {name: min(seconds for _, seconds in costs) for name, costs in times.items()}
    for name in commands:
        ratio, ratio_processor = (
            walls[name] / walls["import torch"],
            processor[name] / processor["import torch"],
        )
        print(
            f"{name:14s} {walls[name]:.2f} s, {ratio:.2f} × import torch; "
            f"processor {processor[name]:.2f} s, {ratio_processor:.2f} ×"
        )
    print(f"decode, again  {again:.3f} s")
    rest, rest_processor = walls["decode"] - again, processor["decode"] - again
    for name in ("import torch", "torch, frozen"):
        print(
            f"decode without its own run time: {rest / walls[name]:.2f} × {name}; "
            f"processor {rest_processor / processor[name]:.2f} ×"
        )


if __name__ == "__main__":
    main()
