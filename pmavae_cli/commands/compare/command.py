"""`pmavae compare`: how far apart two pictures are."""

from pathlib import Path
from typing import Any

import click

from pmavae_cli import options
from pmavae_cli.console import Console, print_json, print_table

SUFFIXES = (".png", ".html")


@click.command()
@click.argument("a", type=options.ANY_FILE)
@click.argument("b", type=options.ANY_FILE)
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
@options.with_overwrite()
@options.with_json("One JSON object.")
@options.with_preset("The model that decodes latent files.", default="tiny")
@options.with_weights
@options.with_device
@options.with_offline
@options.with_threads
@options.with_quiet
@click.pass_context
@options.with_console
def compare(
    ctx: click.Context,
    console: Console,
    a: str,
    b: str,
    output: Path | None,
    gain: float,
    resize: bool,
    overwrite: bool,
    **choice: Any,
) -> None:
    """Compare two pictures or latent files: PSNR, SSIM, the largest difference and the mean shift.

    Differences are in levels of 0 to 255, and shifts those from A to B. Where one has transparency, both
    lie on white, and their transparency is compared as well.
    """
    from pmavae_cli.run.checks import refuse_output
    from pmavae_cli.run.inputs import STDIN, single_input

    if a == STDIN and b == STDIN:
        raise click.UsageError("Only one of A and B can be - (stdin).")
    sources = single_input(a, "A"), single_input(b, "B")
    if output:
        if output.suffix.lower() not in SUFFIXES:
            raise click.UsageError(f"{output} has none of the suffixes {' and '.join(SUFFIXES)}: add one.")
        files = {source.path: f"the input {source.name}" for source in sources if source.path}
        refuse_output(output, files, overwrite)
    options.calm_threads()
    from pmavae_cli.commands.compare.work import compare_sources, facts, show, table

    choices = options.RunOptions.take(ctx, choice)
    compared = compare_sources(*sources, choices, console, resize, ctx.obj.weights)
    if output:
        show(compared, output, gain, overwrite, console)
    if console.json:
        print_json({**facts(compared), "output": str(output) if output else None})
    else:
        print_table(table(compared))
