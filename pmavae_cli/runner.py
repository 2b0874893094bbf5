"""One run of a task over its inputs: read, transform, write, and tell what failed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmavae import Latents
from pmavae.contact_sheet import CELL_SIDE
from pmavae.errors import PMAVAEError
from pmavae.picture_files import UNREADABLE
from pmavae.refinement.painting import LONGEST
from pmavae.style_source import fit_side
from pmavae_cli.api import Context, Named, Task, Weighted
from pmavae_cli.console import Console
from pmavae_cli.inputs import InputError, MaskSource, Source, StyleSource
from pmavae_cli.jobs import Job
from pmavae_cli.options import RunOptions
from pmavae_cli.picture import Picture
from pmavae_cli.progress import progress_bar
from pmavae_cli.results import Result, as_result
from pmavae_cli.saving import Saved, Saver, is_small
from pmavae_cli.session import LatentsError, Loaded, LoadedPixels, Session
from pmavae_cli.writing import check_size


class _Ended(Exception):
    """With --fail-fast, what is begun is not finished; why has been said."""


class Runner:
    """A task with its options and a session."""

    def __init__(
        self, task: Task, task_options: Mapping[str, Any], options: RunOptions, console: Console
    ) -> None:
        self.task = task
        self.task_options = dict(task_options)
        self.options = options
        self.console = console
        self.session = Session.open(options, console, task.weights)
        self.told_decoded = False
        self.told_fixed = False
        self.failed = False  # some input or style so far, which has then been said
        self.gathers = task.gathers(**self.task_options)
        self.side = task.side(**self.task_options)
        self.makes_style = task.makes_style(**self.task_options)
        # What is wrong with the weights is wrong for every input, so it ends the run before the first.
        _ = self.session.task_model if task.weights else None
        _ = self.session.model if task.takes == "latents" else None
        for name, value in self.task_options.items():
            self.task_options[name] = self._read(value)

    @property
    def ended(self) -> bool:
        """Whether something failed after which nothing more is to be done."""
        return self.failed and self.options.fail_fast

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs, up to the first that fails where that ends the run; in a batch, threads read and save.

        While one picture is computed, the next is read and the one before it saved. Of large pictures there
        is only one at a time, so that memory does not depend on the folder. What is said comes in the order
        of the jobs.
        """
        ahead: Future[Picture | None] | None = None
        with ThreadPoolExecutor(1) as reader, Saver(self.options) as saver:
            self.console.first = lambda: self._tell_saved(saver)
            for job, following in zip_longest(jobs, jobs[1:]):
                read, ahead = ahead, None
                if following and is_small(following, self.task.scale(**self.task_options), self.options):
                    ahead = reader.submit(self.session.read_ahead, following.source)
                with suppress(_Ended), self._reporting(job.name):
                    self._do(job, read, saver)
                if self.options.fail_fast:
                    self._tell_saved(saver)
                if self.ended:
                    break
            self._tell_saved(saver)

    def _tell_saved(self, saver: Saver) -> None:
        """Wait for what is being saved, and say how it went."""
        if job := saver.job:
            with self._reporting(job.name):
                for saved in saver.wait():
                    self._tell(job, saved)

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        """Say what fails in here, and go on."""
        try:
            yield
        except (BrokenPipeError, _Ended):
            # Where nobody reads the results any more, that ends the run, whatever the file.
            raise
        except MemoryError as error:
            self._report(name, _out_of_memory(error))
        except (PMAVAEError, *UNREADABLE) as error:
            self._report(name, error)
        except Exception as error:  # a plugin may raise anything: the other inputs are still done
            # torch has no type of its own for memory that a CPU does not have.
            if isinstance(error, RuntimeError) and "memory" in str(error):
                failure = _out_of_memory(error)
            else:
                failure = PMAVAEError(
                    f"unexpected error: {type(error).__name__}: {error}; "
                    "run again with --debug for the traceback"
                )
                failure.__cause__ = error
            self._report(name, failure)

    def _report(self, name: str, error: Exception) -> None:
        self.failed = True
        self.console.failure(name, self.task.name, error)

    def _do(self, job: Job, read: Future[Picture | None] | None, saver: Saver) -> None:
        start = time.perf_counter()
        small = is_small(job, self.task.scale(**self.task_options), self.options)
        if not small:
            self._tell_saved(saver)
        results = self._results(job, read.result() if read else None)
        pairs = [
            (output, result) for output, result in zip(job.outputs, results, strict=True) if not output.exists
        ]
        if small:
            converted = [(output, result.converted(output.format)) for output, result in pairs]
            self._tell_saved(saver)
            saver.save(job, converted, start)
            return
        for output, result in pairs:
            self._tell(job, saver.save_now(output, result.converted(output.format), start))

    def _tell(self, job: Job, saved: Saved) -> None:
        for note in saved.notes:
            self.console.note(f"{saved.output.name}: {note}")
        self.console.detail(f"{job.name} → {saved.output.name} in {saved.seconds:.2f} s")
        width, height = saved.size
        self.console.result(
            {
                **job.named,
                "output": saved.output.name,
                "task": self.task.name,
                "status": "written",
                "width": width,
                "height": height,
                "seconds": round(saved.seconds, 3),
            }
        )

    def _results(self, job: Job, ahead: Picture | None) -> list[Result]:
        """What the task makes of one input, or of those it gathers."""
        if self.gathers:
            returned = self._transform(job, self._gathered(job))
            return [as_result(self.session, result, {}, self.task) for result in returned]
        if self.task.takes == "latents":
            source = self._load(job.source, ahead)
            grey = source.carried.get("mode") == "L"
            returned = self._transform(job, source.latents, grey=grey, pixels=source.pixels)
            return [
                as_result(self.session, result, _carried(source, result), self.task) for result in returned
            ]
        picture = self._load_pixels(job.source, ahead)
        scale = self.task.scale(**self.task_options)
        height, width = (scale * side for side in picture.pixels.shape[:2])
        for output in job.outputs:
            check_size(width, height, output.format)
        grey = picture.carried.get("mode") == "L"
        returned = self._transform(job, picture.pixels, tables=picture.tables, grey=grey)
        return [as_result(self.session, pixels, picture.carried, self.task) for pixels in returned]

    def _gathered(self, job: Job) -> list[Named]:
        """All inputs that can be read; the others have then been reported."""
        found = []
        for source in job.gathered:
            with self._reporting(source.name):
                if self.task.takes == "latents":
                    found.append(Named(source.stem, self._load(source).latents))
                else:
                    found.append(Named(source.stem, self._load_pixels(source).pixels))
            if self.ended:
                raise _Ended
        if not found:
            raise InputError("none of the inputs can be read")
        return found

    def _load(self, source: Source, ahead: Picture | None = None) -> Loaded:
        loaded = self.session.load(source, self.side, ahead)
        if self.makes_style and loaded.pixels is None:
            self._tell_fixed(source)
        return loaded

    def _load_pixels(self, source: Source, ahead: Picture | None = None) -> LoadedPixels:
        loaded = self.session.load_pixels(source, self.side, ahead)
        if loaded.decoded and not self.told_decoded:
            self.told_decoded = True
            self.console.note(
                f"{source.name} holds latents and no pixels: {self.task.name} starts from what they "
                "decode to, and can be no truer"
            )
        return loaded

    @torch.no_grad()
    def _transform(
        self,
        job: Job,
        content: Any,
        *,
        tables: Mapping[int, Sequence[int]] | None = None,
        grey: bool = False,
        pixels: NDArray[np.uint8] | None = None,
    ) -> list[Any]:
        with progress_bar(self.console, job.name) as progress:
            context = Context(
                open_model=lambda: self.session.model,
                open_task_model=lambda: self.session.task_model,
                seed=self.options.seed,
                generator=torch.Generator().manual_seed(self.options.seed),
                load=self.session.load_path,
                log=self.console.note,
                detail=lambda message: self.console.detail(f"{job.name}: {message}"),
                progress=progress,
                tables=tables,
                open_features=lambda: self.session.features,
                grey=grey,
                pixels=pixels,
            )
            returned: Any = self.task.transform(content, context, **self.task_options)
        several = isinstance(returned, Iterable) and not isinstance(returned, np.ndarray)
        results = list(returned) if several else [returned]
        if len(results) != len(job.outputs):
            raise LatentsError(
                f"task {self.task.name} returned {len(results)} results instead of {len(job.outputs)}"
            )
        return results

    def _read(self, value: Any) -> Any:
        """The value of a parameter with its files read."""
        if isinstance(value, MaskSource):
            return self.session.load_mask(value)
        if isinstance(value, Source):
            return self.session.load(value).latents
        if isinstance(value, tuple) and value and isinstance(value[0], StyleSource):
            return self._read_styles(value)
        if isinstance(value, tuple):
            return tuple(self._read(part) for part in value)
        return value

    def _read_styles(self, sources: Sequence[StyleSource]) -> tuple[Weighted, ...]:
        """The styles; where the task gathers, those that cannot be read have then been reported."""
        if not self.gathers:
            return tuple(map(self._read_style, sources))
        found = []
        for source in sources:
            if self.ended:
                break
            with self._reporting(source.name):
                found.append(self._read_style(source))
        return tuple(found)

    def _read_style(self, source: StyleSource) -> Weighted:
        scale = self.task_options.get("style_scale")
        loaded = self.session.load_style(source, 1.0 if scale is None else scale)
        picture = loaded.picture
        # In steps it is the picture that counts, and that of a latent file can be scaled.
        if loaded.fixed and (picture is None or self.task_options.get("refine", 0) == 0):
            self._tell_fixed(source)
        if picture is not None:
            # Hundreds of styles have to fit in memory, and a sheet shows them no larger than a cell.
            largest = round(CELL_SIDE * max(1.0, scale or 1.0)) if self.gathers else LONGEST
            picture = fit_side(picture, min(largest, max(picture.shape[:2])))
        return Weighted(source.stem, loaded.style, source.weight, picture)

    def _tell_fixed(self, source: Source) -> None:
        """Where a scale is asked for, and a file cannot have it."""
        if self.task_options.get("style_scale") is None or self.told_fixed:
            return
        self.told_fixed = True
        self.console.note(
            f"{source.name} keeps the scale at which it was encoded: --style-scale is for pictures"
        )


def _carried(source: Loaded, result: Any) -> dict[str, str]:
    """What of the input goes with a result."""
    carried = dict(source.carried)
    # z_style holds the colours: a grey picture in another style is no longer meant to be grey.
    if isinstance(result, Latents) and not torch.equal(source.latents.z_style, result.z_style):
        carried.pop("mode", None)
    if isinstance(result, np.ndarray) and (result[..., :1] != result).any():
        carried.pop("mode", None)
    return carried


def _out_of_memory(error: Exception) -> PMAVAEError:
    failure = PMAVAEError("it needs more memory than there is: make the picture smaller")
    failure.__cause__ = error
    return failure
