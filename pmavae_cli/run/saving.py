"""Saving results in a thread, while the next picture is computed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from pmavae_cli.images.writing import write
from pmavae_cli.options import RunOptions
from pmavae_cli.run.disk_space import pixels_of
from pmavae_cli.run.folder_tree import is_file
from pmavae_cli.run.jobs import Job, Output
from pmavae_cli.run.outputs import Converted, StripResult

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
