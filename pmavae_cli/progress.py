"""Bars of runs and downloads, and the line of a training: on stderr, and live on a terminal only.

They are below all that is printed meanwhile, and those of runs and downloads are gone in the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.resolve import Found, resolve
from pmavae_cli.api import Progress as Report
from pmavae_cli.console import Console, one_line

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress

WIDEST_NAME = 40  # columns
# A text in which a bar's values are filled in, or one of rich's columns.
_BATCH = ("MofNComplete", "Bar", "{task.fields[rate]}", "{task.fields[left]}", "[red]{task.fields[failed]}")
_PICTURE = ("{task.description}", "Bar", "{task.percentage:>3.0f}%", "TimeRemaining", "{task.fields[note]}")
_DOWNLOAD = ("{task.description}", "Bar", "Download", "TransferSpeed", "TimeRemaining")
_TRAINING = ("{task.description}", "Bar", "{task.percentage:>3.0f}%  {task.fields[values]}")


def is_shown(console: Console) -> bool:
    """Whether there is a terminal that can show bars, and somebody who wants them."""
    return not console.quiet and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class Bar:
    """One bar of a display; of one that is not shown, nothing."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def update(self, **values: Any) -> None:
        """New values: `completed`, `total`, `description` and those that its columns name."""
        if self.progress:
            self.progress.update(self.progress.task_ids[0], **_escaped(values))


def _escaped(values: dict[str, Any]) -> dict[str, Any]:
    """With no markup in texts."""
    from rich.markup import escape

    return {key: escape(value) if isinstance(value, str) else value for key, value in values.items()}


class Display:
    """Bars, one below the other, at the end of what is on the terminal; nothing where they are not shown."""

    def __init__(self, console: Console, stays: bool = False) -> None:
        """stays: whether the bars are left as they are in the end."""
        self.is_shown = is_shown(console)
        self._console, self._stays = console, stays
        self._bars: list[Progress] = []
        self._live: Live | None = None
        if self.is_shown:
            from rich.console import Console as RichConsole

            self._screen = RichConsole(stderr=True)

    def __enter__(self) -> Self:
        self._console.aside = self.aside
        return self

    def __exit__(self, *_: object) -> None:
        self._console.aside = nullcontext
        self._hide(last=True)

    def add(self, columns: tuple[str, ...], text: str = "", **values: Any) -> Bar:
        """A bar below the others; values: as `Bar.update` takes them, each that the columns name."""
        if not self.is_shown:
            return Bar(None)
        from rich import progress

        made = [
            progress.TextColumn(column) if "{" in column else getattr(progress, f"{column}Column")()
            for column in columns
        ]
        bar = progress.Progress(*made, console=self._screen, auto_refresh=False)
        bar.add_task(**_escaped({"description": one_line(text), **values}))
        self._bars.append(bar)
        self._show()
        return Bar(bar)

    def remove(self, bar: Bar) -> None:
        """Take a bar away; the last of all is shown as it is once more."""
        if not bar.progress:
            return
        if self._live and len(self._bars) == 1:
            self._live.refresh()
        self._bars.remove(bar.progress)
        if not self._bars:
            self._hide()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The bars are out of the way while something is printed."""
        self._hide()
        try:
            yield
        finally:
            self._show()

    def _hide(self, last: bool = False) -> None:
        live, self._live = self._live, None
        if live:
            live.transient = not (last and self._stays)
            live.stop()

    def _show(self) -> None:
        from rich.live import Live

        if not self._bars:
            return
        if self._live:
            self._live.refresh()
            return
        # A display that is started again would erase what was printed since it stopped, hence a new one.
        self._live = Live(
            get_renderable=self._render,
            console=self._screen,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def _render(self) -> Group:
        from rich.console import Group

        return Group(*(bar.get_renderable() for bar in tuple(self._bars)))


class Bars(Display):
    """How far a run is that has so many pictures to do, unless it is one, and how far the picture at work."""

    def __init__(self, console: Console, pictures: int) -> None:
        super().__init__(console)
        self._done, self._pictures, self._start = 0, pictures, time.perf_counter()
        self._batch = Bar(None)
        if pictures > 1:
            self._batch = self.add(_BATCH, total=pictures, rate="", left="", failed="")

    def done(self, count: int) -> None:
        """So many of the pictures have ended, well or not."""
        self._done = count

    @contextmanager
    def picture(self, name: str) -> Iterator[Report]:
        """What to call with the parts done and the parts of all; the bar is shown from the first call on."""
        bar: Bar | None = None

        def show(done: int, total: int, note: str = "") -> None:
            nonlocal bar
            if total > 1:
                if bar is None:
                    bar = self.add(_PICTURE, _shortened(name), completed=done, total=total, note=note)
                bar.update(completed=done, total=total, note=note)

        try:
            yield show
        finally:
            if bar:
                self.remove(bar)

    def _render(self) -> Group:
        rate = self._done / (time.perf_counter() - self._start)
        failed = self._console.failures
        self._batch.update(
            completed=self._done,
            rate=f"{rate:.{0 if rate >= 10 else 1 if rate >= 1 else 2}f} pictures/s" if rate else "",
            left=f"{timedelta(seconds=round((self._pictures - self._done) / rate))} left" if rate else "",
            failed=f"{failed} failed" if failed else "",
        )
        return super()._render()


def _shortened(name: str) -> str:
    from rich.text import Text

    text = Text(one_line(name))
    text.truncate(WIDEST_NAME, overflow="ellipsis")
    return text.plain


def find_weights(
    name: str | Path | Found, task: str, index: WeightsIndex, console: Console, **options: Any
) -> Found:
    """What `resolve` gives, with its options; a bar and a note tell what the Hub has to do with it."""

    def bar(name: str) -> type[DownloadBar]:
        return type("NamedBar", (DownloadBar,), {"console": console, "name": name})

    return resolve(
        name, task, index, progress=bar, warn=lambda note: console.note(note, once=note), **options
    )


class DownloadBar:
    """As much of tqdm as the Hub's client uses: bytes, their rate and the time left.

    name: of what is fetched, as the user knows it; the client tells the hash.
    """

    console: ClassVar[Console]
    name: ClassVar[str]

    def __init__(self, *_: Any, total: float | None = None, initial: float = 0, **__: Any) -> None:
        self.total, self.n = total, initial
        self._display = Display(self.console)
        self._bar = self._display.add(_DOWNLOAD, self.name, total=total, completed=int(initial))

    def update(self, n: float | None = 1) -> None:
        """So many bytes more."""
        self.n += n or 0
        self.refresh()

    def refresh(self, *_: Any, **__: Any) -> None:
        """Show the fields as they are now."""
        self._bar.update(completed=self.n, total=self.total)

    def reset(self, total: float | None = None) -> None:
        """From the start again."""
        self.n, self.total = 0, total if total is not None else self.total
        self.refresh()

    def close(self) -> None:
        """No more of them."""
        self._display.remove(self._bar)
        self._bar = Bar(None)

    def set_description(self, *_: Any, **__: Any) -> None:
        """Not shown."""

    set_description_str = set_postfix_str = set_description

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


SHOWN = ("loss", "psnr", "l1", "gram", "content", "learning_rate", "images_per_second", "waiting")


def span(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class TrainingDisplay(Display):
    """The progress of one session; says nothing in a process that is not the main one."""

    def __init__(self, console: Console, speaks: bool, progress: float) -> None:
        super().__init__(console if speaks else Console(quiet=True), stays=True)
        self._began, self._first = time.monotonic(), progress
        self._line = self.add(_TRAINING, "training", total=1.0, completed=progress, values="")

    def advance(self, progress: float, phase: str, row: dict[str, float] | None) -> None:
        """After a step; `row` is there every so many steps."""
        if row is None:
            return
        text = self._text(progress, row)
        if self.is_shown:
            self._line.update(completed=progress, description=phase, values=text)
        else:
            self._console.note(f"{phase}  step {row['step']:.0f}  {text}")

    def say(self, message: str) -> None:
        """A line of its own, above the live one."""
        if self.is_shown:
            with self.aside():
                self._screen.print(message, markup=False, highlight=False)
        else:
            self._console.note(message)

    def _text(self, progress: float, row: dict[str, float]) -> str:
        done = progress - self._first
        left = (time.monotonic() - self._began) / done * (1 - progress) if done > 0 else float("inf")
        values = [f"{name.replace('_', ' ')} {row[name]:.4g}" for name in SHOWN if name in row]
        if row.get("skipped"):
            values.append(f"skipped {row['skipped']:.0f}")
        return "  ".join([*values, f"left {span(left) if left < 1e6 else '?'}"])
