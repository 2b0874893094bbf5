"""What a task made of one input, as the file that was asked for, saved while the next one is computed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from pmavae import Latents, Style
from pmavae.config import MIN_SIZE
from pmavae.images.pixels import Pixels
from pmavae_cli.api import Task
from pmavae_cli.images.formats import Format
from pmavae_cli.images.large import is_large
from pmavae_cli.images.writing import (
    STRIP_FORMATS,
    render_latents,
    render_picture,
    render_style,
    write,
    write_strips,
)
from pmavae_cli.options import RunOptions
from pmavae_cli.run.checks import pixels_of
from pmavae_cli.run.inputs import is_file
from pmavae_cli.run.jobs import Job, Output
from pmavae_cli.run.reader import LatentsError, Session, pixel_type


@dataclass(frozen=True)
class LatentResult:
    """Latents, which a picture file is decoded from."""

    session: Session
    latents: Latents
    carried: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.latents.width, self.latents.height

    def converted(self, form: Format) -> LatentResult | PixelResult | StripResult:
        """What a file of this format holds; all that takes a model is done here, but for `StripResult`."""
        if not form.is_image:
            return self
        if is_large(*self.size) and form.pillow in STRIP_FORMATS:
            return StripResult(self.session, self.latents, self.carried)
        dtype = pixel_type(self.carried) if form.deep else np.uint8
        return PixelResult(self.session, self.session.model.decode_pixels(self.latents, dtype), self.carried)

    def render(self, form: Format, quality: int) -> tuple[bytes, list[str]]:
        """The bytes of a file, once converted, and a note for all that it cannot hold."""
        return render_latents(self.session, self.latents, self.carried)


@dataclass(frozen=True)
class PixelResult:
    """Pixels, which a latent file is encoded from."""

    session: Session
    pixels: Pixels  # (H, W, 3)
    carried: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def converted(self, form: Format) -> LatentResult | PixelResult:
        """What a file of this format holds; all that takes a model is done here."""
        if form.is_image:
            return self
        return LatentResult(self.session, self.session.encoded(self.pixels), self.carried)

    def render(self, form: Format, quality: int) -> tuple[bytes, list[str]]:
        """The bytes of a file, once converted, and a note for all that it cannot hold."""
        return render_picture(self.pixels, self.carried, form, quality)


@dataclass(frozen=True)
class StripResult:
    """Latents that are decoded while they are written, because the pixels are too many for memory."""

    session: Session
    latents: Latents
    carried: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.latents.width, self.latents.height

    def write(self, output: Output, quality: int, overwrite: bool) -> list[str]:
        """Put a file in its place, and return a note for all that it cannot hold."""
        dtype = pixel_type(self.carried) if output.format.deep else np.uint8
        strips = self.session.model.decode_rows(self.latents, dtype)
        return write_strips(output, strips, self.size, self.carried, quality, overwrite)


@dataclass(frozen=True)
class StyleResult:
    """A style, which only a latent file can hold."""

    session: Session
    style: Style

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in px, of the picture that it is of."""
        return self.style.width, self.style.height

    def converted(self, form: Format) -> StyleResult:
        """The style itself; raises LatentsError for a picture."""
        if form.is_image:
            raise LatentsError(f"a {form.name} picture cannot hold a style: name a .safetensors file")
        return self

    def render(self, form: Format, quality: int) -> tuple[bytes, list[str]]:
        """The bytes of a file; what came with the picture stays with the picture."""
        return render_style(self.session, self.style), []


Result = LatentResult | PixelResult | StyleResult
Converted = Result | StripResult  # what is saved


def as_result(session: Session, returned: Any, carried: Mapping[str, str], task: Task) -> Result:
    """Check what a task returned; raises LatentsError where it is not what the task has to return."""
    if task.takes == "latents" and isinstance(returned, Style):
        return StyleResult(session, session.check_style(returned, task.name))
    if task.takes == "latents" and not isinstance(returned, np.ndarray):
        return LatentResult(session, session.check(returned, task.name), carried)
    if not isinstance(returned, np.ndarray):
        raise LatentsError(f"task {task.name} returned {type(returned).__name__} instead of pixels")
    shape, kind = returned.shape, returned.dtype
    kinds = [np.dtype(np.uint8), *([np.dtype(np.uint16)] if task.deep else [])]
    if kind not in kinds or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < MIN_SIZE:
        wanted = " or ".join(map(str, kinds))
        raise LatentsError(f"task {task.name} returned {kind} {shape} instead of {wanted} pixels (H, W, 3)")
    carried = {key: value for key, value in carried.items() if key != "depth" or kind == np.uint16}
    return PixelResult(session, returned, carried)


MAX_PIXELS = 25_000_000  # of the outputs of a job beside which another may be in memory


def is_small(job: Job, scale: int, options: RunOptions) -> bool:
    """Whether one more such job fits in memory whatever the machine, so that jobs may overlap.

    scale: how many times as wide and high as its input an output is. What is not a file of its own, such as
    a pipe or all inputs together, is not small, because its size shows too late.
    """
    path = job.source.path
    if job.gathered or path is None or not is_file(path):
        return False
    return pixels_of(path, options) * scale**2 * len(job.outputs) <= MAX_PIXELS


@dataclass(frozen=True)
class Saved:
    """An output that is in its place."""

    output: Output
    size: tuple[int, int]  # width and height in px
    notes: list[str]  # what its format cannot hold
    seconds: float  # since its job began


class Saver:
    """A thread that saves the results of one job at a time; on leaving, what it has begun is finished."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._thread = ThreadPoolExecutor(1)
        self._saving: Future[tuple[list[Saved], Exception | None]] | None = None
        self.job: Job | None = None  # whose results are being saved, or were and have not been told

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def save(self, job: Job, results: Sequence[tuple[Output, Converted]], start: float) -> None:
        """Begin to save converted results; `wait` has to have been called for those before.

        start: the time.perf_counter() at which the job began.
        """
        self.job = job
        self._saving = self._thread.submit(self._save, results, start)

    def wait(self) -> Iterator[Saved]:
        """The saved outputs in their order; then raises what ended the saving of the job, if anything did."""
        saving, self._saving, self.job = self._saving, None, None
        if saving:
            saved, error = saving.result()
            yield from saved
            if error:
                raise error

    def _save(
        self, results: Sequence[tuple[Output, Converted]], start: float
    ) -> tuple[list[Saved], Exception | None]:
        saved: list[Saved] = []
        try:
            for output, result in results:
                saved.append(self.save_now(output, result, start))
        except Exception as error:  # what was saved before it is to be told all the same
            return saved, error
        return saved, None

    def save_now(self, output: Output, result: Converted, start: float) -> Saved:
        """Save in the thread of the caller, which Ctrl-C then ends at once."""
        if isinstance(result, StripResult):
            notes = result.write(output, self._options.quality, self._options.overwrite)
        else:
            data, notes = result.render(output.format, self._options.quality)
            write(output, data, self._options.overwrite)
        return Saved(output, result.size, notes, time.perf_counter() - start)
