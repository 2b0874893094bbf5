"""What a run on Ray consists of, and the messages of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmavae_cli.console import Console
from pmavae_cli.options import RunOptions
from pmavae_cli.run.jobs import Job

Said = tuple[str, tuple[Any, ...]]  # a method of a Console, and its arguments


@dataclass(frozen=True)
class Work:
    """All that the workers of a run are told before they begin."""

    task: str  # its name; the class is that of the worker's own installation
    version: str  # of pmavae
    values: Mapping[str, Any]  # of the task's parameters, files as Sources
    options: RunOptions
    folder: Path  # in which relative names mean what they do on the command line
    mark: str  # begins the names of temporary files


@dataclass(frozen=True)
class Started:
    """The cluster is there, and the pictures are begun."""


@dataclass(frozen=True)
class Row:
    """One job that ended, well or not."""

    index: int
    said: list[Said]


@dataclass(frozen=True)
class Refusal:
    """What is wrong with all of the run."""

    message: str
    status: int  # of the exit: 2 for wrong usage
    trace: str = ""


Message = Started | Row | Refusal | None  # None: there are no more


@dataclass(frozen=True)
class Batch:
    """The work and the jobs, as the process that talks to Ray gets them."""

    work: Work
    jobs: list[Job]
    address: str  # "local" for a cluster of this machine
    temporary: Path  # where a local cluster keeps its files


class Recorder(Console):
    """Keeps what is said in a worker, to be said where the run was started."""

    said: list[Said]

    def take(self) -> list[Said]:
        """All that was said since the last time."""
        self.first()
        said, self.said = self.said, []
        return said

    def note(self, message: str, *, once: str | None = None) -> None:
        """See Console."""
        self.first()
        self.said.append(("note", (message, once)))

    def detail(self, message: str, *, once: str | None = None) -> None:
        """See Console."""
        self.first()
        self.said.append(("detail", (message, once)))

    def result(self, row: dict[str, Any]) -> None:
        """See Console."""
        self.said.append(("result", (row,)))

    def failed(self, name: str, task: str, message: str, trace: str = "") -> None:
        """See Console."""
        self.first()
        self.said.append(("failed", (name, task, message, trace)))


def recorder(options: RunOptions) -> Recorder:
    """One that has said nothing."""
    console = Recorder(debug=options.debug)
    console.said = []
    return console


def say_again(console: Console, said: list[Said]) -> None:
    """What a recorder kept."""
    for method, arguments in said:
        if method == "note":
            console.note(arguments[0], once=arguments[1])
        elif method == "detail":
            console.detail(arguments[0], once=arguments[1])
        elif method == "result":
            console.result(*arguments)
        else:
            console.failed(*arguments)
