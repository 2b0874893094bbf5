"""Writing a model as ONNX files that were checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from pmavae.files.tensors import write_atomically
from pmavae.onnx.graphs import SIZES, Graph, check, decoder_graph, encoder_graph, halved, properties
from pmavae.pretrained.manifest import WeightsIndex
from pmavae_cli.console import Console
from pmavae_cli.images.formats import OutputError
from pmavae_cli.options import RunOptions
from pmavae_cli.run.reader import Session


def export_onnx(
    folder: Path,
    options: RunOptions,
    console: Console,
    index: WeightsIndex | None,
    half: bool,
    paint: bool,
) -> None:
    """Write encoder.onnx and decoder.onnx, neither before both are checked.

    Raises ExportError, OutputError and WeightsError.
    """
    model = Session.open(options, console, index=index).model
    console.note(f"{model.weights_id} is being exported, which takes a minute or more")
    graphs = [encoder_graph(model), decoder_graph(model, paint=paint)]
    if half:
        graphs = [halved(graph) for graph in graphs]
    threads = options.threads or 0
    errors = [check(graph, model, threads=threads) for graph in graphs]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise OutputError(f"{folder} cannot be made: {reason.strerror or reason}; give another -o") from None
    for graph, error in zip(graphs, errors, strict=True):
        path = folder / f"{graph.name}.onnx"
        data = graph.data
        write_atomically(path, data, error=OutputError)
        console.note(
            f"{path}: {len(data) / 1e6:.2f} MB, {sum(graph.operators.values())} nodes, differs from torch by "
            f"{error:.1g} at most in onnxruntime {onnxruntime.__version__}"
        )
        console.result({"output": str(path), **facts(graph), "max_abs_error": error})


def facts(graph: Graph) -> dict[str, Any]:
    """What there is to know of a file, apart from how far it is from torch."""
    about = properties(graph.model)
    return {
        "network": graph.name,
        "bytes": len(graph.data),
        "parameters": graph.parameters,
        "nodes": sum(graph.operators.values()),
        "operators": graph.operators,
        "opset": graph.model.opset_import[0].version,
        **{key: about[key] for key in ("weights_id", "weights_sha256", "preset", "weights_dtype")},
        "paint": about.get("paint"),
        "checked_sizes": [list(size) for size in SIZES],
        "onnxruntime": onnxruntime.__version__,
    }
