"""Whether weights files still are what they were: hashes of all that is shipped or cached."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pmavae.errors import WeightsError
from pmavae.files.json_values import is_sha256
from pmavae.pretrained.manifest import WeightsIndex
from pmavae_cli.commands.weights.listing import cached_name, in_cache, shipped_file

if TYPE_CHECKING:
    from pmavae.pretrained.hub import Fetched


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
