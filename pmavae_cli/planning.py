"""Which file every input becomes, decided and checked before a model is loaded.

A refusal here has touched nothing.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import click

from pmavae.errors import PMAVAEError
from pmavae_cli.api import Task
from pmavae_cli.console import say
from pmavae_cli.formats import FORMAT_NAMES, LATENTS, PNG, Format, format_named, format_of
from pmavae_cli.inputs import STDIN, InputError, Source, find_inputs
from pmavae_cli.options import RunOptions

STDOUT = "-"


class Refused(click.ClickException):
    """A run that would overwrite or mix up files; wrong usage."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """One line, without the usage."""
        say(self.format_message())


class OutputError(PMAVAEError):
    """An output that cannot be written."""


@dataclass(frozen=True)
class Output:
    """One file to write."""

    path: Path | None  # None for stdout
    format: Format
    exists: bool = False  # and is to be left as it is

    @property
    def name(self) -> str:
        """What messages and results call it."""
        return str(self.path) if self.path else STDOUT


@dataclass(frozen=True)
class Job:
    """One input and its outputs, in the order of the task's results."""

    source: Source
    outputs: tuple[Output, ...]
    gathered: tuple[Source, ...] = ()  # all inputs, where they become these outputs together

    @property
    def name(self) -> str:
        """What messages call it."""
        more = len(self.gathered) - 1
        return f"{self.source.name} and {more} more" if more > 0 else self.source.name

    @property
    def named(self) -> dict[str, str | list[str]]:
        """What rows of results call it."""
        if self.gathered:
            return {"inputs": [source.name for source in self.gathered]}
        return {"input": self.source.name}


@dataclass(frozen=True)
class Plan:
    """All that a run will do, and the arguments that it cannot do."""

    jobs: list[Job]
    failures: list[tuple[str, InputError]]


def make_plan(
    task: Task,
    count: int,
    arguments: Sequence[str],
    others: Sequence[Source],
    options: RunOptions,
    *,
    style: bool = False,
    gathers: bool = False,
) -> Plan:
    """Name every output and check it.

    count: how many outputs an input has. others: further files that are read, such as a style.
    style: outputs are styles. gathers: all inputs have these outputs together.
    Raises Refused or a click.UsageError for wrong usage, OutputError for a folder that cannot be
    written to.
    """
    if options.output == "":
        raise click.UsageError("-o has an empty name.")
    if options.overwrite and options.skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other.")
    naming = _Naming(task, count, options, style)
    beside = options.output is None and not gathers
    folder: Path | None = None
    own = naming.beside if beside else lambda path: naming.gathered() if gathers else ()
    inputs = find_inputs(arguments, own)
    sources = inputs.sources
    if sum(source.path is None for source in [*sources, *others]) > 1:
        raise click.UsageError(f"{STDIN} (stdin) can be read only once.")
    if beside and any(source.path is None for source in sources) and inputs.many:
        raise click.UsageError("Say with -o FOLDER where the output of stdin and other inputs goes.")
    if gathers:
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
    if style:
        _refuse_pictures(jobs)
    _refuse_collisions(jobs, [*sources, *others])
    if not options.overwrite:
        jobs = _mark_existing(jobs, options.skip_existing)
    _check_folders(jobs, may_make=folder is not None)
    return Plan(jobs, inputs.failures)


@dataclass(frozen=True)
class _Naming:
    """The names of outputs."""

    task: Task
    count: int
    options: RunOptions
    style: bool

    @property
    def _format(self) -> Format:
        """Where no file name says it."""
        if self.options.format:
            return format_named(self.options.format)
        return LATENTS if self.style or self.task.writes == "latents" else PNG

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
        plain = self._format is LATENTS and self.task.writes == "latents"
        name = "style" if self.style else self.task.name
        stem = path.stem if plain and not self.style else f"{path.stem}.{name}"
        return self._numbered(path.with_name(stem + self._suffix))

    def gathered(self, folder: Path = Path()) -> list[Path]:
        return self._numbered(folder / (self.task.name + self._suffix))

    def inside(self, folder: Path, source: Source) -> list[Path]:
        return self._numbered(folder / (source.stem + self._suffix))

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


def _gathered_outputs(naming: _Naming, output: str | None) -> tuple[tuple[Output, ...], Path | None]:
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


def _refuse_pictures(jobs: list[Job]) -> None:
    for output in (output for job in jobs for output in job.outputs):
        if output.format.is_image:
            raise click.UsageError(
                f"{output.name} would be a {output.format.name} picture, which cannot hold a style: "
                "name a .safetensors file."
            )


def _refuse_collisions(jobs: list[Job], sources: list[Source]) -> None:
    read = {_identity(source.path): source.name for source in sources if source.path}
    makers: dict[str, Job] = {}
    for job in jobs:
        for output in job.outputs:
            if output.path is None or _is_device(output.path):
                continue
            identity = _identity(output.path)
            if identity and (name := read.get(identity)):
                raise Refused(f"{output.path} would replace the input {name}: give another -o")
            first = makers.setdefault(os.path.realpath(output.path), job)
            if first is not job:
                raise Refused(
                    f"{first.source.name} and {job.source.name} would both become {output.path}: "
                    "rename one, or run them apart"
                )


def _mark_existing(jobs: list[Job], skip: bool) -> list[Job]:
    existing = [o.path for job in jobs for o in job.outputs if o.path and _is_there(o.path)]
    if existing and not skip:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise Refused(
            f"{existing[0]} exists{more}: use --overwrite to replace it, or --skip-existing to keep it"
        )
    kept = set(existing)
    return [
        replace(job, outputs=tuple(replace(output, exists=output.path in kept) for output in job.outputs))
        for job in jobs
    ]


def _check_folders(jobs: list[Job], may_make: bool) -> None:
    """Fail before hours of work, not after: the folder of every output must take files."""
    for output in {o.path.parent: o for job in jobs for o in job.outputs if o.path and not o.exists}.values():
        assert output.path is not None
        folder = output.path.parent
        while may_make and not os.path.lexists(folder) and folder != folder.parent:
            folder = folder.parent
        if not os.path.lexists(folder):
            raise OutputError(f"{output.path} cannot be written: there is no folder {folder}; make it first")
        if not folder.is_dir():
            raise OutputError(f"{output.path} cannot be written: {folder} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{output.path} cannot be written: no permission for {folder}; give another -o")


def _identity(path: Path) -> tuple[int, int] | None:
    """The file itself, whatever links and spellings lead to it; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_device(path: Path) -> bool:
    """Whether writing to the path replaces nothing, as with /dev/null."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _is_there(path: Path) -> bool:
    return os.path.lexists(path) and not _is_device(path)
