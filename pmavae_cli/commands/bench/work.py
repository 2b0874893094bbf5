"""The loop of every benchmark: pictures go through models and baselines, which are timed and scored."""

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from pmavae.errors import PMAVAEError
from pmavae.files.tensors import write_atomically
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.resolve import Found
from pmavae.training.evaluation import picture_paths, read_rgb
from pmavae_cli.api import Task
from pmavae_cli.commands.bench.baselines import BASELINES, Baseline, Pixels
from pmavae_cli.console import Console, print_json, print_table
from pmavae_cli.progress import find_weights

Row = dict[str, Any]  # names, measures, and the seconds that it took
Columns = Mapping[str, tuple[str, str]]  # the heading and the format of each part of a row that is shown
Network = TypeVar("Network")

WARM_UP_SIDE = 64  # px


@dataclass(frozen=True)
class Method:
    """One way with a case: a picture, or a picture that was damaged."""

    run: Callable[[Any], Any]
    takes: Callable[[Any], bool] = lambda case: True  # whether it is made for that


@dataclass
class Bench:
    """One run of `pmavae bench`."""

    console: Console
    peers: str  # as --peers has them
    save: Path | None
    index: WeightsIndex  # the weights that have a name
    tasks: Mapping[str, Task]  # whose way with a picture is measured too
    pictures: list[tuple[int, Path]] = field(default_factory=list)  # with their number in their folder
    failures: list[Path] = field(default_factory=list)

    def find_pictures(self, folders: Iterable[Path], limit: int | None) -> None:
        """The first `limit` pictures of each folder; a folder may fail."""
        for folder in dict.fromkeys(folders):
            try:
                self.pictures += list(enumerate(picture_paths(folder)))[:limit]
            except PMAVAEError as error:
                self._failed(folder, error)

    def _failed(self, path: Path, error: PMAVAEError) -> None:
        """Name a picture or folder that cannot be used; the others go on."""
        self.failures.append(path)
        self.console.failure(str(path), "bench", error)

    def baselines(self, task: str, noisy: bool = True) -> dict[str, Baseline]:
        """What --peers asks for; by auto, those that can be used. noisy: whether there is noise to take away.

        Raises click.UsageError for one that is not known, PMAVAEError for one that cannot be used.
        """
        if self.peers == "none":
            return {}
        known = {name: baseline for name, baseline in BASELINES.items() if baseline.task == task}
        found = {}
        for name in known if self.peers == "auto" else names_of(self.peers, "--peers", known):
            reason = known[name].missing()
            if known[name].noise_only and not noisy:
                reason = f"{name} is for noise alone, which none of --conditions has"
            if reason is None:
                found[name] = known[name]
            elif self.peers != "auto":
                raise PMAVAEError(f"peer {name} cannot be compared with: {reason}")
            else:
                self.console.detail(f"peer {name} is left out: {reason}")
        return found

    def load(self, weights: Iterable[str], task: str, open: Callable[[Found], Network]) -> dict[str, Network]:
        """The networks by the names of their rows. Raises PMAVAEError for weights that cannot be had."""
        found: dict[str, Network] = {}
        for name in dict.fromkeys(weights):
            network: Any = open(find_weights(name, task, self.index, self.console))
            # Files that differ may have one id: that of a run has its folder's name and its step.
            label = network.weights_id
            found[f"{label} ({name})" if label in found else label] = network
        return found

    def measure(
        self,
        column: str,
        methods: Mapping[str, Method],
        cases: Callable[[Pixels, int], Iterable[Any]],
        score: Callable[[Any, Any], Row],
    ) -> list[Row]:
        """Each method on each case that it takes, picture by picture; errors are told, and the rest goes on.

        column: what a row calls the name of its method. cases: of a picture and its number.
        """
        # Every method is run once before, so that no figure has the time of loading kernels in it.
        blank = np.random.default_rng(0).integers(0, 256, (WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
        for method in methods.values():
            if (case := next(filter(method.takes, cases(blank, 0)), None)) is not None:
                method.run(case)
        rows = []
        for number, path in self.pictures:
            try:
                picture = read_rgb(path)
            except PMAVAEError as error:
                self._failed(path, error)
                continue
            for case in cases(picture, number):
                for name, method in methods.items():
                    if not method.takes(case):
                        continue
                    began = time.perf_counter()
                    try:
                        result = method.run(case)
                    except PMAVAEError as error:
                        self._failed(path, error)
                        continue
                    seconds = time.perf_counter() - began
                    row = {column: name, "picture": str(path), **score(case, result), "seconds": seconds}
                    rows.append(row)
                    if self.console.json and not self.console.quiet:
                        print_json(_finite(row))
        return rows

    def finish(self, tables: Sequence[list[list[str]]], **rows: list[Row]) -> None:
        """Print the tables, or in JSON all but the single rows; keep everything where --save has it."""
        report = {kind: [_finite(row) for row in found] for kind, found in rows.items()}
        if self.console.json:
            for row in (row for kind, found in report.items() if kind != "rows" for row in found):
                print_json(row)
        else:
            for number, table in enumerate(tables):
                if number:
                    click.echo()
                print_table(table)
        if self.save:
            write_atomically(self.save, json.dumps(report, indent=1).encode(), error=PMAVAEError)


def _finite(row: Row) -> Row:
    """For JSON, which has no infinity: null stands for it."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def means(rows: Iterable[Row], *by: str) -> list[Row]:
    """The mean over the pictures of all rows that have the same names, in the order of the first name."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    firsts = [names[0] for names in groups]
    return [_mean(groups[names]) for names in sorted(groups, key=lambda names: firsts.index(names[0]))]


def _mean(rows: list[Row]) -> Row:
    found: Row = {}
    for key, value in rows[0].items():
        known = [row[key] for row in rows if row[key] is not None]
        found[key] = value if isinstance(value, str) else statistics.fmean(known) if known else None
    return {**found, "picture": "mean"}


def table(rows: Iterable[Row], columns: Columns) -> list[list[str]]:
    """The rows under their headings."""
    return [
        [heading for heading, _ in columns.values()],
        *(
            ["-" if row[key] is None else format(row[key], spec) for key, (_, spec) in columns.items()]
            for row in rows
        ),
    ]


def relative_time(row: Row, first: float | None) -> str | None:
    """How many times as long as the first model it took; None where that is not known."""
    return f"{row['seconds'] / first:.2f} x" if first else None


def names_of(text: str, option: str, known: Iterable[str]) -> list[str]:
    """Names by comma, each once; raises click.UsageError for one that is not known."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"{option} {unknown[0]} is none of {', '.join(known)}.")
    return names
