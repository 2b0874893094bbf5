"""`pmavae export`: a model as ONNX files that were checked, for other runtimes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pmavae_cli import options
from pmavae_cli.console import Console

if TYPE_CHECKING:
    from pmavae.onnx.graphs import Graph

FILES = ("encoder.onnx", "decoder.onnx")
NEEDED = ("onnx", "onnxscript", "onnxruntime")


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    required=True,
    help=f"Where {' and '.join(FILES)} are written; it is made where there is none.",
)
@click.option("--format", "form", type=click.Choice(["onnx"]), default="onnx", show_default=True)
@click.option("--half", is_flag=True, help="Keep the weights as float16: files of half the size.")
@click.option("--no-paint", is_flag=True, help="A smaller, faster decoder, which paints no brush strokes.")
@options.with_overwrite("files that exist")
@options.with_json("One JSON object a line, with sizes, operators and error.")
@options.with_preset(default="tiny")
@options.with_weights
@options.with_offline
@options.with_threads
@options.with_quiet
@click.pass_context
@options.with_console
def export(
    ctx: click.Context,
    console: Console,
    output: Path,
    form: str,
    half: bool,
    no_paint: bool,
    overwrite: bool,
    **choice: Any,
) -> None:
    """Write the encoder and the decoder as ONNX files, for pictures of any size.

    Both are run in onnxruntime and compared with torch first: a file that differs by more than 0.001, with
    --half 0.01, is not written. Needs the extra onnx.
    """
    from pmavae_cli.run.checks import refuse_existing
    from pmavae_cli.run.jobs import Refused

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise Refused(f"--format {form} needs {missing[0]}: pip install 'pmavae[onnx]'")
    for name in FILES:
        refuse_existing(output / name, overwrite)
    options.calm_threads()
    import onnxruntime

    from pmavae.files.tensors import write_atomically
    from pmavae.onnx.graphs import check, decoder_graph, encoder_graph, halved
    from pmavae_cli.images.formats import OutputError
    from pmavae_cli.run.reader import Session

    choices = options.RunOptions.take(ctx, {**choice, "device": "cpu"})
    model = Session.open(choices, console, index=ctx.obj.weights).model
    console.note(f"{model.weights_id} is being exported, which takes a minute or more")
    graphs = [encoder_graph(model), decoder_graph(model, paint=not no_paint)]
    if half:
        graphs = [halved(graph) for graph in graphs]
    # None is written before all are checked.
    errors = [check(graph, model, threads=choices.threads or 0) for graph in graphs]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise OutputError(f"{output} cannot be made: {reason.strerror or reason}; give another -o") from None
    for graph, error in zip(graphs, errors, strict=True):
        path = output / f"{graph.name}.onnx"
        write_atomically(path, graph.data, error=OutputError)
        console.note(
            f"{path}: {len(graph.data) / 1e6:.2f} MB, {sum(graph.operators.values())} nodes, differs from "
            f"torch by {error:.1g} at most in onnxruntime {onnxruntime.__version__}"
        )
        facts = {**_facts(graph), "onnxruntime": onnxruntime.__version__, "max_abs_error": error}
        console.result({"output": str(path), **facts})


def _facts(graph: Graph) -> dict[str, Any]:
    """What there is to know of a file by itself."""
    from pmavae.onnx.graphs import SIZES, properties

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
    }
