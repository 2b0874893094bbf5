"""The options that every task has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import click

from pmavae.presets import PRESETS
from pmavae_cli.formats import FORMAT_NAMES

COMMON_OPTIONS = (
    click.Option(
        ["-o", "--output"],
        metavar="PATH",
        help="File, folder (existing, or ending in /) or - for stdout. Default: a new file beside the input.",
    ),
    click.Option(["--overwrite"], is_flag=True, help="Replace outputs that exist."),
    click.Option(["--skip-existing"], is_flag=True, help="Leave outputs that exist, and do the rest."),
    click.Option(
        ["--format"],
        type=click.Choice(FORMAT_NAMES, case_sensitive=False),
        help="Format of the output, where its name does not say.",
    ),
    click.Option(
        ["--quality"],
        type=click.IntRange(1, 100),
        default=95,
        show_default=True,
        help="Of JPEG and WebP files.",
    ),
    click.Option(
        ["--dtype"],
        type=click.Choice(["float16", "float32"]),
        default="float16",
        show_default=True,
        help="Precision of latents, in files and between steps.",
    ),
    click.Option(
        ["--preset"], type=click.Choice(list(PRESETS)), default="tiny", show_default=True, help="Model size."
    ),
    click.Option(
        ["--weights"],
        metavar="NAME|PATH",
        help="Weights by id, or a file, or a folder. Default: those of the preset.",
    ),
    click.Option(
        ["--device"],
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.Option(
        ["--threads"], type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: all cores."
    ),
    click.Option(
        ["--seed"],
        type=click.IntRange(0, 2**32 - 1),
        metavar="N",
        default=0,
        show_default=True,
        help="Of whatever is random: the same seed gives the same bytes.",
    ),
    click.Option(["--json"], is_flag=True, help="One JSON object a line on stdout, instead of paths."),
    click.Option(["-q", "--quiet"], is_flag=True, help="Say nothing but errors."),
    click.Option(["-v", "--verbose"], is_flag=True, help="Say what is done, and how long it takes."),
    click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
)


@dataclass(frozen=True)
class RunOptions:
    """The values of COMMON_OPTIONS."""

    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    format: str | None = None
    quality: int = 95
    dtype: str = "float16"
    preset: str = "tiny"
    preset_given: bool = False  # on the command line, so that other weights contradict it
    weights: str | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    @classmethod
    def take(cls, ctx: click.Context, values: dict[str, Any]) -> RunOptions:
        """Remove the common options from a command's values."""
        names = {f.name for f in fields(cls)} & set(values)
        given = ctx.get_parameter_source("preset") is click.core.ParameterSource.COMMANDLINE
        return cls(**{name: values.pop(name) for name in names}, preset_given=given)
