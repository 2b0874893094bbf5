"""The selective scan: compiled kernels, torch loop, blocked torch scan, one `exp` and one copy of the data.

    python benchmarks/scan.py [--lanes 512] [--steps 4096] [--threads 1] [--device cuda]

All are timed in turn in one process; read the ratios, not the milliseconds. 512 lanes are one image of a
small network: they keep a CPU busy, while a GPU needs tens of thousands. The blocked scan's matrices are
sixteen times the data, so it is timed on the CPU only.

`--lanes 8192` are out of a CPU's caches. For each kernel the share of a copy's bandwidth is printed: the
time that a copy of as many bytes as it must read and write would take, over its own. The copy has its
memory, the kernels fetch theirs. The inference kernel, on the CPU, makes decays and drives from the step
sizes instead of reading them. The lines of training are forward and backward, from the features to their
sum, by the kernel that has a gradient and by single operators around the recurrence.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch

from pmavae import ss2d
from pmavae.scan import fused_scan_for, operator
from pmavae.scan.operator import backend_for
from pmavae.ss2d import SS2D


def milliseconds(function: Callable[[], object], runs: int, device: str) -> float:
    """Time of a call, after one that is not counted: the least of `runs`, on CUDA their mean.

    On CUDA all are queued at once, so that the time to launch one hides behind the one before.
    """
    function()
    if device == "cuda":
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        began.record()
        for _ in range(runs):
            function()
        ended.record()
        ended.synchronize()
        elapsed: float = began.elapsed_time(ended)
        return elapsed / runs
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


def blocked_scan(a: torch.Tensor, b: torch.Tensor, block: int = 16) -> torch.Tensor:
    """The forward scan as matrix products over blocks of steps, the form for exporters without loops.

    Within a block, h[t] is the sum over s ≤ t of b[s] times the decay from s to t: a triangular matrix
    of ratios that never exceed 1. Only the last state of each block is carried on.
    """
    height, width = a.shape[2:4]
    logs, drive = (operator.unroll(x).unflatten(2, (-1, block)) for x in (a.log(), b))
    sums = logs.cumsum(3)  # (4, B, blocks, block, M)
    ratios = torch.exp(sums[:, :, :, :, None] - sums[:, :, :, None])  # decay from s to t, for s ≤ t
    mask = torch.ones(block, block).tril()[:, :, None]
    h = (torch.where(mask > 0, ratios, 0) * drive[:, :, :, None]).sum(4)
    decay = sums.exp()
    for n in range(1, h.shape[2]):
        h[:, :, n] += decay[:, :, n] * h[:, :, n - 1, -1:]
    return operator.roll(h.flatten(2, 3), height, width)


def whole_scans(side: int, lanes: int) -> dict[str, Callable[[], object]]:
    """All four directions, from the features to their sum: for its value alone, and with the gradient."""
    module, u = SS2D(lanes // 4), torch.randn(1, side, side, lanes // 4)
    weight = torch.randn_like(u)

    @torch.no_grad()
    def inference() -> None:
        module.selective_scan(u)

    def training() -> None:
        (module.selective_scan(u) * weight).sum().backward()

    def by_operators() -> None:
        with patch.object(ss2d, "fused_scan_for", lambda u: None):
            training()

    with torch.no_grad():
        there = fused_scan_for(u) is not None
    rows = {"inference kernel, all": inference, "training kernel, all": training}
    return rows | {"training, operators": by_operators} if there else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lanes", type=int, default=512, help="independent recurrences")
    parser.add_argument("--steps", type=int, default=4096, help="positions: a square picture's pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    side = math.isqrt(args.steps)
    a = 1 - torch.rand(4, 1, side, side, args.lanes // 4, device=args.device)  # never 0: it has no logarithm
    b, grad_h = torch.randn_like(a), torch.randn_like(a)
    kernel = backend_for(a.device)
    h = kernel.forward(a, b)
    into = torch.empty_like(a)
    on_cuda = args.device == "cuda"
    other_scan = operator.scan_forward if on_cuda else blocked_scan
    torch.testing.assert_close(other_scan(a, b), h, atol=1e-3, rtol=1e-3)
    timed = partial(milliseconds, device=args.device)
    rows = {
        "copy": timed(lambda: into.copy_(a), 20),
        "exp": timed(lambda: a.exp(), 20),
        "kernel, forward": timed(lambda: kernel.forward(a, b), 20),
        "kernel, backward": timed(lambda: kernel.backward(grad_h, a, h), 20),
        **({} if on_cuda else {"blocked torch, forward": timed(lambda: blocked_scan(a, b), 3)}),
        **({} if on_cuda else {name: timed(f, 20) for name, f in whole_scans(side, args.lanes).items()}),
        "torch loop, forward": timed(lambda: operator.scan_forward(a, b), 3),
        "torch loop, backward": timed(lambda: operator.scan_backward(grad_h, a, h), 3),
    }
    where = torch.cuda.get_device_name() if on_cuda else f"{args.threads} thread(s)"
    print(f"{args.lanes} lanes × {side * side} steps, float32, {where}")
    for name, time_ms in rows.items():
        print(f"  {name:22s} {time_ms:9.2f} ms   {time_ms / rows['exp']:7.1f} × exp")
    for direction in ("forward", "backward"):
        ratio = rows[f"torch loop, {direction}"] / rows[f"kernel, {direction}"]
        print(f"  the kernel is {ratio:.1f} × faster {direction} than the torch loop")
    if "training, operators" in rows:
        ratio = rows["training, operators"] / rows["training kernel, all"]
        print(f"  the training kernel is {ratio:.1f} × faster than single operators")
    maps = {"kernel, forward": 3, "kernel, backward": 5}  # of the data's size, that are read and written
    if "inference kernel, all" in rows:
        # a quarter is one direction: u once and written once as y at first; then for every direction the step
        # sizes written and read, u read, y read and written
        maps["inference kernel, all"] = (2 + 4 * 5) / 4
    for name, count in maps.items():
        share = count / 2 * rows["copy"] / rows[name]
        print(f"  {name}: {100 * share:.0f} % of a copy's bandwidth, {count} maps read and written")


if __name__ == "__main__":
    main()
