"""Trainings begun by another checkout go on in this one: codec, paint, denoise, upscale, texture, a plugin's.

    git worktree add ../before COMMIT
    python benchmarks/begun_before.py ../before photos/

The other checkout makes checkpoints of each for some seconds and stops; this one goes on from there to STEPS.
Printed are the step of the last checkpoint that was begun with, the exit status and the last score.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
STEPS = 12
CODEC = ["--task", "base", "--init-from", "tiny", "--perceptual", "none"]
RUNS = {
    "codec": CODEC,
    "paint": [*CODEC, "--set", "phases.0.objective=paint"],
    "denoise": ["--task", "denoise", "--init-from", "denoise-tiny-1"],
    "upscale": ["--task", "upscale", "--init-from", "upscale-tiny-1"],
    "texture-vary": ["--task", "texture-vary", "--init-from", "texture-tiny-1"],
    "deblur": ["--task", "deblur"],
}
FEW = ["--set", "phases.0.crop=64", "--set", "phases.0.batch=2", "--threads", "1", "--device", "cpu", "-q"]


def install(site: Path) -> None:
    """The example plugin, as pip would say that it is installed."""
    info = site / "pmavae_deblur-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pmavae-deblur\nVersion: 0.1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[pmavae.plugins]\ndeblur = pmavae_deblur\n", "utf-8")


def train(checkout: Path, site: Path, data: Path, out: Path, options: list[str]) -> int:
    """`pmavae train` of a checkout; its exit status."""
    paths = (checkout, site, checkout / "examples/plugin-deblur/src")
    command = [sys.executable, "-m", "pmavae_cli", "train", "--data", str(data), "--out", str(out)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run([*command, *FEW, *options], env=env, cwd=out.parent).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("data", type=Path, help="a folder of pictures")
    args = parser.parse_args()
    before, data, failed = args.before.resolve(), args.data.resolve(), 0
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        install(site)
        for name, options in RUNS.items():
            out = Path(scratch) / name
            begin = ["--steps", str(STEPS - 2), "--save-every", "1s", "--pause-after", "8s"]
            train(before, site, data, out, [*options, *begin])
            last = max((path.name for path in (out / "checkpoints").glob("step-*")), default="no checkpoint")
            status = train(CHECKOUT, site, data, out, [*options, "--steps", str(STEPS)])
            failed += status != 0
            with (out / "log.csv").open(encoding="utf-8") as file:
                row = list(csv.DictReader(file))[-1]
            scores = ", ".join(f"{key} {float(row[key]):.4g}" for key in row if key != "group" and row[key])
            print(f"{name}: from {last}, status {status}: {scores}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
