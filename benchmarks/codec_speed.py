"""Encoding and decoding beside TAESD's architecture with as many parameters, in turn in one process.

    pip install diffusers
    python benchmarks/codec_speed.py [--presets tiny,small] [--sizes 512x512,1920x1080] [--threads 1,0]
        [--precision float32] [--runs 5]

From pixels to pixels (uint8): `PMAVAE.encode` and `decode_pixels` with their default memory, the same with
the whole picture at once, and `diffusers.AutoencoderTiny` with random weights, as wide as it can be, in
steps of 16 channels, without more parameters than the preset. Neither is faster for other weights. 0
threads are all cores. Decoding to 8 bits is in bf16 where the processor has it; the peer is in float32, and
so is all with --precision float32.

A line for every preset, size and number of threads: the seconds of the peer, then by how much the two are
faster, in wall time and in processor time, and how far the wall times spread (median over minimum). Each is
the minimum of `--runs`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from any_torchvision import allow_any_torchvision
from in_turn import in_turn
from torch import nn

from pmavae import PMAVAE, PRESETS
from pmavae.images.pixels import Pixels, to_pixels
from pmavae.inference.fused import set_precision
from pmavae.inference.offload import Budget


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def peer_of(count: int) -> nn.Module:
    """TAESD's architecture with at most so many parameters, its channels a multiple of 16."""
    allow_any_torchvision()
    from diffusers import AutoencoderTiny

    def build(channels: int) -> nn.Module:
        widths = (channels,) * 4
        peer: nn.Module = AutoencoderTiny(
            encoder_block_out_channels=widths, decoder_block_out_channels=widths
        )
        return peer.eval()

    widest = build(64)  # as released
    for channels in range(80, 1024, 16):
        wider = build(channels)
        if parameters(wider) > count:
            break
        widest = wider
    return widest


@torch.no_grad()
def through_peer(peer: nn.Module, pixels: Pixels) -> Pixels:
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div_(255)
    latent = peer.encode(x).latents  # type: ignore[operator]
    return to_pixels(peer.decode(latent).sample[0].clamp_(0, 1))  # type: ignore[operator]


def through(model: PMAVAE, pixels: Pixels, budget: Budget) -> Pixels:
    model.budget = budget
    return model.decode_pixels(model.encode(pixels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presets", default="tiny,small")
    parser.add_argument("--sizes", default="512x512,1920x1080", help="WIDTHxHEIGHT, by comma")
    parser.add_argument("--threads", default="1,0", help="by comma; 0: all cores")
    parser.add_argument("--precision", choices=["auto", "float32"], default="auto")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    set_precision(args.precision)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for preset in args.presets.split(","):
        torch.manual_seed(0)
        model = PMAVAE(PRESETS[preset]).eval()
        usual = model.budget
        peer = peer_of(parameters(model))
        print(
            f"{preset}: {parameters(model) / 1e6:.2f} M parameters, the peer {parameters(peer) / 1e6:.2f} M"
        )
        for size in args.sizes.split(","):
            width, height = (int(side) for side in size.split("x"))
            pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            functions: dict[str, Callable[[], object]] = {
                "peer": lambda p=pixels, n=peer: through_peer(n, p),
                "default": lambda p=pixels, m=model, b=usual: through(m, p, b),
                "whole": lambda p=pixels, m=model: through(m, p, Budget(1 << 50)),
            }
            for threads in dict.fromkeys(int(n) or cores for n in args.threads.split(",")):
                torch.set_num_threads(threads)
                costs = in_turn(functions, args.runs)
                of_peer = costs["peer"]
                line = f"  {size:>9s}, {threads} thread(s): "
                line += f"peer {of_peer.wall:.2f} s (spread {of_peer.spread:.2f})"
                for name in ("default", "whole"):
                    cost = costs[name]
                    line += (
                        f"; {name} {cost.wall:.2f} s, {of_peer.wall / cost.wall:.1f} × faster,"
                        f" {of_peer.processor / cost.processor:.1f} × in processor time"
                        f" (spread {cost.spread:.2f})"
                    )
                print(line, flush=True)


if __name__ == "__main__":
    main()
