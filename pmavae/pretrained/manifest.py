"""Manifests and names of weights, those on the Hub too, and the index of all. Nothing here imports torch."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from pmavae.errors import WeightsError
from pmavae.files.header import is_label, is_sha256, parse_json

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REFERENCE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9_][A-Za-z0-9_./-]{{0,199}}))?(?::(?P<file>[^:]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubReference:
    """A weights file on the Hub, written as `org/name[@revision][:file]`."""

    repo: str  # "org/name"
    revision: str | None = None  # branch, tag or commit; None: main
    file: str | None = None  # in the repository; None: model.safetensors

    @classmethod
    def parse(cls, text: str) -> HubReference | None:
        """The reference that a text stands for; None for what is none, such as a path."""
        found = _REFERENCE.fullmatch(text)
        if found is None or "--" in found["repo"] or ".." in text or found["repo"].endswith(".git"):
            return None
        return cls(found["repo"], found["revision"], found["file"])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}{f':{self.file}' if self.file else ''}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit, whose files never change."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


MANIFEST_VERSION = 1
LIBRARY = "pmavae"  # the name of this library on the Hub
MODEL_FILE = "model.safetensors"  # what a folder, or a repository, of weights holds
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"  # by which name the Hub shows a card
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class WeightsEntry:
    """One row of the manifest: a weights file, and where it comes from."""

    id: str
    file: str  # its name in the weights folder
    preset: str
    task: str  # what it was trained for: "base", the autoencoder itself, or a task of the command line
    sha256: str
    parameters: int
    licence: str
    data: str  # what it was trained on
    recipe: dict[str, Any]  # the settings that made it
    scores: dict[str, Any]  # what was measured, by name
    repo: str | None = None  # on the Hub, where it is there too: "org/name"
    revision: str | None = None  # of the repository: a commit, or a tag or branch, as SHA-256 pins the file
    repo_file: str | None = None  # its name there; None: model.safetensors

    @property
    def reference(self) -> HubReference | None:
        """Where it is on the Hub."""
        return HubReference(self.repo, self.revision, self.repo_file) if self.repo else None


@dataclass(frozen=True)
class Shelf:
    """A folder of weights files that a manifest in it describes."""

    folder: Path
    origin: str  # whose it is, as a message names it
    entries: tuple[WeightsEntry, ...]  # in the order of the manifest

    @classmethod
    def load(cls, manifest: Path, origin: str) -> Shelf:
        """By the path of its manifest; raises WeightsError as `read_manifest` does."""
        return cls(manifest.parent, origin, read_manifest(manifest))


def read_manifest(path: Path) -> tuple[WeightsEntry, ...]:
    """The rows of `manifest.json`; raises WeightsError naming the file, the row and what is wrong."""
    try:
        data = parse_json(path.read_text("utf-8"))
    except OSError as reason:
        raise WeightsError(f"{path} cannot be read: {reason.strerror or reason}") from None
    except ValueError as reason:
        raise WeightsError(f"{path} is not valid JSON: {reason}") from None
    if not isinstance(data, dict) or not isinstance(rows := data.get("weights"), list):
        raise WeightsError(f'{path} is not a weights manifest: it has no list "weights"')
    if data.get("version") != MANIFEST_VERSION:
        raise WeightsError(
            f"{path} is of version {data.get('version')!r:.40}, this pmavae reads {MANIFEST_VERSION}"
        )
    entries = tuple(_entry(path, number, row) for number, row in enumerate(rows, 1))
    ids = [entry.id for entry in entries]
    if repeated := sorted({i for i in ids if ids.count(i) > 1}):
        raise WeightsError(f"{path} lists {repeated[0]} more than once")
    return entries


@dataclass(frozen=True)
class WeightsIndex:
    """All weights that have a name: those of pmavae first, then those of plugins."""

    shelves: tuple[Shelf, ...]

    def beside(self, shelf: Shelf) -> WeightsIndex:
        """With one more shelf; raises WeightsError, naming both origins, for an id that is there already."""
        for entry in shelf.entries:
            for other in self.shelves:
                if any(entry.id == known.id for known in other.entries):
                    raise WeightsError(
                        f"weights {entry.id} of {shelf.origin} have the id of weights of {other.origin}, "
                        "which keep it"
                    )
        return WeightsIndex((*self.shelves, shelf))

    @property
    def entries(self) -> tuple[WeightsEntry, ...]:
        """Of all shelves, in their order."""
        return tuple(entry for shelf in self.shelves for entry in shelf.entries)

    def find(self, name: str, task: str = "base") -> WeightsEntry | None:
        """The entry with this id, else the weights of the preset with this name for a task."""
        entries = self.entries
        of_preset = (entry for entry in entries if entry.preset == name and entry.task == task)
        return next((entry for entry in entries if entry.id == name), next(of_preset, None))

    def names(self) -> list[str]:
        """Every name that `find` knows, presets first."""
        return list(dict.fromkeys([*self.presets("base"), *(entry.id for entry in self.entries)]))

    def presets(self, task: str) -> list[str]:
        """The presets that have weights for a task."""
        return list(dict.fromkeys(entry.preset for entry in self.entries if entry.task == task))

    def path(self, entry: WeightsEntry) -> Path:
        """The file of an entry; raises WeightsError, with the remedy, where it is gone."""
        shelf = next(shelf for shelf in self.shelves if entry in shelf.entries)
        path = shelf.folder / entry.file
        if not path.is_file():
            raise WeightsError(f"the weights {entry.id} are not at {path}: install {shelf.origin} again")
        return path


def weights_folder() -> Path:
    """Where the released weights are: inside an installed package, beside it in a source checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def released_weights(folder: Path | None = None) -> WeightsIndex:
    """The weights that come with pmavae, in its weights folder or another. Raises WeightsError."""
    folder = folder or weights_folder()
    return WeightsIndex((Shelf.load(folder / MANIFEST_FILE, "pmavae"),))


def config_text(header: dict[str, Any]) -> str:
    """What config.json beside a weights file says: its header, under the name of the library."""
    config = header["config"]
    description = {
        "library_name": LIBRARY,
        "architecture": header["architecture"],
        "id": header["id"],
        "preset": config.get("preset"),
        "task": config.get("task", "base"),
        "config": config,
    }
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"


def _is_reference(repo: Any, revision: Any = None, file: Any = None) -> bool:
    """Whether all of it could be written as one reference."""
    given = HubReference(repo, revision, file)
    return all(is_label(part) for part in (repo, revision, file) if part is not None) and (
        HubReference.parse(str(given)) == given
    )


def _entry(path: Path, number: int, row: Any) -> WeightsEntry:
    known = {f.name for f in fields(WeightsEntry)}
    needed = {f.name for f in fields(WeightsEntry) if f.default is MISSING}
    if not isinstance(row, dict) or not needed <= set(row) <= known:
        odd = sorted((set(row) - known) | (needed - set(row))) if isinstance(row, dict) else ["no object"]
        raise WeightsError(f"{path}, entry {number}: missing or unknown fields: {', '.join(odd)}")
    repo, revision, file = (row.get(key) for key in ("repo", "revision", "repo_file"))
    valid = {
        **{key: is_label(row[key]) for key in ("id", "file", "preset", "task")},
        "repo": repo is None or _is_reference(repo),
        "revision": revision is None or _is_reference(repo, revision),
        "repo_file": file is None or (_is_reference(repo, None, file) and str(file).endswith(".safetensors")),
        **{key: isinstance(row[key], str) for key in ("licence", "data")},
        **{key: isinstance(row[key], dict) for key in ("recipe", "scores")},
        "sha256": is_sha256(row["sha256"]),
        "parameters": type(row["parameters"]) is int and row["parameters"] > 0,
    }
    # A file elsewhere would not be in the wheel.
    valid["file"] = valid["file"] and Path(row["file"]).name == row["file"]
    if wrong := [key for key, fine in valid.items() if not fine]:
        raise WeightsError(f"{path}, entry {number}: {wrong[0]} is not valid ({row.get(wrong[0])!r:.80})")
    return WeightsEntry(**row)
