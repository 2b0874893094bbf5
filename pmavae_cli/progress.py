"""Bars of runs and downloads, and the line of a training: on stderr, and live on a terminal only.

They are below all that is printed meanwhile, and bars are gone when a run ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pmavae_cli.api import Progress as Report
from pmavae_cli.console import Console, one_line

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress, TaskID


WIDEST_NAME = 40  # columns


class Bars:
    """How far a run is, and how far the picture at work; this class shows nothing."""

    def done(self, count: int) -> None:
        """So many of the pictures have ended, well or not."""

    @contextmanager
    def picture(self, name: str) -> Iterator[Report]:
        """What to call with the parts done and the parts of all, of the picture at work."""
        yield lambda done, total, note="": None


@contextmanager
def bars(console: Console, pictures: int) -> Iterator[Bars]:
    """The bars of a run that has so many pictures to do; of a single one there is only its own."""
    if console.quiet or not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield Bars()
        return
    shown = _Shown(console, pictures)
    console.aside = shown.aside
    try:
        yield shown
    finally:
        console.aside = nullcontext
        shown.hide()


class _Shown(Bars):
    """Bars on a terminal."""

    def __init__(self, console: Console, pictures: int) -> None:
        from rich.console import Console as RichConsole

        self._console = console
        self._screen = RichConsole(stderr=True)
        self._start = time.perf_counter()
        self._batch = _batch_bar(self._screen)
        self._picture = _picture_bar(self._screen)
        self._all: TaskID | None = None
        self._live: Live | None = None
        if pictures > 1:
            self._all = self._batch.add_task("", total=pictures, rate="", left="", failed="")
        self._show()

    def done(self, count: int) -> None:
        """So many of the pictures have ended, well or not."""
        if self._all is not None:
            self._batch.update(self._all, completed=count)

    @contextmanager
    def picture(self, name: str) -> Iterator[Report]:
        """What to call with the parts done and the parts of all; the bar is shown from the first call on."""
        from rich.markup import escape

        task = self._picture.add_task(escape(one_line(name)), total=None, note="", visible=False)

        begun = False

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal begun
            if total > 1:
                self._picture.update(task, completed=done, total=total, note=escape(note), visible=True)
                self._show()
                if self._live and not begun:
                    self._live.refresh()
                begun = True

        try:
            yield show
        finally:
            last = self._live if self._all is None else None
            if last:
                last.refresh()
            self._picture.remove_task(task)
            if last:
                self.hide()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The bars are out of the way while something is printed."""
        showing = self._live is not None
        self.hide()
        try:
            yield
        finally:
            if showing:
                self._show()

    def hide(self) -> None:
        """Take the bars off the terminal."""
        live, self._live = self._live, None
        if live:
            live.stop()

    def _show(self) -> None:
        from rich.live import Live

        if self._live or (self._all is None and not any(task.visible for task in self._picture.tasks)):
            return
        # A display that is started again would erase what was printed since it stopped, hence a new one.
        self._live = Live(
            get_renderable=self._render,
            console=self._screen,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _render(self) -> Group:
        from rich.console import Group

        if self._all is not None:
            task = self._batch.tasks[0]
            seconds = time.perf_counter() - self._start
            rate = task.completed / seconds if task.completed else 0.0
            left = (task.total or 0) - task.completed
            failed = self._console.failures
            self._batch.update(
                self._all,
                rate=_rate(rate) if rate else "",
                left=f"{_clock(left / rate)} left" if rate else "",
                failed=f"{failed} failed" if failed else "",
            )
        rows = [bar.get_renderable() for bar in (self._batch, self._picture) if _visible(bar)]
        return Group(*rows)


def _visible(bar: Progress) -> bool:
    return any(task.visible for task in bar.tasks)


def _batch_bar(screen: RichConsole) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("[red]{task.fields[failed]}"),
        console=screen,
        auto_refresh=False,
    )


def _picture_bar(screen: RichConsole) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn(
            "{task.description}",
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=WIDEST_NAME),
        ),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=screen,
        auto_refresh=False,
    )


def _rate(rate: float) -> str:
    return f"{rate:.{0 if rate >= 10 else 1 if rate >= 1 else 2}f} pictures/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def download_bar(console: Console, name: str) -> type[DownloadBar]:
    """What `huggingface_hub` takes as `tqdm_class`; it shows nothing with -q or off a terminal.

    name: of what is fetched, as the user knows it; the client tells the hash.
    """
    dumb = os.environ.get("TERM") in ("dumb", "unknown")
    if console.quiet or dumb or not sys.stderr.isatty():
        return DownloadBar
    return type("NamedBar", (ShownBar,), {"name": name})


class DownloadBar:
    """As much of tqdm as the Hub's client uses; shows nothing."""

    def __init__(self, *_: Any, total: float | None = None, initial: float = 0, **__: Any) -> None:
        self.total, self.n = total, initial

    def update(self, n: float | None = 1) -> None:
        """So many bytes more."""
        self.n += n or 0

    def close(self) -> None:
        """No more of them."""

    def refresh(self, *_: Any, **__: Any) -> None:
        """Show the fields as they are now."""

    def set_description(self, *_: Any, **__: Any) -> None:
        """Not shown."""

    set_description_str = set_postfix_str = set_description

    def reset(self, total: float | None = None) -> None:
        """From the start again."""
        self.n, self.total = 0, total if total is not None else self.total

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShownBar(DownloadBar):
    """A bar with bytes, their rate and the time left."""

    name = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        from rich.markup import escape

        super().__init__(*arguments, **options)
        self._shown: Progress | None = _bar()
        self._task = self._shown.add_task(
            escape(one_line(self.name)), total=self.total, completed=int(self.n)
        )
        self._shown.start()

    def update(self, n: float | None = 1) -> None:
        super().update(n)
        self.refresh()

    def refresh(self, *_: Any, **__: Any) -> None:
        if self._shown is not None:
            self._shown.update(self._task, completed=self.n, total=self.total)

    def reset(self, total: float | None = None) -> None:
        super().reset(total)
        self.refresh()

    def close(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


def _bar() -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=RichConsole(stderr=True), transient=True)


SHOWN = ("loss", "psnr", "l1", "gram", "content", "learning_rate", "images_per_second", "waiting")


def span(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Display:
    """The progress of one session; says nothing in a process that is not the main one."""

    def __init__(self, console: Console, speaks: bool, progress: float) -> None:
        self.console, self.speaks = console, speaks and not console.quiet
        self.began, self.first = time.monotonic(), progress
        self.live: Any = None
        if self.speaks and sys.stderr.isatty():
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, Progress, TextColumn

            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%  {task.fields[values]}"),
                console=RichConsole(stderr=True),
            )
            self.task = self.live.add_task("training", total=1.0, completed=progress, values="")

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def advance(self, progress: float, phase: str, row: dict[str, float] | None) -> None:
        """After a step; `row` is there every so many steps."""
        if not self.speaks or row is None:
            return
        text = self._text(progress, row)
        if self.live is not None:
            self.live.update(self.task, completed=progress, description=phase, values=text)
        else:
            self.console.note(f"{phase}  step {row['step']:.0f}  {text}")

    def say(self, message: str) -> None:
        """A line of its own, above the live one."""
        if not self.speaks:
            return
        if self.live is not None:
            self.live.console.print(message, markup=False, highlight=False)
        else:
            self.console.note(message)

    def _text(self, progress: float, row: dict[str, float]) -> str:
        done = progress - self.first
        left = (time.monotonic() - self.began) / done * (1 - progress) if done > 0 else float("inf")
        values = [f"{name.replace('_', ' ')} {row[name]:.4g}" for name in SHOWN if name in row]
        if row.get("skipped"):
            values.append(f"skipped {row['skipped']:.0f}")
        return "  ".join([*values, f"left {span(left) if left < 1e6 else '?'}"])
