"""What a run on Ray consists of, and the messages of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pmavae.errors import PMAVAEError
from pmavae_cli.console import Console, describe_error
from pmavae_cli.options import RunOptions
from pmavae_cli.run.jobs import Job

Said = tuple[str, tuple[Any, ...], dict[str, Any]]  # a method of a Console, and its arguments


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

    @classmethod
    def of(cls, error: BaseException, options: RunOptions, message: str | None = None) -> Refusal:
        """What an error is to the user; message: what is said of one that nobody expected."""
        import traceback  # not for every start

        trace = "".join(traceback.format_exception(error)) if options.debug else ""
        if isinstance(error, click.ClickException):
            return cls(error.format_message(), error.exit_code, trace)
        expected = message is None or isinstance(error, PMAVAEError)
        return cls(describe_error(error) if expected else message or "", 1, trace)


def no_cluster(address: str, reason: str) -> PMAVAEError:
    """That nothing answers, and the remedy."""
    where = "on this machine" if address == "auto" else f"at {address}"
    return PMAVAEError(
        f"there is no Ray cluster {where} ({reason}): start one with ray start --head, or say --ray without "
        "an address for one of this machine alone"
    )


Message = Started | Row | Refusal | None  # None: there are no more


@dataclass(frozen=True)
class Batch:
    """The work and the jobs, as the process that talks to Ray gets them."""

    work: Work
    jobs: list[Job]
    address: str  # "local" for a cluster of this machine
    temporary: Path  # where a local cluster keeps its files


@dataclass
class Recorder(Console):
    """Keeps what is said in a worker, to be said where the run was started."""

    said: list[Said] = field(default_factory=list)

    def take(self) -> list[Said]:
        """All that was said since the last time."""
        self.first()
        said, self.said = self.said, []
        return said

    def note(self, message: str, *, once: str | None = None) -> None:
        self.first()
        self.said.append(("note", (message,), {"once": once}))

    def detail(self, message: str, *, once: str | None = None) -> None:
        self.first()
        self.said.append(("detail", (message,), {"once": once}))

    def result(self, row: dict[str, Any]) -> None:
        self.said.append(("result", (row,), {}))

    def failed(self, name: str, task: str, message: str, trace: str = "") -> None:
        self.first()
        self.said.append(("failed", (name, task, message, trace), {}))


def say_again(console: Console, said: list[Said]) -> None:
    """What a recorder kept."""
    for method, arguments, more in said:
        getattr(console, method)(*arguments, **more)
