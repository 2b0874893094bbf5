"""A bar on stderr while one picture takes its time: on a terminal only, and gone when it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pmavae_cli.api import Progress as Report
from pmavae_cli.console import Console


@contextmanager
def progress_bar(console: Console, name: str) -> Iterator[Report]:
    """What to call with the parts done and the parts of all; the bar is shown from the first call on."""
    if console.quiet or not sys.stderr.isatty():
        yield lambda done, total, note="": None
        return
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=RichConsole(stderr=True),
        transient=True,
    )
    task = bar.add_task(escape(name), total=None, note="")

    def show(done: int, total: int, note: str = "") -> None:
        if total > 1:
            bar.start()
            bar.update(task, completed=done, total=total, note=escape(note))

    try:
        yield show
    finally:
        bar.stop()
