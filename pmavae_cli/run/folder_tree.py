"""All files below a folder, as `--recursive` takes them."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path


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
