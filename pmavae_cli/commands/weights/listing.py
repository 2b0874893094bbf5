"""All weights that pmavae knows, shipped, in the Hugging Face cache or on the Hub, and whether each is sound.

No network is used.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pmavae.errors import WeightsError
from pmavae.files.header import is_sha256
from pmavae.pretrained.hub import Fetched
from pmavae.pretrained.manifest import MODEL_FILE, WeightsEntry, WeightsIndex
from pmavae_cli.console import one_line, show_table

SHIPPED, CACHED, REMOTE, MISSING = "shipped", "cached", "remote", "missing"
COLUMNS = ("id", "preset", "task", "size", "licence", "scores", "sha256", "state")


@dataclass(frozen=True)
class Listed:
    """One weights file, here or elsewhere. None is what is not known."""

    id: str  # what --weights takes
    task: str | None
    preset: str | None
    parameters: int | None
    bytes: int | None  # None for a file that is not here
    licence: str | None
    sha256: str | None
    state: str  # one of the four above
    origin: str  # pmavae, a plugin, or the repository
    path: str | None
    repo: str | None = None
    revision: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> list[str]:
        """For the table, in the order of COLUMNS."""
        size = "-"
        if self.bytes is not None:
            size = f"{self.bytes / 1e6:.1f} MB"  # of 10^6, as disks and the Hub count
        elif self.parameters:
            size = f"~{2 * self.parameters / 1e6:.1f} MB"  # two bytes each in fp16
        return [
            one_line(self.id),
            self.preset or "-",
            self.task or "-",
            size,
            one_line(self.licence or "-"),
            short_scores(self.scores),
            self.sha256[:8] if self.sha256 else "-",
            self.state,
        ]


def all_weights(index: WeightsIndex, cached: Sequence[Fetched]) -> list[Listed]:
    """The index's, in its order, then what else the cache has, by name."""
    rows = []
    taken: set[Path] = set()
    for shelf in index.shelves:
        for entry in shelf.entries:
            path, state = shelf.folder / entry.file, SHIPPED
            if not path.is_file():
                found = _in_cache(entry, cached)
                state = CACHED if found else REMOTE if entry.repo else MISSING
                path = found.path if found else path
                taken.add(path)
            here = state in (SHIPPED, CACHED)
            rows.append(
                Listed(
                    **{name: getattr(entry, name) for name in ("id", "task", "preset", "parameters")},
                    bytes=path.stat().st_size if here else None,
                    licence=entry.licence,
                    sha256=entry.sha256,
                    state=state,
                    origin=shelf.origin,
                    path=str(path) if here else None,
                    repo=entry.repo,
                    revision=entry.revision,
                    scores=entry.scores,
                )
            )
    others = [_of_cached(found) for found in cached if found.path not in taken]
    return rows + sorted(others, key=lambda row: row.id)


def _in_cache(entry: WeightsEntry, cached: Iterable[Fetched]) -> Fetched | None:
    """The file of an entry in the cache: of its repository and name there, and where it is a commit, that."""
    wanted = entry.repo, entry.repo_file or MODEL_FILE
    for found in cached:
        same = (found.reference.repo, found.reference.file or MODEL_FILE) == wanted
        if same and (_cached_sha256(found) == entry.sha256 or found.commit == entry.revision):
            return found
    return None


def _cached_sha256(found: Fetched) -> str | None:
    """The SHA-256 that a large file of the Hub is stored under; None where another name is used."""
    name = found.path.resolve().name
    return name if is_sha256(name) else None


def _of_cached(found: Fetched) -> Listed:
    """Of a file that no manifest knows: what its header says. Its id is pinned, and so needs no network."""
    from pmavae.files.tensors import open_tensor_file

    task, preset, parameters = None, None, None
    try:
        with open_tensor_file(found.path, name=str(found.path), error=WeightsError) as file:
            config = file.header("weights").get("config")
            parameters = sum(math.prod(shape) for shape in file.shapes.values())
            if isinstance(config, dict):
                task, preset = one_line(str(config.get("task", "base"))), one_line(str(config.get("preset")))
    except WeightsError:  # damaged: `pmavae weights verify` tells
        pass
    return Listed(
        id=str(found.reference),
        task=task,
        preset=preset,
        parameters=parameters,
        bytes=found.path.stat().st_size,
        licence=None,
        sha256=_cached_sha256(found),
        state=CACHED,
        origin=found.reference.repo,
        path=str(found.path),
        repo=found.reference.repo,
        revision=found.commit,
    )


def short_scores(scores: Mapping[str, Any]) -> str:
    """The first score, and how many more there are."""
    known = [(name, value) for name, value in scores.items() if isinstance(value, int | float)]
    if not known:
        return "-"
    name, value = known[0]
    more = f" +{len(scores) - 1}" if len(scores) > 1 else ""
    return one_line(f"{name} {value:g}{more}")


def show(rows: Sequence[Listed]) -> None:
    """A table on stdout."""
    table = [COLUMNS, *(row.cells() for row in rows)]
    show_table(table, {SHIPPED: "green", CACHED: "green", MISSING: "red"}, right="size")


def chosen(rows: Sequence[Listed], names: Sequence[str]) -> list[Listed]:
    """Those that are to be verified: with these names, by id, repository, or how they are listed; else all.

    Weights that are only on the Hub are not among them. Raises WeightsError for a name that none has.
    """
    every = [row for row in rows if row.state != REMOTE]
    if not names:
        return every
    found: list[Listed] = []
    for name in names:
        repo = name.partition("@")[0].partition(":")[0]
        these = [row for row in every if row.id == name] or [
            row for row in every if row.origin == repo == name
        ]
        if not these:
            raise WeightsError(
                f"there are no weights {name} here to verify: pmavae weights list tells which there are"
            )
        found += [row for row in these if row not in found]
    return found


def verify(row: Listed) -> tuple[str | None, str | None]:
    """Hash a file again: its SHA-256, and a sentence of what is wrong, with the remedy, where something is.

    One that nothing tells the hash of is read and checked as any weights are.
    """
    again = f"run pmavae weights fetch {row.id} --force"
    remedy = again if row.state == CACHED else f"install {row.origin} again"
    if row.path is None:
        return None, f"{row.id} is gone; {remedy}"
    path = Path(row.path)
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    try:
        sha1.update(b"blob %d\0" % path.stat().st_size)
        with path.open("rb") as file:
            while part := file.read(2**20):
                sha256.update(part)
                sha1.update(part)
    except OSError as reason:
        return None, f"{row.id} cannot be read at {path} ({reason.strerror or reason}); {remedy}"
    found, blob = sha256.hexdigest(), path.resolve().name
    # A small file of the Hub is stored under the SHA-1 of a git blob.
    is_sha1 = row.sha256 is None and len(blob) == 40 and set(blob) <= set("0123456789abcdef")
    ours, expected = (sha1.hexdigest(), blob) if is_sha1 else (found, row.sha256)
    problem = None
    if expected is None:
        from pmavae.pretrained.weights import load_weights

        try:
            load_weights(path)
        except WeightsError as error:
            problem = f"is no sound weights file: {error}"
    elif ours != expected:
        problem = f"is damaged or was changed: {path} has the hash {ours[:8]}…, not {expected[:8]}…"
    return found, problem and f"{row.id} {problem}; {remedy}"
