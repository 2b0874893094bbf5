"""The pictures in a tar, in one pass from its beginning to its end."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from pmavae.errors import ImageError
from pmavae.images.reading import DAMAGED_TAR, MAX_FILE_BYTES, SUFFIXES, short_reason

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
                if not member.isreg() or not parts or any(is_hidden(p) for p in parts if p != ".."):
                    continue
                if PurePosixPath(parts[-1]).suffix.lower() not in SUFFIXES:
                    continue
                yield member, None if member.size > MAX_FILE_BYTES else _stream(tar, member)
            _check_end(tar)
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


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end; the real end is a block of zeros, or nothing."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if any(tar.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"no header where one should be, at byte {tar.offset}")
