"""Encoder and decoder as ONNX graphs for pictures of any size, checked against the model."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir.passes.common as passes
import onnxruntime
import torch
import torch.nn.functional as F
from onnx_ir.passes import Sequential
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.errors import ExportError
from pmavae.onnx.scan import directional_scan
from pmavae.pretrained.hub import quiet
from pmavae.pretrained.weights import ARCHITECTURE_VERSION

OPSET = 18
PREFIX = "pmavae."  # of the names of properties
HALF_MOST = float(np.finfo(np.float16).max)
HALF_FROM = 64  # numbers in a tensor: smaller ones would save nothing and cost a node

LAYOUT = "one picture in sRGB, red, green and blue from 0 to 1, as (1, 3, height, width); latents alike"
PADDING = (
    f"height and width are multiples of {BASE_STRIDE}: reflect the picture at its bottom and right edges, "
    "and crop the decoded picture to the size it had"
)


@dataclass(frozen=True)
class Graph:
    """One of the two networks as an ONNX model."""

    name: str  # "encoder" or "decoder"
    model: onnx.ModelProto

    @property
    def data(self) -> bytes:
        """The file."""
        return self.model.SerializeToString()

    @property
    def operators(self) -> dict[str, int]:
        """How many nodes there are of each type, most first."""
        types = [node.op_type for node in self.model.graph.node]
        return dict(sorted(((t, types.count(t)) for t in set(types)), key=lambda row: (-row[1], row[0])))

    @property
    def parameters(self) -> int:
        """Numbers in floating point that the file holds."""
        floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        return sum(int(np.prod(x.dims)) for x in self.model.graph.initializer if x.data_type in floating)


class EncoderGraph(nn.Module):
    """(1, 3, H, W) in [0, 1] to z_base, z_detail and z_style."""

    def __init__(self, model: PMAVAE) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.encoder(picture)
        return posterior.z_base, posterior.z_detail, posterior.z_style


class DecoderGraph(nn.Module):
    """z_base, z_detail and z_style to (1, 3, H, W) in [0, 1]."""

    def __init__(self, model: PMAVAE, paint: bool) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.paint = paint

    def forward(self, z_base: Tensor, z_detail: Tensor, z_style: Tensor) -> Tensor:
        return self.decoder(z_base, z_detail, z_style, paint=self.paint).clamp(0, 1)


def encoder_graph(model: PMAVAE) -> Graph:
    """`encoder.onnx`: input `picture`, outputs `z_base`, `z_detail`, `z_style`."""
    example = (torch.rand(1, 3, 4 * BASE_STRIDE, 5 * BASE_STRIDE),)
    outputs = ["z_base", "z_detail", "z_style"]
    return _graph("encoder", model, EncoderGraph(model), example, ["picture"], outputs)


def decoder_graph(model: PMAVAE, *, paint: bool = True) -> Graph:
    """`decoder.onnx`: inputs `z_base`, `z_detail`, `z_style`, output `picture`.

    paint: with the paint blocks, whose amount is the last number of z_style; without, every amount is as 0.
    """
    example = EncoderGraph(model)(torch.rand(1, 3, 4 * BASE_STRIDE, 5 * BASE_STRIDE))
    inputs = ["z_base", "z_detail", "z_style"]
    graph = _graph("decoder", model, DecoderGraph(model, paint), example, inputs, ["picture"])
    _set_properties(graph.model, {"paint": "yes" if paint else "no"})
    return graph


def halved(graph: Graph) -> Graph:
    """The graph with its weights as float16; a runtime makes them float32 once, when it opens the file.

    Activations stay float32: style statistics and decays do not fit half precision, and a runtime whose
    hardware is faster in it has a switch of its own.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.model)
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < HALF_FROM:
            continue
        name = tensor.name
        values = onnx.numpy_helper.to_array(tensor).clip(-HALF_MOST, HALF_MOST).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _set_properties(proto, {"weights_dtype": "float16"})
    onnx.checker.check_model(proto, full_check=True)
    return Graph(graph.name, proto)


def _graph(
    name: str,
    model: PMAVAE,
    network: nn.Module,
    example: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
) -> Graph:
    rows, columns = (torch.export.Dim(side, min=1, max=4096) for side in ("rows", "columns"))
    per_base = {"picture": BASE_STRIDE, "z_base": 1, "z_detail": BASE_STRIDE // DETAIL_STRIDE}
    dynamic = tuple(
        {2: per_base[i] * rows, 3: per_base[i] * columns} if i in per_base else None for i in inputs
    )
    with torch.no_grad(), quiet("torch.onnx", logging.ERROR):  # it warns of its own names
        program = torch.onnx.export(
            network.eval(),
            tuple(x.detach().contiguous() for x in example),
            dynamo=True,
            optimize=False,  # searches patterns of other networks, longer than all the rest
            verbose=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic,
            custom_translation_table={torch.ops.pmavae.directional_scan.default: directional_scan},
        )
    assert program is not None
    fold_constants(program.model)
    Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
    )(program.model)
    proto = program.model_proto
    _strip(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        if stride := per_base.get(value.name):
            for side, dim in zip(("rows", "columns"), value.type.tensor_type.shape.dim[2:], strict=True):
                dim.dim_param = side if stride == 1 else f"{stride}*{side}"
    proto.producer_name = "pmavae"
    _set_properties(
        proto,
        {
            "network": name,
            "architecture_version": str(ARCHITECTURE_VERSION),
            "weights_id": model.weights_id,
            "weights_sha256": model.weights_sha256,
            "preset": model.config.preset,
            "config": json.dumps(model.config.to_dict()),
            "layout": LAYOUT,
            "padding": PADDING,
            "weights_dtype": "float32",
        },
    )
    onnx.checker.check_model(proto, full_check=True)
    return Graph(name, proto)


def properties(proto: Any) -> dict[str, str]:
    """What a file says about itself, by the names of docs/onnx.md without their prefix."""
    rows = {str(p.key): str(p.value) for p in proto.metadata_props}
    return {key.removeprefix(PREFIX): value for key, value in rows.items() if key.startswith(PREFIX)}


def _set_properties(proto: onnx.ModelProto, values: dict[str, str]) -> None:
    onnx.helper.set_model_props(proto, {PREFIX + k: v for k, v in (properties(proto) | values).items()})


def _strip(proto: onnx.ModelProto) -> None:
    """Leave out what the exporter tells about itself: paths of source files, and shapes that are inferred."""
    graph = proto.graph
    del proto.metadata_props[:], graph.value_info[:], graph.metadata_props[:]
    graph.doc_string = ""
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""


SIZES = ((96, 160), (208, 112))  # heights and widths of pictures, none of which is the exporter's example
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
    worst = 0.0
    for seed, (height, width) in enumerate(sizes):
        given: tuple[Tensor, ...] = (example_picture(height, width, seed),)
        expected = latents = EncoderGraph(model)(*given)
        if graph.name == "decoder":
            latents[2][:, -1] = seed % 2  # the paint amount: without paint, and with
            paint = properties(graph.model)["paint"] == "yes"
            given, expected = latents, (DecoderGraph(model, paint)(*latents),)
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
