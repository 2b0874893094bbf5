"""Time a pixel from 256² to 4096², as a ratio to that at 512²: linear in pixels is 1 everywhere.

    python benchmarks/scaling.py [--preset tiny] [--sides 256,512,1024,2048,4096] [--threads 1] [--runs 3]

Encoding and decoding from pixels to pixels, with the whole picture at once and with the default memory,
which takes large pictures in strips. The sides are timed in turn with 512², so that each ratio is of
neighbours in time. Prints for every side and path the processor time a pixel over that at 512² and the same
in wall time. At 4096² the whole picture takes about 5 GB.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from in_turn import in_turn

from pmavae import PMAVAE, PRESETS
from pmavae.images.pixels import Pixels
from pmavae.inference.offload import Budget

SIDE = 512  # that others are compared with


def through(model: PMAVAE, pixels: Pixels, budget: Budget) -> Pixels:
    model.budget = budget
    return model.decode_pixels(model.encode(pixels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--sides", default="256,512,1024,2048,4096")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = PMAVAE(PRESETS[args.preset]).eval()
    usual = model.budget
    random = np.random.default_rng(0)

    def picture(side: int) -> Pixels:
        return random.integers(0, 256, (side, side, 3), np.uint8)

    base = picture(SIDE)
    for side in (int(side) for side in args.sides.split(",")):
        pixels = picture(side)
        costs = in_turn(
            {
                "base": lambda: through(model, base, Budget(1 << 50)),
                "whole": lambda p=pixels: through(model, p, Budget(1 << 50)),
                "default": lambda p=pixels: through(model, p, usual),
            },
            args.runs,
        )
        pixels_of_base = (side / SIDE) ** 2
        line = f"{side:5d}²:"
        for name in ("whole", "default"):
            cost, reference = costs[name], costs["base"]
            line += f"  {name} {cost.processor / reference.processor / pixels_of_base:.2f}"
            line += f" (wall {cost.wall / reference.wall / pixels_of_base:.2f}, spread {cost.spread:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
