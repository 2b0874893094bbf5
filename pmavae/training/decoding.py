"""The pictures of a survey, decoded by a few threads, in their order."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmavae.errors import ImageError
from pmavae.images.reading import decode_rgb, refusing
from pmavae.training.sources import PictureEntry, Refusal
from pmavae.training.tar_pictures import picture_members

THREADS = min(4, os.cpu_count() or 1)  # Pillow decodes without the interpreter's lock

Decoded = NDArray[np.uint8] | Refusal


def decoded(entries: Sequence[PictureEntry]) -> Iterator[tuple[PictureEntry, Decoded]]:
    """Each entry with its pixels, (H, W, 3) uint8 and upright, or with why it has none.

    In the order of the entries, but those of one tar in the order of the tar. At most a few pictures
    are in memory at a time.
    """
    with ThreadPoolExecutor(THREADS, "decode") as pool:
        waiting: deque[tuple[PictureEntry, Future[Decoded]]] = deque()
        for entry, data in _read(entries):
            waiting.append((entry, pool.submit(_decode, entry, data)))
            if len(waiting) > 2 * THREADS:
                yield _done(waiting)
        while waiting:
            yield _done(waiting)


def _done(waiting: deque[tuple[PictureEntry, Future[Decoded]]]) -> tuple[PictureEntry, Decoded]:
    entry, future = waiting.popleft()
    return entry, future.result()


def _decode(entry: PictureEntry, data: bytes | Refusal) -> Decoded:
    if isinstance(data, Refusal):
        return data
    try:
        return decode_rgb(io.BytesIO(data), entry.name)
    except ImageError as error:
        return Refusal(entry.name, str(error))


def _read(entries: Sequence[PictureEntry]) -> Iterator[tuple[PictureEntry, bytes | Refusal]]:
    for (source, in_tar), group in groupby(entries, key=lambda e: (Path(e.source), e.member is not None)):
        if in_tar:
            yield from _read_tar(source, list(group))
        else:
            for entry in group:
                try:
                    with refusing(entry.name):
                        data: bytes | Refusal = source.read_bytes()
                except ImageError as error:
                    data = Refusal(entry.name, str(error))
                yield entry, data


def _read_tar(tar: Path, entries: list[PictureEntry]) -> Iterator[tuple[PictureEntry, bytes | Refusal]]:
    wanted = {entry.member: entry for entry in entries}
    try:
        for member, stream in picture_members(tar):
            if stream is None or (entry := wanted.pop(member.offset, None)) is None:
                continue
            try:
                with refusing(entry.name):
                    data: bytes | Refusal = stream.read()
            except ImageError as error:
                data = Refusal(entry.name, str(error))
            yield entry, data
            if not wanted:
                return
    except ImageError:
        pass  # the survey has told of the tar; what it found there and is not in it now follows
    for entry in wanted.values():
        yield entry, Refusal(entry.name, f"{entry.name} is no longer there: check the tar")
