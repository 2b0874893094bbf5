"""Whether an ONNX file computes what the model computes, asked of onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.errors import ExportError
from pmavae.onnx.graphs import DecoderGraph, EncoderGraph, Graph, properties

SIZES = (
    (96, 160),
    (208, 112),
)  # height and width of the pictures, neither of which is the exporter's example
MAX_ERROR = 1e-3  # of any number of a picture in [0, 1] or of latents of unit variance
MAX_ERROR_HALF = 1e-2  # of weights that had more than half precision


def open_session(graph: Graph, threads: int = 0) -> onnxruntime.InferenceSession:
    """The graph in onnxruntime on the CPU; threads: 0 leaves their number to it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def largest_error(
    graph: Graph, model: PMAVAE, sizes: Sequence[tuple[int, int]] = SIZES, threads: int = 0
) -> float:
    """The largest absolute difference to the model in torch, over pictures of these sizes."""
    session = open_session(graph, threads)
    network: nn.Module
    if graph.name == "encoder":
        network = EncoderGraph(model)
    else:
        network = DecoderGraph(model, paint=properties(graph.model)["paint"] == "yes")
    worst = 0.0
    for seed, (height, width) in enumerate(sizes):
        given: tuple[Tensor, ...] = (example_picture(height, width, seed),)
        if graph.name == "decoder":
            base, detail, style = EncoderGraph(model)(*given)
            style[:, -1] = seed % 2  # the paint amount: without paint, and with
            given = (base, detail, style)
        expected = network(*given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        names = [value.name for value in session.get_inputs()]
        found = session.run(None, {n: x.contiguous().numpy() for n, x in zip(names, given, strict=True)})
        for ours, theirs in zip(expected, found, strict=True):
            if ours.shape != theirs.shape:
                raise ExportError(f"the {graph.name} gives {theirs.shape}, not {tuple(ours.shape)}, as ONNX")
            difference = float(np.abs(ours.numpy() - theirs).max())
            worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst


def check(graph: Graph, model: PMAVAE, sizes: Sequence[tuple[int, int]] = SIZES, threads: int = 0) -> float:
    """`largest_error`; raises ExportError where it is beyond the bound of the graph's precision."""
    bound = MAX_ERROR_HALF if properties(graph.model)["weights_dtype"] == "float16" else MAX_ERROR
    error = largest_error(graph, model, sizes, threads)
    if error > bound:
        raise ExportError(
            f"the {graph.name} of {model.weights_id} differs by {error:.2g} in onnxruntime "
            f"{onnxruntime.__version__}, more than {bound:g}, and is not written: use the version of "
            "onnxruntime in constraints.txt, or leave out --half"
        )
    return error


def example_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth areas, edges and some noise: (1, 3, height, width) in [0, 1], the same each time."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, -(-height // 16), -(-width // 16), generator=random)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")
    blocks = F.interpolate(coarse.flip(-1), (height, width), mode="nearest")
    noise = 0.1 * torch.rand(1, 3, height, width, generator=random)
    return (0.6 * smooth + 0.3 * blocks + noise).clamp(0, 1)
