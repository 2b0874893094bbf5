"""From what `--weights` names to a file that is here: a file, a folder, an id, or a reference to the Hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmavae.pretrained.manifest import WeightsEntry, WeightsIndex
from pmavae_cli.console import Console

if TYPE_CHECKING:
    from pmavae.pretrained.manifest import HubReference


@dataclass(frozen=True)
class Found:
    """A weights file that is here."""

    path: Path
    entry: WeightsEntry | None = None
    reference: HubReference | None = None  # where it is in the Hugging Face cache
    commit: str | None = None


def locate(
    name: str | Path,
    task: str,
    index: WeightsIndex,
    console: Console,
    *,
    offline: bool = False,
    force: bool = False,
) -> Found:
    """The file that a name stands for, fetched from the Hub where it is nowhere here.

    The order is that of `resolve_weights`. A terminal shows a bar meanwhile. offline: without network, as
    with --offline. force: fetched again. Raises WeightsError, in one sentence.
    """
    entry, reference = remote(name, task, index)
    if entry is not None and reference is None:
        return Found(index.path(entry), entry)
    if reference is None:
        from pmavae.pretrained.weights import resolve_weights

        return Found(*resolve_weights(name, task, index))
    from pmavae.pretrained.hub import fetch
    from pmavae.pretrained.resolve import refuse_slip
    from pmavae_cli.progress import download_bar

    if entry is None:
        refuse_slip(reference)
    fetched = fetch(
        reference,
        sha256=entry.sha256 if entry else None,
        offline=offline,
        force=force,
        tqdm_class=download_bar(console, str(name)),
    )
    if fetched.note:
        console.note(fetched.note, once=fetched.note)
    return Found(fetched.path, entry, fetched.reference, fetched.commit)


def remote(
    name: str | Path, task: str, index: WeightsIndex
) -> tuple[WeightsEntry | None, HubReference | None]:
    """Where on the Hub a name is, if its file is neither given nor shipped; and its entry in the index."""
    entry = index.find(name, task) if isinstance(name, str) else None
    if entry is not None:
        return entry, None if index.is_shipped(entry) else entry.reference
    if not isinstance(name, str) or os.path.lexists(name):
        return None, None
    from pmavae.pretrained.manifest import HubReference

    return None, HubReference.parse(name)


def usable(
    name: str | Path, task: str, index: WeightsIndex, console: Console, offline: bool = False
) -> str | Path:
    """What the library loads without the network: the name, or the file that was fetched for it."""
    _, reference = remote(name, task, index)
    return name if reference is None else locate(name, task, index, console, offline=offline).path
