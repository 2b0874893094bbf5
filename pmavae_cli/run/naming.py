"""What an output is called."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from pmavae_cli.api import Task
from pmavae_cli.images.formats import FORMAT_NAMES, LATENTS, PNG, Format, format_named, format_of
from pmavae_cli.options import RunOptions
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.jobs import STDOUT, Output


@dataclass(frozen=True)
class Naming:
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
