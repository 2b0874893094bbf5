r"""The ONNX files beside torch: size, nodes, operators, multiply-adds, and time with one thread.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/onnx_export.py \
        [--preset tiny] [--side 512] [--runs 5]

Prints for the encoder, the decoder and the decoder without paint what the files are, how far they are from
torch, and how long onnxruntime takes as a multiple of torch: the minimum of several runs, in
turn in one process, one thread each. Then the scan alone, as a multiple of the form with a matrix in every
chunk. Read the ratios, not the milliseconds. Needs the extra onnx. Exporting takes a minute or two a preset.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import onnxruntime
import torch
from in_turn import in_turn
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pmavae import PMAVAE
from pmavae.onnx import scan
from pmavae.onnx.graphs import (
    OPSET,
    DecoderGraph,
    EncoderGraph,
    decoder_graph,
    encoder_graph,
    example_picture,
    halved,
    largest_error,
    open_session,
)
from pmavae.scan import directional_scan


def multiply_adds(network: nn.Module, given: tuple[Tensor, ...]) -> float:
    """Of convolutions and matrix products; elementwise operations and the scan are not counted."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        network(*given)  # with a gradient, since fused convolutions are not counted
    return counter.get_total_flops() / 2


def measure_networks(preset: str, side: int, runs: int) -> None:
    model = PMAVAE.from_pretrained(preset)
    picture = (example_picture(side, side).contiguous(memory_format=torch.channels_last),)  # as pixels lie
    with torch.no_grad():
        latents = EncoderGraph(model)(*picture)
    rows = {
        "encoder": (encoder_graph(model), EncoderGraph(model), picture),
        "decoder": (decoder_graph(model), DecoderGraph(model, True), latents),
        "decoder without paint": (decoder_graph(model, paint=False), DecoderGraph(model, False), latents),
    }
    for name, (graph, network, given) in rows.items():
        half = halved(graph)
        session = open_session(graph, threads=1)
        feed = {i.name: x.contiguous().numpy() for i, x in zip(session.get_inputs(), given, strict=True)}
        with torch.no_grad():
            costs = in_turn(
                {
                    "torch": lambda network=network, given=given: network(*given),
                    "onnx": lambda session=session, feed=feed: session.run(None, feed),
                },
                runs,
            )
        count = sum(graph.operators.values())
        print(f"{preset} {name}: {len(graph.data) / 1e6:.2f} MB, as float16 {len(half.data) / 1e6:.2f} MB")
        print(f"  {graph.parameters / 1e6:.2f} M parameters, {count} nodes of {len(graph.operators)} types:")
        print("  " + ", ".join(f"{number} {operator}" for operator, number in graph.operators.items()))
        print(f"  {multiply_adds(network, given) / 1e9:.2f} G multiply-adds at {side}²")
        errors = (largest_error(each, model, threads=1) for each in (graph, half))
        print("  largest error against torch {:.1e}, as float16 {:.1e}".format(*errors))
        ours, theirs = costs["onnx"], costs["torch"]
        print(
            f"  onnxruntime {1e3 * ours.wall:.0f} ms, torch {1e3 * theirs.wall:.0f} ms: "
            f"{ours.wall / theirs.wall:.2f} × (median over minimum: {ours.spread:.2f}, "
            f"{theirs.spread:.2f})"
        )


def matrices(a: Tensor, b: Tensor) -> Tensor:
    """The scan over (4, T, M) with a matrix of decays in every chunk; T at most 8 to the power of 4."""

    def level(logs: Tensor, drive: Tensor, left: int) -> Tensor:
        sequences, steps, lanes = logs.shape
        logs, drive = (x.reshape(sequences, -1, scan.CHUNK, lanes).transpose(2, 3) for x in (logs, drive))
        sums = logs.cumsum(-1)
        decays = torch.exp((sums[..., :, None] - sums[..., None, :]).clamp(max=0)).tril()
        h = (decays @ drive[..., None])[..., 0]
        if left:
            ends = level(sums[..., -1], h[..., -1], left - 1)
            before = torch.nn.functional.pad(ends, (0, 0, 1, 0))[:, :-1]
            h = h + torch.exp(sums) * before[..., None]
        return h.transpose(2, 3).reshape(sequences, steps, lanes)

    return level(a.clamp(min=1e-30).log(), b, 3)


class Chunks(nn.Module):
    """The scan as it is exported."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return directional_scan(a, b)


class Matrices(nn.Module):
    """The same with a matrix in every chunk."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return matrices(a.flatten(0, 1).flatten(1, 2), b.flatten(0, 1).flatten(1, 2))


def measure_scan(runs: int, side: int = 64, lanes: int = 128) -> None:
    a, b = 1 - 0.2 * torch.rand(4, 1, side, side, lanes), torch.randn(4, 1, side, side, lanes)
    feed = {"a": a.numpy(), "b": b.numpy()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {}
    for name, module in {"chunks": Chunks(), "matrices": Matrices()}.items():
        program = torch.onnx.export(
            module.eval(),
            (a, b),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table={torch.ops.pmavae.directional_scan.default: scan.directional_scan},
        )
        data = program.model_proto.SerializeToString()
        sessions[name] = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    rows = [s.run(None, feed)[0] for s in sessions.values()]
    assert np.allclose(rows[0][0].reshape(-1, lanes), rows[1][0], atol=1e-3)
    costs = in_turn(
        {name: lambda session=session: session.run(None, feed) for name, session in sessions.items()}, runs
    )
    ours, theirs = (costs[name].wall for name in ("chunks", "matrices"))
    print(
        f"the scan, 4 × {side * side} steps × {lanes} lanes: {1e3 * ours:.1f} ms, with a matrix in every "
        f"chunk {1e3 * theirs:.1f} ms: {ours / theirs:.2f} ×"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--side", type=int, default=512, help="of a square picture, a multiple of 16")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    measure_networks(args.preset, args.side, args.runs)
    measure_scan(args.runs)


if __name__ == "__main__":
    main()
