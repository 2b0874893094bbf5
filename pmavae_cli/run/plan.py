"""Which file every input becomes, decided and checked before a model is loaded.

A refusal here has touched nothing.
"""

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
    named = None if options.output == STDOUT else options.output
    beside = options.output is None and not many_to_one

    def own(path: Path) -> list[Path]:
        if many_to_one:
            return naming.numbered(naming.gathered())
        return naming.numbered(naming.beside(path)) if beside else []

    target = Path(named) if named else None
    inputs = find_inputs(arguments, own, recursive=options.recursive, output=target)
    sources = inputs.sources
    if sum(source.path is None for source in [*sources, *others]) > 1:
        raise click.UsageError(f"{STDIN} (stdin) can be read only once.")
    if beside and any(source.path is None for source in sources) and inputs.many:
        raise click.UsageError("Say with -o FOLDER where the output of stdin and other inputs goes.")
    results = 1 if many_to_one else len(sources)
    folder = target if named and _is_folder(named, inputs.many and not many_to_one) else None
    if target and not folder and results > 1:
        raise Refused(f"{named} cannot hold {results} outputs: end it in / to name a folder")

    def outputs_of(source: Source) -> tuple[Output, ...]:
        if options.output == STDOUT or (beside and source.path is None):
            return (naming.stdout(results),)
        if folder:
            path = naming.gathered(folder) if many_to_one else naming.inside(folder, source)
        elif target:
            path = naming.as_given(target)
        else:
            path = naming.beside(source.path) if source.path and not many_to_one else naming.gathered()
        return naming.outputs(path)

    gathered = tuple(sources) if many_to_one else ()
    jobs = [Job(source, outputs_of(source), gathered) for source in sources[:results]]
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

    def beside(self, path: Path) -> Path:
        # "photo.safetensors" is the photo's latents; what else a task makes of it has the task's name.
        name = "style" if self.kind == "style" else self.task
        stem = path.stem if self.kind == "latents" and self._format is LATENTS else f"{path.stem}.{name}"
        return path.with_name(stem + self._suffix)

    def gathered(self, folder: Path = Path()) -> Path:
        return folder / (self.task + self._suffix)

    def inside(self, folder: Path, source: Source) -> Path:
        return folder / source.folder / (source.stem + self._suffix)

    def as_given(self, path: Path) -> Path:
        found = format_of(path)
        if found is None and self.options.format is None:
            known = ", ".join(f".{name}" for name in FORMAT_NAMES)
            raise click.UsageError(f"{path} has none of the suffixes {known}: add one, or give --format.")
        if found and self.options.format and found is not self._format:
            raise click.UsageError(f"--format {self.options.format} contradicts the name {path}.")
        return path

    def numbered(self, path: Path) -> list[Path]:
        if self.count == 1:
            return [path]
        return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, self.count + 1)]

    def outputs(self, path: Path) -> tuple[Output, ...]:
        return tuple(Output(path, format_of(path) or self._format) for path in self.numbered(path))
