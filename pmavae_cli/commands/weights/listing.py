"""All weights that pmavae knows, shipped, in the Hugging Face cache or on the Hub, and whether each is sound.

No network is used.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmavae.errors import WeightsError
from pmavae.files.header import is_sha256
from pmavae.pretrained.manifest import MODEL_FILE, Shelf, WeightsEntry, WeightsIndex
from pmavae_cli.console import one_line, print_table

if TYPE_CHECKING:
    from pmavae.pretrained.hub import Fetched

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

    def row(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)

    def cells(self) -> list[str]:
        """For the table, in the order of COLUMNS."""
        return [
            one_line(self.id),
            self.preset or "-",
            self.task or "-",
            self._size(),
            one_line(self.licence or "-"),
            short_scores(self.scores),
            self.sha256[:8] if self.sha256 else "-",
            self.state,
        ]

    def _size(self) -> str:
        if self.bytes is not None:
            return megabytes(self.bytes)
        return f"~{megabytes(2 * self.parameters)}" if self.parameters else "-"  # two bytes each in fp16


def all_weights(index: WeightsIndex, cached: Sequence[Fetched]) -> list[Listed]:
    """The index's, in its order, then what else the cache has, by name."""
    rows = []
    taken: set[Path] = set()
    for shelf in index.shelves:
        for entry in shelf.manifest.entries:
            path, state = shipped_file(shelf, entry), SHIPPED
            if path is None and (found := in_cache(entry, cached)):
                path, state = found.path, CACHED
                taken.add(found.path)
            elif path is None:
                state = REMOTE if entry.repo else MISSING
            rows.append(_of_entry(entry, shelf.origin, path, state))
    others = [found for found in cached if found.path not in taken]
    return rows + sorted((_of_cached(found) for found in others), key=lambda row: row.id)


def shipped_file(shelf: Shelf, entry: WeightsEntry) -> Path | None:
    """The entry's file beside its manifest, if it is there."""
    path = shelf.folder / entry.file
    return path if path.is_file() else None


def in_cache(entry: WeightsEntry, cached: Iterable[Fetched]) -> Fetched | None:
    """The file of an entry in the cache: of its repository and name there, and where it is a commit, that."""
    reference = entry.reference
    for found in cached if reference else ():
        assert reference is not None
        same = found.reference.repo == reference.repo and _file(found) == (reference.file or MODEL_FILE)
        if same and (cached_sha256(found) == entry.sha256 or found.commit == entry.revision):
            return found
    return None


def cached_name(found: Fetched) -> str:
    """What --weights takes for a cached file: pinned to its commit, so that no network is needed."""
    name = f"{found.reference.repo}@{found.commit}"
    return name if _file(found) == MODEL_FILE else f"{name}:{_file(found)}"


def cached_sha256(found: Fetched) -> str | None:
    """The SHA-256 that a large file of the Hub is stored under; None where another name is used."""
    name = found.path.resolve().name
    return name if is_sha256(name) else None


def short_scores(scores: Mapping[str, Any]) -> str:
    """The first score, and how many more there are."""
    known = [(name, value) for name, value in scores.items() if isinstance(value, int | float)]
    if not known:
        return "-"
    name, value = known[0]
    more = f" +{len(scores) - 1}" if len(scores) > 1 else ""
    return one_line(f"{name} {value:g}{more}")


def megabytes(count: int) -> str:
    """In MB of 10^6, as disks and the Hub count."""
    return f"{count / 1e6:.1f} MB"


def show(rows: Sequence[Listed]) -> None:
    """A table on stdout, fitted to a terminal."""
    table = [list(COLUMNS), *(row.cells() for row in rows)]
    if sys.stdout.isatty():
        _show_on_terminal(table)
    else:
        print_table(table)


def _file(found: Fetched) -> str:
    return found.reference.file or MODEL_FILE


def _of_entry(entry: WeightsEntry, origin: str, path: Path | None, state: str) -> Listed:
    return Listed(
        id=entry.id,
        task=entry.task,
        preset=entry.preset,
        parameters=entry.parameters,
        bytes=path.stat().st_size if path else None,
        licence=entry.licence,
        sha256=entry.sha256,
        state=state,
        origin=origin,
        path=str(path) if path else None,
        repo=entry.repo,
        revision=entry.revision,
        scores=entry.scores,
    )


def _of_cached(found: Fetched) -> Listed:
    task, preset, parameters = _facts(found.path)
    return Listed(
        id=cached_name(found),
        task=task,
        preset=preset,
        parameters=parameters,
        bytes=found.path.stat().st_size,
        licence=None,
        sha256=cached_sha256(found),
        state=CACHED,
        origin=found.reference.repo,
        path=str(found.path),
        repo=found.reference.repo,
        revision=found.commit,
    )


def _facts(path: Path) -> tuple[str | None, str | None, int | None]:
    """Task, preset and number of parameters, by the header alone."""
    import math

    from pmavae.files.tensors import open_tensor_file

    try:
        with open_tensor_file(path, name=str(path), error=WeightsError) as file:
            config = file.header("weights").get("config")
            parameters = sum(math.prod(shape) for shape in file.shapes.values())
    except WeightsError:  # damaged: `pmavae weights verify` tells
        return None, None, None
    if not isinstance(config, dict):
        return None, None, parameters
    return one_line(str(config.get("task", "base"))), one_line(str(config.get("preset"))), parameters


def _show_on_terminal(table: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {SHIPPED: "green", CACHED: "green", MISSING: "red"}
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in table[0]:
        shown.add_column(column, overflow="fold", justify="right" if column == "size" else "left")
    for row in table[1:]:
        # Text, for names may hold what rich reads as markup.
        shown.add_row(*map(Text, row[:-1]), Text(row[-1], styles.get(row[-1], "")))
    Console().print(shown)


@dataclass(frozen=True)
class Check:
    """One file, and what its hash has to be."""

    id: str
    path: Path | None  # None where it is gone
    expected: str | None  # SHA-256, or the SHA-1 of a git blob; None where nothing says it
    remedy: str
    repo: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a check."""

    check: Check
    sha256: str | None
    problem: str | None  # None where all is well

    @property
    def sentence(self) -> str:
        """What is wrong, and the remedy."""
        return f"{self.check.id} {self.problem}; {self.check.remedy}"


def checks(index: WeightsIndex, cached: Sequence[Fetched]) -> list[Check]:
    """All files that are shipped or cached; weights that are only on the Hub are not among them."""
    found = []
    taken: set[Path] = set()
    for shelf in index.shelves:
        for entry in shelf.manifest.entries:
            path, remedy = shipped_file(shelf, entry), f"install {shelf.origin} again"
            if path is None and entry.repo:
                copy = in_cache(entry, cached)
                if copy is None:
                    continue
                path, remedy = copy.path, f"run pmavae weights fetch {entry.id} --force"
                taken.add(path)
            found.append(Check(entry.id, path, entry.sha256, remedy))
    for copy in cached:
        if copy.path not in taken:
            name, blob = cached_name(copy), copy.path.resolve().name
            expected = blob if is_sha256(blob) or _is_sha1(blob) else None
            remedy = f"run pmavae weights fetch {name} --force"
            found.append(Check(name, copy.path, expected, remedy, copy.reference.repo))
    return found


def chosen(every: Sequence[Check], names: Sequence[str]) -> list[Check]:
    """Those with these names, by id, repository, or how they are listed; all without names.

    Raises WeightsError for a name that none has.
    """
    if not names:
        return list(every)
    found: list[Check] = []
    for name in names:
        repo = name.partition("@")[0].partition(":")[0]
        these = [c for c in every if c.id == name] or [c for c in every if c.repo == repo == name]
        if not these:
            raise WeightsError(
                f"there are no weights {name} here to verify: pmavae weights list tells which there are"
            )
        found += [check for check in these if check not in found]
    return found


def verify(check: Check) -> Verdict:
    """Hash a file again; one that nothing tells the hash of is read and checked as any weights are."""
    if check.path is None:
        return Verdict(check, None, "is gone")
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    try:
        sha1.update(b"blob %d\0" % check.path.stat().st_size)
        with check.path.open("rb") as file:
            while part := file.read(2**20):
                sha256.update(part)
                sha1.update(part)
    except OSError as reason:
        return Verdict(check, None, f"cannot be read at {check.path} ({reason.strerror or reason})")
    found = sha256.hexdigest()
    if check.expected is None:
        return Verdict(check, found, _structure(check.path))
    ours = found if is_sha256(check.expected) else sha1.hexdigest()
    if ours != check.expected:
        return Verdict(
            check,
            found,
            f"is damaged or was changed: {check.path} has the hash {ours[:8]}…, not {check.expected[:8]}…",
        )
    return Verdict(check, found, None)


def _structure(path: Path) -> str | None:
    from pmavae.pretrained.weights import load_weights

    try:
        load_weights(path)
    except WeightsError as error:
        return f"is no sound weights file: {error}"
    return None


def _is_sha1(name: str) -> bool:
    return len(name) == 40 and set(name) <= set("0123456789abcdef")
