"""Learning curves of training runs as one PNG: what a run's log says over its hours.

    python benchmarks/curves.py runs/codec-tiny runs/codec-small -o docs/curves.png [--value psnr]

Each line is the validation of a run, on the pictures that it held out, against core-hours of steps at the
run's own pace; a branch (`pmavae train --branch-from`) begins where its run was. Needs matplotlib (`dev`).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path


def points(run: Path, value: str) -> list[tuple[int, float]]:
    """Steps and what validation said after them."""
    with (run / "log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "validation" and row.get(value)]
    return [(int(float(row["step"])), float(row[value])) for row in rows]


def seconds_a_step(run: Path) -> float:
    """The pace over the whole run, pauses left out: the mean of what every stretch of its log took a step."""
    batch = json.loads((run / "config.json").read_text())["phases"][0]["batch"]
    with (run / "log.csv").open(newline="") as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file) if row["images_per_second"]]
    return batch * sum(1 / rate for rate in rates) / len(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--value", default="psnr", help="a column of the log  [default: psnr]")
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for run in args.runs:
        found, pace = points(run, args.value), seconds_a_step(run)
        axes.plot([step * pace / 3600 for step, _ in found], [y for _, y in found], ".-", label=run.name)
    axes.set_xlabel("core-hours")
    axes.set_ylabel("PSNR of held-out pictures, dB" if args.value == "psnr" else args.value)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.output, dpi=100, bbox_inches="tight")
    print(args.output)


if __name__ == "__main__":
    main()
