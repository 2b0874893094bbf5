"""`pmavae export`: a model as files for other runtimes."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click

from pmavae.config import PRESETS
from pmavae_cli.console import Console
from pmavae_cli.options import ANY_FILE, RunOptions, with_debug, with_offline, with_quiet, with_threads
from pmavae_cli.plugin_manager import Registry

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
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line, with sizes, operators and error."
)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="tiny", show_default=True)
@click.option(
    "--weights",
    type=ANY_FILE,
    metavar="NAME|PATH",
    help="Weights: an id, a file, a folder, or org/name[@revision][:file] on the Hugging Face Hub. "
    "Default: those of the preset.",
)
@with_offline
@with_threads
@with_quiet
@with_debug
@click.pass_context
def export(
    ctx: click.Context,
    output: Path,
    form: str,
    half: bool,
    no_paint: bool,
    overwrite: bool,
    as_json: bool,
    preset: str,
    weights: str | None,
    threads: int | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Write the encoder and the decoder as ONNX files, for pictures of any size.

    Both are run in onnxruntime and compared with torch first: a file that differs by more than 0.001, with
    --half 0.01, is not written. Needs the extra onnx.
    """
    from pmavae_cli.run.jobs import Refused

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise Refused(f"--format {form} needs {missing[0]}: pip install 'pmavae[onnx]'")
    for name in FILES:
        if os.path.lexists(output / name) and not overwrite:
            raise Refused(f"{output / name} exists: use --overwrite to replace it")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pmavae_cli.commands.export.work import export_onnx

    given = ctx.get_parameter_source("preset") is click.core.ParameterSource.COMMANDLINE
    options = RunOptions(
        preset=preset, preset_given=given, weights=weights, device="cpu", threads=threads, quiet=quiet
    )
    console = Console(quiet=quiet, json=as_json, debug=debug)
    registry = ctx.find_object(Registry)
    export_onnx(output, options, console, registry.weights if registry else None, half, not no_paint)
