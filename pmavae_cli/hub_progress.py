"""The bar of a download: on a terminal only, on stderr, and gone when the file is there."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pmavae_cli.console import Console, one_line

if TYPE_CHECKING:
    from rich.progress import Progress


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
