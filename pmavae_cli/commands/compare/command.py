"""`pmavae compare`: how far apart two pictures are."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pmavae.config import PRESETS
from pmavae_cli.console import Console, print_json, print_table
from pmavae_cli.options import ANY_FILE, RunOptions, with_debug, with_offline, with_quiet, with_threads
from pmavae_cli.plugin_manager import Registry

if TYPE_CHECKING:
    from pmavae_cli.run.inputs import Source

SUFFIXES = (".png", ".html")


@click.command()
@click.argument("a", type=ANY_FILE)
@click.argument("b", type=ANY_FILE)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    metavar="PATH",
    help="Show them as well: a .png with A, B and their difference side by side, or an .html page with a "
    "slider between A and B.",
)
@click.option(
    "--gain",
    type=click.FloatRange(1, 255),
    default=8.0,
    show_default=True,
    help="How many times the difference is amplified where it is shown.",
)
@click.option("--resize", is_flag=True, help="Resize B to the size of A, where they differ.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="tiny",
    show_default=True,
    help="The model that decodes latent files.",
)
@click.option(
    "--weights",
    type=ANY_FILE,
    metavar="NAME|PATH",
    help="Weights: an id, a file, a folder, or org/name[@revision][:file] on the Hugging Face Hub. "
    "Default: those of the preset.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@with_offline
@with_threads
@with_quiet
@with_debug
@click.pass_context
def compare(
    ctx: click.Context,
    a: str,
    b: str,
    output: Path | None,
    gain: float,
    resize: bool,
    overwrite: bool,
    as_json: bool,
    preset: str,
    weights: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Compare two pictures or latent files: PSNR, SSIM, the largest difference and the mean shift.

    Differences are in levels of 0 to 255, and shifts those from A to B. Where one has transparency, both
    lie on white, and their transparency is compared as well.
    """
    from pmavae_cli.run.inputs import STDIN, single_input

    if a == STDIN and b == STDIN:
        raise click.UsageError("Only one of A and B can be - (stdin).")
    sources = single_input(a, "A"), single_input(b, "B")
    if output:
        check_output(output, sources, overwrite)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pmavae_cli.commands.compare.work import compare_sources, facts, show, table

    given = ctx.get_parameter_source("preset") is click.core.ParameterSource.COMMANDLINE
    options = RunOptions(
        preset=preset, preset_given=given, weights=weights, device=device, threads=threads, quiet=quiet
    )
    console = Console(quiet=quiet, json=as_json, debug=debug)
    registry = ctx.find_object(Registry)
    compared = compare_sources(*sources, options, console, resize, registry.weights if registry else None)
    if output:
        show(compared, output, gain, overwrite, console)
    if as_json:
        print_json({**facts(compared), "output": str(output) if output else None})
    else:
        print_table(table(compared))


def check_output(output: Path, sources: tuple[Source, ...], overwrite: bool) -> None:
    """Refuse, before anything is read, an output that cannot or must not be written."""
    from pmavae_cli.run.jobs import Refused

    if output.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"{output} has none of the suffixes {' and '.join(SUFFIXES)}: add one.")
    try:
        there = output.exists()
        for source in sources:
            if there and source.path and output.samefile(source.path):
                raise Refused(f"{output} would replace the input {source.name}: give another -o")
        if output.is_dir():
            raise Refused(f"{output} is a folder: give a file")
        device = there and not stat.S_ISREG(output.stat().st_mode)
        if os.path.lexists(output) and not device and not overwrite:
            raise Refused(f"{output} exists: use --overwrite to replace it")
        folder = output.parent
        if not folder.is_dir():
            raise Refused(f"{output} cannot be written: there is no folder {folder}; make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(f"{output} cannot be written: no permission for {folder}; give another -o")
    except OSError as reason:  # a name that is too long, a folder that may not be searched
        raise Refused(f"{output} cannot be written: {reason.strerror or reason}; give another -o") from None
