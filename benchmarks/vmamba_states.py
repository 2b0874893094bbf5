"""VMamba's scan without a gradient, beside the general form of it, and the cost of a picture by variant.

    python benchmarks/vmamba_states.py [--side 224] [--threads 1] [--runs 5] [--variants vmamba-tiny,…]

For inference, states are scanned one after another by the kernel for one state; the general form, which
training uses, writes decays and drives of all directions and states to memory. Both are timed in turn in one
process, and the peak of each is that of a process of its own. Prints for each variant: seconds a picture, the
general form's time over it, and the two peaks of memory, over a process that has run a smaller picture.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from in_turn import in_turn

from pmavae.vmamba import VMAMBA, VMamba

WARM = 144  # px of the picture before memory is counted: from 132 on, the compiled scan is loaded


def run(model: VMamba, x: torch.Tensor, general: bool) -> torch.Tensor:
    with torch.set_grad_enabled(general):  # no parameter wants a gradient, so none is kept
        return model(x)


def peak_bytes() -> int:
    """The most memory that this process has had at a time."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def peak_of(variant: str, side: int, general: bool) -> float:
    """MiB that a picture takes at most, in a process of its own."""
    command = [sys.executable, __file__, "--variants", variant, "--side", str(side)]
    done = subprocess.run([*command, "--peak", str(int(general))], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--variants", default="vmamba-tiny,vmamba-tiny-v0")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for variant in args.variants.split(","):
        torch.manual_seed(0)
        model = VMamba(VMAMBA[variant]).eval().requires_grad_(False)
        x = torch.randn(1, 3, args.side, args.side)
        if args.peak is not None:
            run(model, torch.randn(1, 3, WARM, WARM), bool(args.peak))
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            before = peak_bytes()
            run(model, x, bool(args.peak))
            print((peak_bytes() - before) / 2**20)
            return
        costs = in_turn(
            {"general": lambda m=model, x=x: run(m, x, True), "ours": lambda m=model, x=x: run(m, x, False)},
            args.runs,
        )
        ours, general = costs["ours"], costs["general"]
        peaks = [peak_of(variant, args.side, form) for form in (False, True)]
        print(
            f"{variant} {args.side}²: {ours.wall:.2f} s (spread {ours.spread:.2f}), general form "
            f"{general.processor / ours.processor:.2f} × the time (wall {general.wall / ours.wall:.2f}); "
            f"memory {peaks[0]:.0f} MiB, general form {peaks[1]:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
