"""Where training pictures are: folders, tars and single files, looked through before any is decoded."""

import csv
import hashlib
import io
import json
import os
import stat
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pmavae.errors import ImageError, PMAVAEError
from pmavae.images.reading import DAMAGED_TAR, MAX_FILE_BYTES, SUFFIXES, picture_size, short_reason

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def is_tar(path: Path) -> bool:
    """Whether a file's name says that it is a tar."""
    return path.name.lower().endswith(TAR_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not meant to be seen: dot files, and what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def picture_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each regular member that is named like a picture, with an open, seekable stream of its bytes.

    The stream is valid until the next one is asked for, and None where the member is too large.
    Raises ImageError, naming the tar, where it is damaged; what came before is sound.
    """
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not member.isreg() or any(is_hidden(p) for p in parts if p != ".."):
                    continue
                if not parts or PurePosixPath(parts[-1]).suffix.lower() not in SUFFIXES:
                    continue
                yield member, None if member.size > MAX_FILE_BYTES else _stream(tar, member)
            # tarfile takes a damaged header for the end; the real end is a block of zeros, or nothing.
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header where one should be, at byte {tar.offset}")
    except DAMAGED_TAR as error:
        raise ImageError(
            f"{path} is no tar or is damaged or truncated ({short_reason(error)}): copy it again"
        ) from None


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None  # members that are regular files have bytes
    if isinstance(tar.fileobj, io.BufferedReader):
        return stream
    # To go back in a compressed file is to decompress it again from its beginning.
    return io.BytesIO(stream.read())


MANIFEST = "manifest.csv"
NO_CLASS = "photo"  # the class of a picture that no manifest gives another


@dataclass(frozen=True)
class PictureEntry:
    """A picture whose header is sound."""

    name: str  # what messages call it
    source: str  # the file that has it: the picture itself, or a tar
    member: int | None  # where its header lies in the tar, in bytes; None outside of tars
    size: tuple[int, int]  # width and height in px, as stored
    kind: str  # its class
    file_bytes: int  # of the source …
    modified: int  # … and when that changed, in nanoseconds


@dataclass(frozen=True)
class Refusal:
    """A picture or tar that cannot be used."""

    name: str
    reason: str  # a whole sentence, which starts with the name


@dataclass(frozen=True)
class Sources:
    """The pictures of some sources, in a stable order."""

    found: list[PictureEntry]
    refused: list[Refusal]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes, times and classes of what was found; changes when these do."""
        text = json.dumps([astuple(entry) for entry in self.found])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def largest_crop(self) -> int:
        """The side in px of the largest square that lies in some picture."""
        return max((min(entry.size) for entry in self.found), default=0)


def find_pictures(sources: Sequence[Path], classes: Path | None = None) -> Sources:
    """Find the pictures of folders (with the folders and tars in them), picture files and tars.

    Hidden files and files that are not named like pictures are passed over in silence, what looks like
    a picture and cannot be used is refused by name, and a file that comes twice counts once. Classes
    are read from `classes` (a CSV with the columns file and class) or, where that is None, from every
    manifest.csv on the way from a source to its pictures. Raises PMAVAEError for a source that does
    not exist or has no picture, and for a manifest that cannot be read.
    """
    finder = _Finder(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow: what is wrong with a picture is said with its name
        for source in sources:
            finder.add(source)
    if not finder.found:
        reasons = [refusal.reason for refusal in finder.refused]
        raise PMAVAEError(f"there is no picture to train on: {reasons[0] if reasons else 'name a folder'}")
    return Sources(finder.found, finder.refused)


def read_classes(manifest: Path) -> dict[str, str] | None:
    """File name to class; None for a CSV without the columns `file` and `class`. Raises PMAVAEError."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"file", "class"} <= set(reader.fieldnames or ()):
                return None
            return {row["file"]: row["class"] for row in reader if row["file"] and row["class"]}
    except OSError as error:
        raise PMAVAEError(f"{manifest} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise PMAVAEError(f"{manifest} is not a CSV file in UTF-8 ({error}): save it as one") from None


class _Finder:
    """What there is in some sources. The class of a picture is that of the manifest nearest to it."""

    def __init__(self, classes: Path | None) -> None:
        self.found: list[PictureEntry] = []
        self.refused: list[Refusal] = []
        self._seen: set[tuple[int, int]] = set()  # device and inode of files
        self._manifests: dict[Path, dict[str, str]] = {}
        self._classes = read_classes(classes) if classes else None
        if classes and self._classes is None:
            raise PMAVAEError(
                f"{classes} does not have the columns file and class: add a first line with them"
            )

    def add(self, source: Path) -> None:
        try:
            is_folder = stat.S_ISDIR(source.stat().st_mode)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            reason = "does not exist" if missing else f"cannot be read ({error.strerror})"
            raise PMAVAEError(f"{source} {reason}: check its name and folder") from None
        found, refused = len(self.found), len(self.refused)
        if is_folder:
            repeated = [self._add_file(file, source) for file in self._files(source)]
        else:
            repeated = [self._add_file(source, source.parent)]
        if len(self.found) > found or any(repeated) or not (is_folder or is_tar(source)):
            return
        reasons = [refusal.reason for refusal in self.refused[refused:]]
        detail = f" that can be used: {reasons[0]}" if reasons else ": name a folder or a tar with pictures"
        raise PMAVAEError(f"{source} has no picture{detail}")

    def _files(self, root: Path) -> Iterator[Path]:
        """The pictures and tars below a folder, by name; links are followed, but into no folder twice."""
        folders = set()

        def refuse(error: OSError) -> None:
            reason = f"cannot be read ({error.strerror}): check its rights"
            self._refuse(_printable(str(error.filename)), reason)

        for place, below, files in os.walk(root, followlinks=True, onerror=refuse):
            here = Path(place).stat()
            if (here.st_dev, here.st_ino) in folders:
                below.clear()
                continue
            folders.add((here.st_dev, here.st_ino))
            below[:] = sorted(name for name in below if not is_hidden(name))
            for file in (Path(place, name) for name in sorted(files) if not is_hidden(name)):
                if file.suffix.lower() in SUFFIXES or is_tar(file):
                    yield file

    def _add_file(self, file: Path, root: Path) -> bool:
        """Add what a file has; returns whether it was known before."""
        name = _printable(str(file))
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                self._refuse(name, "is not a regular file: leave it out")
                return False
            if (status.st_dev, status.st_ino) in self._seen:
                return True
            self._seen.add((status.st_dev, status.st_ino))
            if is_tar(file):
                for member, stream in picture_members(file):
                    self._add(
                        f"{name}/{_printable(str(PurePosixPath(member.name)))}", stream, file, root, member
                    )
            else:
                with file.open("rb") as stream:
                    self._add(name, stream if status.st_size <= MAX_FILE_BYTES else None, file, root)
        except OSError as error:
            self._refuse(name, f"cannot be read ({error.strerror or error}): check its rights")
        except ImageError as error:
            self.refused.append(Refusal(name, str(error)))
        return False

    def _add(
        self,
        name: str,
        stream: IO[bytes] | None,
        file: Path,
        root: Path,
        member: tarfile.TarInfo | None = None,
    ) -> None:
        """Add a picture, in a stream that is None where it is too large."""
        if stream is None:
            self._refuse(name, "is too large a file for a picture: make it smaller")
            return
        try:
            size = picture_size(stream, name)
        except ImageError as error:
            self.refused.append(Refusal(name, str(error)))
            return
        inner, offset = (member.name, member.offset) if member else (None, None)
        status, kind = file.stat(), self._class(file, root, inner)
        source = str(file.absolute())
        self.found.append(PictureEntry(name, source, offset, size, kind, status.st_size, status.st_mtime_ns))

    def _class(self, file: Path, root: Path, member: str | None) -> str:
        """The class of a picture file below the folder `root`, or of a member of a tar there."""
        for folder in (file.parent, *file.parent.parents):
            path = PurePosixPath(member if member is not None else file.relative_to(folder).as_posix())
            kinds = self._in(folder) if self._classes is None else self._classes
            for name in (str(path), path.name):
                if name in kinds:
                    return kinds[name]
            if folder == root:
                break
        return NO_CLASS

    def _in(self, folder: Path) -> dict[str, str]:
        if folder not in self._manifests:
            manifest = folder / MANIFEST
            # A manifest of something else has other columns, and is none of ours.
            self._manifests[folder] = (read_classes(manifest) or {}) if manifest.is_file() else {}
        return self._manifests[folder]

    def _refuse(self, name: str, reason: str) -> None:
        self.refused.append(Refusal(name, f"{name} {reason}"))


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)
