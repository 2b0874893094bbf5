"""One run of a task over its inputs: read, transform, write, and tell what failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from pmavae import Latents
from pmavae.errors import PMAVAEError
from pmavae.picture_files import UNREADABLE
from pmavae_cli.api import Context, Task
from pmavae_cli.console import Console
from pmavae_cli.inputs import Source
from pmavae_cli.options import RunOptions
from pmavae_cli.planning import Job
from pmavae_cli.session import LatentsError, Loaded, Session
from pmavae_cli.writing import render_latents, render_picture, write


class Runner:
    """A task with its options and a session."""

    def __init__(
        self, task: Task, task_options: Mapping[str, Any], options: RunOptions, console: Console
    ) -> None:
        self.task = task
        self.task_options = dict(task_options)
        self.options = options
        self.console = console
        self.session = Session.open(options, console)
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
        source = self.session.load(job.source)
        results = self._transform(source.latents, len(job.outputs))
        for output, latents in zip(job.outputs, results, strict=True):
            if output.exists:
                continue
            carried = _carried(source, latents)
            if output.format.is_image:
                pixels = self.session.model.decode(latents)
                data, notes = render_picture(pixels, carried, output.format, self.options.quality)
            else:
                data, notes = render_latents(self.session, latents, carried)
            write(output, data, self.options.overwrite)
            for note in notes:
                self.console.note(f"{output.name}: {note}")
            seconds = time.perf_counter() - start
            self.console.detail(f"{job.source.name} → {output.name} in {seconds:.2f} s")
            self.console.result(
                {
                    "input": job.source.name,
                    "output": output.name,
                    "task": self.task.name,
                    "status": "written",
                    "width": latents.width,
                    "height": latents.height,
                    "seconds": round(seconds, 3),
                }
            )

    @torch.no_grad()
    def _transform(self, latents: Latents, count: int) -> list[Latents]:
        context = Context(
            model=self.session.model,
            seed=self.options.seed,
            generator=torch.Generator().manual_seed(self.options.seed),
            load=self.session.load_path,
            log=self.console.note,
        )
        returned = self.task.transform(latents, context, **self.task_options)
        results = [returned] if isinstance(returned, Latents) else list(returned)
        if len(results) != count:
            raise LatentsError(f"task {self.task.name} returned {len(results)} results instead of {count}")
        return [self.session.check(result, self.task.name) for result in results]

    def _latents_of(self, value: Any) -> Any:
        """The value of a parameter with its pictures read."""
        if isinstance(value, Source):
            return self.session.load(value).latents
        if isinstance(value, tuple):
            return tuple(self._latents_of(part) for part in value)
        return value


def _carried(source: Loaded, result: Latents) -> dict[str, str]:
    """What of the input goes with a result."""
    carried = dict(source.carried)
    # z_style holds the colours: a grey picture in another style is no longer meant to be grey.
    if not torch.equal(source.latents.z_style, result.z_style):
        carried.pop("mode", None)
    return carried


def _out_of_memory(error: Exception) -> PMAVAEError:
    failure = PMAVAEError("it needs more memory than there is: make the picture smaller")
    failure.__cause__ = error
    return failure
