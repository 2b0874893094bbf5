"""Training pictures, decoded once into one memory-mapped file and sampled by class.

The cache is a flat file of uint8 RGB rows beside a JSON index. Each picture is there twice,
whole and two-fold downscaled: the second view doubles the scales seen and has no JPEG grid.
"""

import io
import json
import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pmavae.errors import ImageError, PMAVAEError
from pmavae.files.tensors import atomic_file, write_atomically
from pmavae.images.reading import MIN_SIDE, decode_rgb, refusing
from pmavae.training.sources import NO_CLASS, PictureEntry, Refusal, Sources, picture_members

THREADS = min(4, os.cpu_count() or 1)  # Pillow decodes without the interpreter's lock

Decoded = NDArray[np.uint8] | Refusal
T = TypeVar("T")


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
                first, pixels = waiting.popleft()
                yield first, pixels.result()
        for entry, pixels in waiting:
            yield entry, pixels.result()


def _decode(entry: PictureEntry, data: bytes | Refusal) -> Decoded:
    if isinstance(data, Refusal):
        return data
    return _or_refusal(entry, lambda: decode_rgb(io.BytesIO(data), entry.name))


def _or_refusal(entry: PictureEntry, made: Callable[[], T]) -> T | Refusal:
    try:
        with refusing(entry.name):
            return made()
    except ImageError as error:
        return Refusal(entry.name, str(error))


def _read(entries: Sequence[PictureEntry]) -> Iterator[tuple[PictureEntry, bytes | Refusal]]:
    for (source, in_tar), group in groupby(entries, key=lambda e: (Path(e.source), e.member is not None)):
        if in_tar:
            yield from _read_tar(source, {entry.member: entry for entry in group})
        else:
            yield from ((entry, _or_refusal(entry, source.read_bytes)) for entry in group)


def _read_tar(
    tar: Path, wanted: dict[int | None, PictureEntry]
) -> Iterator[tuple[PictureEntry, bytes | Refusal]]:
    try:
        for member, stream in picture_members(tar):
            if stream is not None and (entry := wanted.pop(member.offset, None)) is not None:
                yield entry, _or_refusal(entry, stream.read)
            if not wanted:
                return
    except ImageError:
        pass  # it was refused when it was found; what was in it then and is not now follows
    for entry in wanted.values():
        yield entry, Refusal(entry.name, f"{entry.name} is no longer there: check the tar")


def to_device(crops: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1] on a device, in channels-last memory.

    To CUDA it travels as bytes from pinned memory, while the caller goes on.
    """
    on_cuda = device.type == "cuda"
    batch = torch.from_numpy(crops)
    batch = (batch.pin_memory() if on_cuda else batch).to(device, non_blocking=on_cuda)
    return batch.permute(0, 3, 1, 2).float().div_(255)


FLAT_DEVIATION = 5.0  # of 255: a crop whose channels vary less teaches nothing and is drawn again …
ATTEMPTS = 8  # … so many times at most
SUFFIX = ".u8"
VERSION = 2  # of the index
_PIXEL = np.dtype("V3")  # red, green and blue in one: a mirrored copy takes half the time
_NUMBERS = 28  # random numbers a crop: 1 + 3 an attempt, in whole blocks of Philox's 4


@dataclass(frozen=True)
class View:
    """One picture at one scale: where its rows lie in the cache."""

    offset: int
    height: int
    width: int
    kind: str


def open_or_build(
    sources: Sources, cache: Path, progress: Callable[[int, int], None] | None = None
) -> list[Refusal]:
    """Make sure that `cache` holds the pictures of some sources: as it is, where it does, else built anew.

    Returns the pictures that could not be decoded and raises as `build_cache` does.
    """
    try:
        index = _read_index(cache)
    except PMAVAEError:
        index = {}
    if index.get("fingerprint") == sources.fingerprint:
        return [Refusal(*row) for row in index["refused"]]
    return build_cache(sources, cache, progress)


def build_cache(
    sources: Sources, cache: Path, progress: Callable[[int, int], None] | None = None
) -> list[Refusal]:
    """Decode the pictures of some sources into `cache` (a .u8 file; the index gets .json), all or nothing.

    `progress` is called with the number of pictures done and of all. Returns the pictures that could
    not be decoded. Raises PMAVAEError where none could, where the disk is too small and where it
    cannot be written.
    """
    if cache.suffix != SUFFIX:
        raise PMAVAEError(f"{cache} is no name for the decoded pictures: let it end in {SUFFIX}")
    views: list[View] = []
    refused: list[Refusal] = []
    offset = 0
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        _check_space(sources, cache)
        with atomic_file(cache, error=PMAVAEError) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow: what cannot be decoded is refused by its name
            for done, (entry, pixels) in enumerate(decoded(sources.found), 1):
                if isinstance(pixels, Refusal):
                    refused.append(pixels)
                else:
                    for view in (pixels, np.asarray(Image.fromarray(pixels).reduce(2))):
                        if min(view.shape[:2]) >= MIN_SIDE:
                            file.write(np.ascontiguousarray(view).data)
                            views.append(View(offset, view.shape[0], view.shape[1], entry.kind))
                            offset += view.nbytes
                if progress:
                    progress(done, len(sources.found))
            if not views:
                raise PMAVAEError(f"no picture could be decoded: {refused[0].reason if refused else cache}")
            # An index says that the pixels are whole, so it goes first and comes last.
            _index_path(cache).unlink(missing_ok=True)
    except OSError as error:
        raise PMAVAEError(f"{cache} cannot be written: {error.strerror or error}") from None
    index = {
        "version": VERSION,
        "fingerprint": sources.fingerprint,
        "bytes": offset,
        "views": [astuple(view) for view in views],
        "refused": [astuple(refusal) for refusal in refused],
    }
    write_atomically(_index_path(cache), json.dumps(index).encode(), error=PMAVAEError)
    return refused


def _index_path(cache: Path) -> Path:
    return cache.with_suffix(".json")


def _check_space(sources: Sources, cache: Path) -> None:
    whole = [entry.size for entry in sources.found]
    halves = [(-(-width // 2), -(-height // 2)) for width, height in whole]
    views = whole + [size for size in halves if min(size) >= MIN_SIDE]
    needed = 3 * sum(width * height for width, height in views)
    free = shutil.disk_usage(cache.parent).free
    if needed > free:
        raise PMAVAEError(
            f"{cache} needs {needed / 1e9:.1f} GB for the decoded pictures and its disk has "
            f"{free / 1e9:.1f} GB left: make room, or put the cache elsewhere"
        )


def _read_index(cache: Path) -> dict[str, Any]:
    """The index of a cache that is whole; raises PMAVAEError."""
    try:
        index = json.loads(_index_path(cache).read_text(encoding="utf-8"))
        if index["version"] == VERSION and index["bytes"] == cache.stat().st_size:
            return dict(index)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise PMAVAEError(f"{cache} is not a whole cache of decoded pictures: delete it to have it made again")


class Dataset:
    """Random crops out of a cache, as a pure function of (seed, step, row): resuming needs no state.

    `shares` gives the chance of each class; those of classes that are not there go to the others in
    proportion, and a picture of a class without a share counts as a photo. Within a class, or in all
    where there are no shares, views are drawn by area: every pixel has the same chance. Raises
    PMAVAEError for a cache that is not whole.
    """

    def __init__(self, cache: Path, shares: Mapping[str, float] | None = None) -> None:
        self.views = [View(*row) for row in _read_index(cache)["views"]]
        self._pixels = np.asarray(np.memmap(cache, np.uint8, mode="r"))
        self._sides = np.array([min(view.height, view.width) for view in self.views])
        self._areas = np.array([view.height * view.width for view in self.views], dtype=np.float64)
        self._shares = {NO_CLASS: 1.0} if shares is None else dict(shares)
        self._kinds = np.array([view.kind if view.kind in self._shares else NO_CLASS for view in self.views])
        self._tables: dict[int, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}

    @property
    def largest_crop(self) -> int:
        """The side in px of the largest crop that some view has room for."""
        return int(self._sides.max())

    def probabilities(self, size: int) -> NDArray[np.float64]:
        """The chance of each view, (views,), for a crop of `size` px; 0 for those that are smaller.

        Raises PMAVAEError where no view is large enough, or all that are have a share of 0.
        """
        fits = self._sides >= size
        if not fits.any():
            raise PMAVAEError(f"no picture of the corpus has {size} px on both sides: use a smaller crop")
        chances = np.zeros(len(self.views))
        for kind in np.unique(self._kinds[fits]):
            chosen = fits & (self._kinds == kind)
            share = self._shares.get(str(kind), 0.0)
            chances[chosen] = share * self._areas[chosen] / self._areas[chosen].sum()
        if not chances.sum() > 0:
            raise PMAVAEError(f"no picture of {size} px on both sides is of a class with a share above 0")
        return chances / chances.sum()

    def crops(
        self, count: int, size: int, *, seed: int, step: int, first: int = 0, flat: bool = False
    ) -> NDArray[np.uint8]:
        """(count, size, size, 3) uint8, mirrored at random: rows first to first + count - 1 of a step.

        Each row depends on nothing but seed, step and its number, so that the parts of a batch can be
        drawn in several places. `flat` keeps crops that have next to nothing in them, such as clear sky.
        Raises PMAVAEError as `probabilities` does.
        """
        if size not in self._tables:
            chances = self.probabilities(size)
            possible = np.flatnonzero(chances)
            cumulative = chances[possible].cumsum()
            self._tables[size] = possible, cumulative / cumulative[-1]
        possible, cumulative = self._tables[size]
        numbers = _numbers(count, seed, step, first)
        draws = numbers[:, 1 : 1 + 3 * ATTEMPTS].reshape(count, ATTEMPTS, 3)
        chosen = possible[np.searchsorted(cumulative, draws[..., 0], side="right")]
        crops = np.empty((count, size, size), _PIXEL)
        for row in range(count):
            for attempt in range(ATTEMPTS):
                _, vertical, horizontal = draws[row, attempt]
                crop = self._crop(self.views[chosen[row, attempt]], size, vertical, horizontal)
                if flat or not _is_flat(crop):
                    break
            crops[row] = crop
            if numbers[row, 0] < 0.5:
                crops[row] = crops[row, :, ::-1]  # out of the cache first: reading it backwards is slow
        return crops.view(np.uint8).reshape(count, size, size, 3)

    def batch(self, count: int, size: int, *, seed: int, step: int) -> Tensor:
        """`crops` as (count, 3, size, size) float32 in [0, 1] on the CPU."""
        return to_device(self.crops(count, size, seed=seed, step=step), torch.device("cpu"))

    def _crop(self, view: View, size: int, vertical: float, horizontal: float) -> NDArray[np.void]:
        top = int(vertical * (view.height - size + 1))
        left = int(horizontal * (view.width - size + 1))
        end = view.offset + view.height * view.width * 3
        rows = self._pixels[view.offset : end].view(_PIXEL).reshape(view.height, view.width)
        return rows[top : top + size, left : left + size]


def _numbers(count: int, seed: int, step: int, first: int) -> NDArray[np.float64]:
    """(count, _NUMBERS) in [0, 1): the numbers of a row lie at a place of their own in Philox's stream."""
    generator = np.random.Philox(
        key=np.array([seed % 2**64, step % 2**64], np.uint64), counter=first * _NUMBERS // 4
    )
    raw = generator.random_raw(count * _NUMBERS).reshape(count, _NUMBERS)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _is_flat(crop: NDArray[np.void]) -> bool:
    """Whether the standard deviation of red, green and blue, averaged, is too low; a pixel in 16 counts."""
    few = np.ascontiguousarray(crop[::4, ::4]).view(np.uint8).reshape(-1, 3)
    channels = few.T.astype(np.int64, order="C")
    squares, sums = np.einsum("cn,cn->c", channels, channels), channels.sum(axis=1)
    variances = (squares * len(few) - sums * sums) / len(few) ** 2
    return bool(np.sqrt(variances).mean() < FLAT_DEVIATION)
