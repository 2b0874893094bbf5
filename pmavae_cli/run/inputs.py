"""From the INPUT arguments to files: folders, globs, stdin."""

import glob
import io
import os
import re
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pmavae.errors import ImageError, PMAVAEError
from pmavae_cli.api import WeightedPath
from pmavae_cli.images.formats import SUFFIXES

STDIN = "-"


class InputError(PMAVAEError):
    """An input that is not there, or not of a kind that can be read."""


@dataclass(frozen=True)
class Source:
    """One picture or latent file to read."""

    name: str  # what messages call it
    path: Path | None  # None for stdin
    folder: Path = field(default=Path(), kw_only=True)  # where it lies below the folder that was named

    @property
    def stem(self) -> str:
        """What outputs are named after."""
        return self.path.stem if self.path else "stdin"

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """A seekable stream of what is in it; raises ImageError, in here too, where it cannot be read."""
        if self.path is None:
            yield io.BytesIO(sys.stdin.buffer.read())
            return
        try:
            with self.path.open("rb") as file:
                # A pipe cannot be read twice, and what is in it shows only on reading.
                yield file if file.seekable() else io.BytesIO(file.read())
        except OSError as reason:
            raise ImageError(f"{self.name} cannot be read: {reason.strerror or reason}") from None


@dataclass(frozen=True)
class MaskSource(Source):
    """One picture whose greys count."""


@dataclass(frozen=True)
class StyleSource(Source):
    """One picture, latent file or style file whose style counts."""

    weight: float


@dataclass
class Inputs:
    """What the arguments stand for."""

    sources: list[Source] = field(default_factory=list)
    failures: list[tuple[str, InputError]] = field(default_factory=list)  # argument, reason
    many: bool = False  # even where a folder or glob happens to give one file


def find_inputs(
    arguments: Sequence[str],
    own_outputs: Callable[[Path], Iterable[Path]],
    *,
    recursive: bool = False,
    output: Path | None = None,
) -> Inputs:
    """Expand arguments in their order; an argument that gives nothing becomes a failure.

    `own_outputs` gives the files that a run would write beside a file: in a folder these are
    left out, so that a second run does not take the results of the first for new pictures.
    recursive: a folder also stands for those below it, but not for the folder `output`.
    """
    inputs = Inputs(many=len(arguments) > 1)
    for argument in arguments:
        search = _Search(recursive, output)
        try:
            found, many = _expand(argument, own_outputs, search)
        except InputError as error:
            inputs.failures.append((argument, error))
        else:
            inputs.sources += found
            inputs.failures += search.failures
            inputs.many |= many
    return inputs


def single_input(argument: str, what: str, mask: bool = False) -> Source:
    """The one file that an argument names; `what` is the argument's place in the usage line."""
    kind = MaskSource if mask else Source
    if argument == STDIN:
        return kind("stdin", None)
    if stat.S_ISDIR(_mode_of_input(argument)):
        wanted = "picture" if mask else "picture or latent file"
        raise InputError(f"{argument} is a folder: {what} must be one {wanted}")
    return kind(argument, Path(argument))


def style_inputs(argument: WeightedPath) -> tuple[StyleSource, ...]:
    """The files that a STYLE names; those of a folder share its weight."""
    found, _ = _expand(argument.path, lambda path: (), _Search())
    return tuple(StyleSource(source.name, source.path, argument.weight / len(found)) for source in found)


@dataclass
class _Search:
    """A search of the folders that an argument names."""

    recursive: bool = False
    output: Path | None = None  # a folder that is left out
    failures: list[tuple[str, InputError]] = field(default_factory=list)  # of folders within these
    folders: dict[Path, Path] = field(default_factory=dict)  # of each file, below the folder it was found in

    def files(self, root: Path) -> list[Path]:
        """The files of a folder, or with those below it, that were not found before."""
        if self.recursive:
            found, unread = files_below(root, _is_candidate, self.output)
            self.failures += [(str(folder), _cannot_be_read(folder, reason)) for folder, reason in unread]
        else:
            try:
                found = [path for path in root.iterdir() if _is_candidate(path)]
            except OSError as reason:
                raise _cannot_be_read(root, reason) from None
        new = [path for path in found if path not in self.folders]
        self.folders |= {path: path.parent.relative_to(root) for path in new}
        return new


def _expand(
    argument: str, own_outputs: Callable[[Path], Iterable[Path]], search: _Search
) -> tuple[list[Source], bool]:
    """The files of an argument, and whether it names a group of files."""
    if argument == STDIN:
        return [Source("stdin", None)], False
    # A file may well be called "[1].jpg": a pattern is what does not exist.
    if glob.has_magic(argument) and not os.path.lexists(argument):
        matches = sorted(map(Path, glob.iglob(argument, recursive=True)))  # noqa: PTH207, absolute patterns too
        files = [
            file for path in matches if search.recursive and path.is_dir() for file in search.files(path)
        ]
        met = set(files)
        files += [path for path in matches if not path.is_dir() and path not in met]
        if not files:
            raise InputError(f"{argument} matches no file: check the pattern")
    elif stat.S_ISDIR(_mode_of_input(argument)):
        files = search.files(Path(argument))
        written = {output for path in files for output in own_outputs(path)}
        files = [path for path in files if path not in written]
        if not files and not search.failures:
            raise InputError(f"{argument} has no pictures or latent files in it: name another folder")
    else:
        return [Source(argument, Path(argument))], False
    # Every machine that shares a folder has to find one order, so names that sort alike are told apart.
    files.sort(key=lambda path: (_natural(path), str(path)))
    return [Source(str(path), path, folder=search.folders.get(path, Path())) for path in files], True


def _cannot_be_read(folder: Path, reason: OSError) -> InputError:
    return InputError(f"{folder} cannot be read: {reason.strerror}; leave it out, or change its permissions")


def _mode_of_input(argument: str) -> int:
    if not argument:
        raise InputError("an input has an empty name: leave it out, or write . for this folder")
    try:
        return Path(argument).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{argument} does not exist: check its name and folder") from None
    except OSError as reason:
        raise InputError(f"{argument} cannot be read: {reason.strerror}") from None


def _is_candidate(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and is_file(path)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """A sort key that puts photo-9 before photo-10."""
    parts = re.split(r"([0-9]+)", str(path).casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def identity(path: Path) -> tuple[int, int] | None:
    """The file itself, whatever links and spellings lead to it; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_folder(path: Path) -> bool:
    """Whether it is known to be one; a path that may not be looked at is none."""
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    """Whether it is known to be a regular file, which a pipe is not."""
    return stat.S_ISREG(_mode(path))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def files_below(
    root: Path, is_wanted: Callable[[Path], bool], left_out: Path | None = None
) -> tuple[list[Path], list[tuple[Path, OSError]]]:
    """The wanted files of a folder and of those below it, and the folders that cannot be read.

    Hidden folders are left out, and so is the folder `left_out` where it is not the root. A link to a
    folder is followed, unless it leads to one that is walked anyway or that the root lies in; so the walk
    ends, and meets every folder once.
    """
    above = [identity(folder) for folder in Path(os.path.realpath(root)).parents]
    met = {*above, identity(left_out) if left_out else None} - {identity(root)}
    files: list[Path] = []
    unread: list[tuple[Path, OSError]] = []
    folders, links = deque([root]), deque[Path]()
    # Links come last, so that a folder is met by its own name where it has one in here.
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        itself = identity(folder)
        if itself in met:
            continue
        met.add(itself)
        try:
            found = sorted(folder.iterdir())
        except OSError as reason:
            unread.append((folder, reason))
            continue
        for path in found:
            if is_folder(path):
                if not path.name.startswith("."):
                    (links if path.is_symlink() else folders).append(path)
            elif is_wanted(path):
                files.append(path)
    return files, unread
