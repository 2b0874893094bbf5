"""What a run says: results on stdout, everything else on stderr, one line each."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import click

from pmavae.errors import PMAVAEError


def one_line(text: str) -> str:
    """Text with line breaks and control characters made visible, so that a message is one line."""
    flat = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in flat)


def say(message: str) -> None:
    """One line on stderr."""
    click.echo(f"pmavae: {one_line(message)}", err=True)


def describe_error(error: BaseException) -> str:
    """What an error says: one that nobody expected, also what it is and how to see more."""
    if isinstance(error, PMAVAEError):
        return str(error)
    return f"unexpected error: {type(error).__name__}: {error}; run again with --debug for the traceback"


def print_json(row: dict[str, Any]) -> None:
    """One object on one line of stdout."""
    click.echo(json.dumps(row))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in aligned columns on stdout."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def show_table(
    rows: Sequence[Sequence[str]], styles: Mapping[str, str], other: str = "", right: str = ""
) -> None:
    """Rows under a heading, fitted to a terminal, with a style by the state in the last column.

    other: the style of a state that is not in `styles`; right: the heading of a column of numbers.
    """
    if not sys.stdout.isatty():
        # A table that fits its lines to a terminal would break those that another program reads.
        print_table(rows)
        return
    from rich import box
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold", justify="right" if column == right else "left")
    for row in rows[1:]:
        # Text, for names and errors may hold what rich reads as markup.
        table.add_row(*map(Text, row[:-1]), Text(row[-1], styles.get(row[-1], other)))
    Terminal().print(table)


@dataclass
class Console:
    """The voice of one run, as its options have it."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    debug: bool = False
    first: Callable[[], None] = lambda: None  # what has to be said before anything else is
    aside: Callable[[], AbstractContextManager[None]] = nullcontext  # keeps bars away from what is printed
    failures: int = 0  # said so far
    _said: set[str] = field(default_factory=set)

    def note(self, message: str, *, once: str | None = None) -> None:
        """Something that the user should know; not said with -q, and once a run where `once` names it."""
        if not self.quiet and self._is_new(once):
            self._say(message)

    def detail(self, message: str, *, once: str | None = None) -> None:
        """Something that only -v asks for, once a run where `once` names it."""
        if self.verbose and self._is_new(once):
            self._say(message)

    def _is_new(self, name: str | None) -> bool:
        new = name is None or name not in self._said
        self._said |= {name} if name else set()
        return new

    def _say(self, message: str) -> None:
        self.first()
        with self.aside():
            say(message)

    def result(self, row: dict[str, Any]) -> None:
        """An output that was written: its path, or with --json the whole row."""
        with self.aside():
            if self.json:
                print_json(row)
            elif row["output"] != "-":
                # The very bytes of the name, for the next program in the pipe.
                click.echo(os.fsencode(row["output"]))

    def skipped(self, name: str, inputs: Mapping[str, Any], output: str, task: str) -> None:
        """An output that was there already; `inputs` is what its row has of them."""
        self.detail(f"{output} exists, {name} is skipped")
        if self.json:
            print_json({**inputs, "output": output, "task": task, "status": "skipped"})

    def failure(self, name: str, task: str, error: Exception, message: str | None = None) -> None:
        """One input that failed, in one sentence that has its name: what the error says, or another."""
        trace = ""
        if self.debug:
            import traceback  # not for every start

            trace = "".join(traceback.format_exception(error))
        self.failed(name, task, one_line(message or str(error) or type(error).__name__), trace)

    def failed(self, name: str, task: str, message: str, trace: str = "") -> None:
        """As `failure`, for an error that is known by what it says."""
        self.first()
        self.failures += 1
        if not message.startswith((f"{name} ", f"{name}:")):
            message = f"{name}: {message}"
        with self.aside():
            say(message)
            click.echo(trace, err=True, nl=False)
            if self.json:
                print_json({"input": name, "task": task, "status": "failed", "error": one_line(message)})
