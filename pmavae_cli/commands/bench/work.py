"""What every kind of benchmark has in common: its pictures, its peers, and what becomes of its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pmavae.errors import PMAVAEError
from pmavae.files.tensors import write_atomically
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.training.evaluation import picture_paths
from pmavae_cli.api import Task
from pmavae_cli.console import Console, print_json, print_table

Row = dict[str, Any]


@dataclass
class BenchSession:
    """One run of `pmavae bench`."""

    console: Console
    peers: str  # as --peers has them
    save: Path | None
    index: WeightsIndex | None = None  # the weights that have a name; None for those that come with pmavae
    tasks: Mapping[str, Task] = field(default_factory=dict)  # whose way with a picture is measured too
    failures: list[Path] = field(default_factory=list)

    def pictures(self, folders: Iterable[Path], limit: int | None) -> list[tuple[int, Path]]:
        """The first `limit` pictures of each folder, with their number in it; a folder may fail."""
        found: list[tuple[int, Path]] = []
        for folder in dict.fromkeys(folders):
            try:
                found += list(enumerate(picture_paths(folder)))[:limit]
            except PMAVAEError as error:
                self.failed(folder, error)
        return found

    def failed(self, path: Path, error: PMAVAEError) -> None:
        """Name a picture or folder that cannot be used; the others go on."""
        self.failures.append(path)
        self.console.failure(str(path), "bench", error)

    def chosen_peers(self, missing: Mapping[str, Callable[[], str | None]]) -> list[str]:
        """The peers that --peers asks for, of those known and why each cannot be used here.

        Raises click.UsageError for one that is not known, PMAVAEError for one that is not here.
        """
        if self.peers == "none":
            return []
        asked = list(missing) if self.peers == "auto" else names_of(self.peers, "--peers", missing)
        chosen = []
        for name in asked:
            if (reason := missing[name]()) is None:
                chosen.append(name)
            elif self.peers != "auto":
                raise PMAVAEError(f"peer {name} cannot be compared with: {reason}")
            else:
                self.console.detail(f"peer {name} is left out: {reason}")
        return chosen

    def picture_row(self, row: Row) -> None:
        """One picture is done."""
        if self.console.json and not self.console.quiet:
            print_json(row)

    def finish(self, tables: list[list[list[str]]], summary: list[Row], report: dict[str, list[Row]]) -> None:
        """Print the tables, or in JSON the summary; keep the report where --save has it."""
        if self.console.json:
            for row in summary:
                print_json(row)
        else:
            for number, table in enumerate(tables):
                if number:
                    click.echo()
                print_table(table)
        if self.save:
            write_atomically(self.save, json.dumps(report, indent=1).encode(), error=PMAVAEError)


def names_of(text: str, option: str, known: Iterable[str]) -> list[str]:
    """Names by comma, each once; raises click.UsageError for one that is not known."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"{option} {unknown[0]} is none of {', '.join(known)}.")
    return names
