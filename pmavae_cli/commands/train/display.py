"""What a training run shows: a live line with its end in sight on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from pmavae_cli.console import Console

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
