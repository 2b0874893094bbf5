"""The weights that a command names, with a bar and a note where they come from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.resolve import Found, resolve
from pmavae_cli.console import Console


def find_weights(
    name: str | Path | Found, task: str, index: WeightsIndex, console: Console, **options: Any
) -> Found:
    """What `resolve` gives, with its options. A terminal shows a bar meanwhile. Raises WeightsError."""

    def bar(name: str) -> Any:
        from pmavae_cli.progress import download_bar

        return download_bar(console, name)

    return resolve(
        name, task, index, progress=bar, warn=lambda note: console.note(note, once=note), **options
    )
