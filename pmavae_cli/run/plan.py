"""Which file every input becomes, decided and checked before a model is loaded.

A refusal here has touched nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pmavae_cli.api import Task
from pmavae_cli.images.formats import (
    FORMAT_NAMES,
    LATENTS,
    PNG,
    STDOUT,
    Format,
    Output,
    format_named,
    format_of,
)
from pmavae_cli.options import RunOptions
from pmavae_cli.run.checks import (
    check_folders,
    check_space,
    mark_existing,
    refuse_collisions,
    refuse_folders,
    refuse_long_name,
    refuse_pictures,
)
from pmavae_cli.run.inputs import STDIN, Source, find_inputs
from pmavae_cli.run.jobs import Job, Plan, Refused


def make_plan(
    task: Task,
    count: int,
    arguments: Sequence[str],
    others: Sequence[Source],
    options: RunOptions,
    *,
    kind: str | None = None,
    many_to_one: bool = False,
    scale: int = 1,
) -> Plan:
    """Name every output and check it.

    count: how many outputs an input has. others: further files that are read, such as a style.
    kind: of outputs whose suffix does not say it: "image", "latents" or "style"; by the task without.
    many_to_one: all inputs have these outputs together. scale: how many times as wide and high as its input
    an output is.
    Raises Refused or a click.UsageError for what cannot be done, whatever the pictures are.
    """
    if options.output == "":
        raise click.UsageError("-o has an empty name.")
    if options.overwrite and options.skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other.")
    if options.shard and many_to_one:
        raise click.UsageError(f"--shard parts the inputs, and {task.name} makes one output of them all.")
    if options.output:
        refuse_long_name(Path(options.output))
    kind = kind or task.writes
    naming = Naming(task.name, count, options, kind)
    beside = options.output is None and not many_to_one
    folder: Path | None = None
    own = naming.beside if beside else lambda path: naming.gathered() if many_to_one else ()
    named = Path(options.output) if options.output not in (None, STDOUT) else None
    inputs = find_inputs(arguments, own, recursive=options.recursive, output=named)
    sources = inputs.sources
    if sum(source.path is None for source in [*sources, *others]) > 1:
        raise click.UsageError(f"{STDIN} (stdin) can be read only once.")
    if beside and any(source.path is None for source in sources) and inputs.many:
        raise click.UsageError("Say with -o FOLDER where the output of stdin and other inputs goes.")
    if many_to_one:
        outputs, folder = _gathered_outputs(naming, options.output)
        jobs = [Job(sources[0], outputs, tuple(sources))] if sources else []
    elif options.output == STDOUT or (beside and any(source.path is None for source in sources)):
        jobs = [Job(source, (naming.stdout(len(sources)),)) for source in sources]
    elif options.output is None:
        jobs = [Job(s, naming.outputs(naming.beside(s.path))) for s in sources if s.path]
    elif _is_folder(options.output, inputs.many):
        folder = Path(options.output)
        jobs = [Job(s, naming.outputs(naming.inside(folder, s))) for s in sources]
    elif len(sources) > 1:
        raise Refused(f"{options.output} cannot hold {len(sources)} outputs: end it in / to name a folder")
    else:
        jobs = [Job(s, naming.outputs(naming.as_given(Path(options.output)))) for s in sources]
    if kind == "style":
        refuse_pictures(jobs)
    for path in (output.path for job in jobs for output in job.outputs if output.path):
        refuse_long_name(path)
    refuse_collisions(jobs, [*sources, *others, *_weights(options)])
    failures = inputs.failures
    if options.shard:  # only now, as two shards must not collide either
        jobs, failures = options.shard.of(jobs), options.shard.of(failures)
    refuse_folders(jobs)
    if not options.overwrite:
        jobs = mark_existing(jobs, options.skip_existing)
    check_folders(jobs, may_make=folder is not None)
    if kind != "style" and not many_to_one:
        check_space(jobs, scale, options)
    return Plan(jobs, failures)


def _weights(options: RunOptions) -> list[Source]:
    """The weights, where they are a file, which then is read as well; an id or a repository is none."""
    name = options.weights
    return [Source(name, Path(name))] if name and os.path.lexists(name) else []


def _gathered_outputs(naming: Naming, output: str | None) -> tuple[tuple[Output, ...], Path | None]:
    """The outputs that all inputs have together, and the folder that may be made for them."""
    if output == STDOUT:
        return (naming.stdout(1),), None
    if output is None:
        return naming.outputs(naming.gathered()), None
    if _is_folder(output, many=False):
        return naming.outputs(naming.gathered(Path(output))), Path(output)
    return naming.outputs(naming.as_given(Path(output))), None


def _is_folder(output: str, many: bool) -> bool:
    if output.endswith(("/", os.sep)):
        return True
    try:
        if Path(output).is_dir():
            return True
    except OSError:
        return False
    return many and format_of(Path(output)) is None


@dataclass(frozen=True)
class Naming:
    """The names of outputs."""

    task: str
    count: int
    options: RunOptions
    kind: str  # "image", "latents" or "style"

    @property
    def _format(self) -> Format:
        """Where no file name says it."""
        if self.options.format:
            return format_named(self.options.format)
        return PNG if self.kind == "image" else LATENTS

    @property
    def _suffix(self) -> str:
        return f".{self.options.format}" if self.options.format else self._format.suffixes[0]

    def stdout(self, sources: int) -> Output:
        if sources * self.count > 1:
            raise click.UsageError(f"-o {STDOUT} (stdout) can hold one output only.")
        if self.options.json:
            raise click.UsageError("--json cannot share stdout with a picture: give -o FILE.")
        if sys.stdout.isatty():
            raise click.UsageError("stdout is a terminal: redirect it, or give -o FILE.")
        return Output(None, self._format)

    def beside(self, path: Path) -> list[Path]:
        # "photo.safetensors" is the photo's latents; what else a task makes of it has the task's name.
        name = "style" if self.kind == "style" else self.task
        stem = path.stem if self.kind == "latents" and self._format is LATENTS else f"{path.stem}.{name}"
        return self._numbered(path.with_name(stem + self._suffix))

    def gathered(self, folder: Path = Path()) -> list[Path]:
        return self._numbered(folder / (self.task + self._suffix))

    def inside(self, folder: Path, source: Source) -> list[Path]:
        return self._numbered(folder / source.folder / (source.stem + self._suffix))

    def as_given(self, path: Path) -> list[Path]:
        found = format_of(path)
        if found is None and self.options.format is None:
            known = ", ".join(f".{name}" for name in FORMAT_NAMES)
            raise click.UsageError(f"{path} has none of the suffixes {known}: add one, or give --format.")
        if found and self.options.format and found is not self._format:
            raise click.UsageError(f"--format {self.options.format} contradicts the name {path}.")
        return self._numbered(path)

    def _numbered(self, path: Path) -> list[Path]:
        if self.count == 1:
            return [path]
        return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, self.count + 1)]

    def outputs(self, paths: list[Path]) -> tuple[Output, ...]:
        return tuple(Output(path, format_of(path) or self._format) for path in paths)
