"""One run of a task over its inputs: read, transform, write, and tell what failed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pmavae import Latents
from pmavae.errors import PMAVAEError
from pmavae.picture_files import UNREADABLE
from pmavae_cli.api import Context, Task
from pmavae_cli.console import Console
from pmavae_cli.inputs import Source
from pmavae_cli.options import RunOptions
from pmavae_cli.planning import Job
from pmavae_cli.progress import progress_bar
from pmavae_cli.results import LatentResult, PixelResult, as_result
from pmavae_cli.session import LatentsError, Loaded, Session
from pmavae_cli.writing import check_size, write


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
        # What is wrong with the weights is wrong for every input, so it ends the run before the first.
        _ = self.session.restorer if task.weights else None
        _ = self.session.model if task.takes == "latents" else None
        for name, value in self.task_options.items():
            self.task_options[name] = self._latents_of(value)

    def run(self, job: Job) -> bool:
        """Do one job; False where it failed, which has then been said."""
        name = job.source.name
        try:
            self._do(job)
        except BrokenPipeError:
            # Nobody reads the results any more: that ends the run, whatever the file.
            raise
        except MemoryError as error:
            self.console.failure(name, self.task.name, _out_of_memory(error))
        except (PMAVAEError, *UNREADABLE) as error:
            self.console.failure(name, self.task.name, error)
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
            self.console.failure(name, self.task.name, failure)
        else:
            return True
        return False

    def _do(self, job: Job) -> None:
        start = time.perf_counter()
        for output, result in zip(job.outputs, self._results(job), strict=True):
            if output.exists:
                continue
            data, notes = result.render(output.format, self.options.quality)
            write(output, data, self.options.overwrite)
            for note in notes:
                self.console.note(f"{output.name}: {note}")
            seconds = time.perf_counter() - start
            self.console.detail(f"{job.source.name} → {output.name} in {seconds:.2f} s")
            width, height = result.size
            self.console.result(
                {
                    "input": job.source.name,
                    "output": output.name,
                    "task": self.task.name,
                    "status": "written",
                    "width": width,
                    "height": height,
                    "seconds": round(seconds, 3),
                }
            )

    def _results(self, job: Job) -> list[LatentResult | PixelResult]:
        """What the task makes of one input."""
        if self.task.takes == "latents":
            source = self.session.load(job.source)
            returned = self._transform(job, source.latents, None)
            return [
                as_result(self.session, latents, _carried(source, latents), self.task) for latents in returned
            ]
        picture = self.session.load_pixels(job.source)
        if picture.decoded and not self.told_decoded:
            self.told_decoded = True
            self.console.note(
                f"{job.source.name} holds latents and no pixels: {self.task.name} starts from what they "
                "decode to, and can be no truer"
            )
        scale = self.task.scale(**self.task_options)
        height, width = (scale * side for side in picture.pixels.shape[:2])
        for output in job.outputs:
            check_size(width, height, output.format)
        returned = self._transform(job, picture.pixels, picture.tables)
        return [as_result(self.session, pixels, picture.carried, self.task) for pixels in returned]

    @torch.no_grad()
    def _transform(self, job: Job, content: Any, tables: Mapping[int, Sequence[int]] | None) -> list[Any]:
        with progress_bar(self.console, job.source.name) as progress:
            context = Context(
                open_model=lambda: self.session.model,
                open_restorer=lambda: self.session.restorer,
                seed=self.options.seed,
                generator=torch.Generator().manual_seed(self.options.seed),
                load=self.session.load_path,
                log=self.console.note,
                detail=lambda message: self.console.detail(f"{job.source.name}: {message}"),
                progress=progress,
                tables=tables,
            )
            returned: Any = self.task.transform(content, context, **self.task_options)
        several = isinstance(returned, Iterable) and not isinstance(returned, np.ndarray)
        results = list(returned) if several else [returned]
        if len(results) != len(job.outputs):
            raise LatentsError(
                f"task {self.task.name} returned {len(results)} results instead of {len(job.outputs)}"
            )
        return results

    def _latents_of(self, value: Any) -> Any:
        """The value of a parameter with its pictures read."""
        if isinstance(value, Source):
            return self.session.load(value).latents
        if isinstance(value, tuple):
            return tuple(self._latents_of(part) for part in value)
        return value


def _carried(source: Loaded, result: Any) -> dict[str, str]:
    """What of the input goes with a result."""
    carried = dict(source.carried)
    if not isinstance(result, Latents):
        return carried
    # z_style holds the colours: a grey picture in another style is no longer meant to be grey.
    if not torch.equal(source.latents.z_style, result.z_style):
        carried.pop("mode", None)
    return carried


def _out_of_memory(error: Exception) -> PMAVAEError:
    failure = PMAVAEError("it needs more memory than there is: make the picture smaller")
    failure.__cause__ = error
    return failure
