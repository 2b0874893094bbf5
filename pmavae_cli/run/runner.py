"""One run of a task over its inputs: read, transform, write, and tell what failed."""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pmavae.errors import PMAVAEError
from pmavae.images.pixels import CELL_SIDE, Pixels, eight_bits, fit_side, strips
from pmavae.images.reading import UNREADABLE
from pmavae.latents import Latents
from pmavae_cli.api import Context, Named, Task, Weighted
from pmavae_cli.console import Console, describe_error
from pmavae_cli.images.reading import Picture
from pmavae_cli.images.writing import check_size
from pmavae_cli.options import RunOptions
from pmavae_cli.plugin_manager import Registry
from pmavae_cli.progress import Bars
from pmavae_cli.run.inputs import InputError, MaskSource, Source, StyleSource
from pmavae_cli.run.jobs import Job
from pmavae_cli.run.outputs import Saved, Saver, as_result, is_small, ready
from pmavae_cli.run.reader import Item, LatentsError, Session


class Ended(Exception):
    """With --fail-fast, what is begun is not finished; why has been said."""


@dataclass
class Failures:
    """Those of one run."""

    console: Console
    task: str
    fail_fast: bool

    @property
    def ended(self) -> bool:
        """Whether something failed after which nothing more is to be done."""
        return self.fail_fast and self.console.failures > 0

    @contextmanager
    def reported(self, name: str) -> Iterator[None]:
        """Say what fails in here, of the file `name`, and go on."""
        try:
            yield
        except (BrokenPipeError, Ended):
            # Where nobody reads the results any more, that ends the run, whatever the file.
            raise
        except Exception as error:  # a plugin may raise anything: the other inputs are still done
            # torch has no type of its own for memory that a CPU does not have.
            no_memory = isinstance(error, RuntimeError) and "memory" in str(error)
            if isinstance(error, MemoryError) or (no_memory and not isinstance(error, UNREADABLE)):
                message = "it needs more memory than there is: make the picture smaller"
            elif isinstance(error, UNREADABLE):
                message = str(error)
            else:
                message = describe_error(error)
            self.console.failure(name, self.task, error, message)


class Runner:
    """A task with its options and a session."""

    def __init__(
        self,
        task: Task,
        task_options: Mapping[str, Any],
        options: RunOptions,
        console: Console,
        registry: Registry | None = None,
    ) -> None:
        self.task = task
        self.registry = registry  # of the plugins; None: only what comes with pmavae is known
        self.options = options
        self.console = console
        index = registry.weights if registry else None
        self.session = Session.open(options, console, task.weights, index, task.build_network)
        self.failures = Failures(console, task.name, options.fail_fast)
        self.many_to_one = task.many_to_one(**task_options)
        self.side = task.side(**task_options)
        self.scale = task.scale(**task_options)
        self.makes_style = task.output_kind(**task_options) == "style"
        # What is wrong with the weights is wrong for every input, so it ends the run before the first.
        _ = self.session.task_model if task.weights else None
        _ = self.session.model if task.input_kind != "pixels" else None
        self.files = ParameterFiles(self.session, task, task_options, self.failures)
        self.task_options = {name: self.files.read(value) for name, value in task_options.items()}

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs, up to the first that fails where that ends the run; in a batch, threads read and save.

        While one picture is computed, the next is read and the one before it saved. Of large pictures there
        is only one at a time, so that memory does not depend on the folder. What is said comes in the order
        of the jobs.
        """
        ahead: Future[Picture | None] | None = None
        small = bool(jobs) and is_small(jobs[0], self.scale, self.options)
        with (
            Bars(self.console, len(jobs)) as self.bars,
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,  # which finishes what it has begun, whatever ends the run
        ):
            saver = Saver(writer, self.options)
            self.console.first = lambda: self._report_saved(saver)
            for done, (job, following) in enumerate(zip_longest(jobs, jobs[1:]), 1):
                read, ahead = ahead, None
                this_small = small
                small = following is not None and is_small(following, self.scale, self.options)
                if following and small:
                    ahead = reader.submit(self.session.read_ahead, following.source)
                with suppress(Ended), self.failures.reported(job.name):
                    self._do(job, read, saver, this_small)
                if self.options.fail_fast:
                    self._report_saved(saver)
                self.bars.done(done - bool(saver.job))
                if self.failures.ended:
                    break
            self._report_saved(saver)

    def _report_saved(self, saver: Saver) -> None:
        """Wait for what is being saved, and say how it went."""
        if job := saver.job:
            with self.failures.reported(job.name):
                for saved in saver.wait():
                    self._report(job, saved)

    def _do(self, job: Job, read: Future[Picture | None] | None, saver: Saver, small: bool) -> None:
        start = time.perf_counter()
        if not small:
            self._report_saved(saver)
        results = self._results(job, read.result() if read else None)
        pairs = [
            (output, result) for output, result in zip(job.outputs, results, strict=True) if not output.exists
        ]
        if small:
            converted = [(output, ready(result, output.format)) for output, result in pairs]
            self._report_saved(saver)
            saver.save(job, converted, start)
            return
        for output, result in pairs:
            self._report(job, saver.save_now(output, ready(result, output.format), start))

    def _report(self, job: Job, saved: Saved) -> None:
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

    def _results(self, job: Job, ahead: Picture | None) -> list[Item]:
        """What the task makes of one input, or of all together."""
        if self.many_to_one:
            returned = self._transform(job, self._named_contents(job))
            return [as_result(self.session, result, {}, self.task) for result in returned]
        item, content = self._load(job.source, ahead)
        of_pixels = self.task.input_kind == "pixels"
        if of_pixels:
            height, width = (self.scale * side for side in content.shape[:2])
            for output in job.outputs:
                check_size(width, height, output.format)
        returned = self._transform(job, content, item)
        return [
            as_result(self.session, found, item.metadata if of_pixels else _metadata(item, found), self.task)
            for found in returned
        ]

    def _named_contents(self, job: Job) -> list[Named]:
        """All inputs that can be read; the others have then been reported."""
        found = []
        for source in job.gathered:
            with self.failures.reported(source.name):
                found.append(Named(source.stem, self._load(source)[1], source.name))
            if self.failures.ended:
                raise Ended
        if not found:
            raise InputError("none of the inputs can be read")
        return found

    def _load(self, source: Source, ahead: Picture | None = None) -> tuple[Item, Any]:
        """An input, and what the task takes of it."""
        kind = self.task.input_kind
        item = self.session.load(source, self.side, ahead, self.task.large and kind != "pixels")
        if self.makes_style and item.stored:
            self.files.report_fixed(source)
        if kind == "latents" or (self.many_to_one and kind == "either"):
            return item, item.latents
        if kind == "either":
            return item, item.latents if item.pixels is None else self._allowed(item.pixels)
        pixels = item.as_pixels()
        if item.stored:
            self.console.note(
                f"{source.name} holds latents and no pixels: {self.task.name} starts from what they "
                "decode to, and can be no truer",
                once="decoded",
            )
        if pixels.dtype != np.uint8 and not self.task.deep:
            self.console.note(f"{source.name} has 16 bits a channel, of which {self.task.name} uses 8")
        return item, self._allowed(pixels)

    def _allowed(self, pixels: Pixels) -> Pixels:
        return pixels if self.task.deep else eight_bits(pixels)

    @torch.no_grad()
    def _transform(self, job: Job, content: Any, item: Item | None = None) -> list[Any]:
        pixels = item.pixels if item and self.task.input_kind != "pixels" else None
        if isinstance(content, np.ndarray):
            depth = 8 * content.itemsize
        else:
            depth = 8 * item.dtype.itemsize if item and self.task.deep else 8
        with self.bars.picture(job.name) as progress:
            context = Context(
                open_model=lambda: self.session.model,
                open_task_model=lambda: self.session.task_model,
                seed=self.options.seed,
                generator=torch.Generator().manual_seed(self.options.seed),
                load=self.session.load_path,
                log=self.console.note,
                detail=lambda message: self.console.detail(f"{job.name}: {message}"),
                progress=progress,
                tables=item.tables if item else None,
                open_features=lambda: self.session.features,
                open_cache=lambda: cache_folder(
                    self.registry.owner(self.task.name).name if self.registry else self.task.name
                ),
                device=self.session.device,
                grey=item is not None and item.grey,
                pixels=None if pixels is None else self._allowed(pixels),
                depth=depth,
                open_latents=(lambda: item.latents) if item else None,
            )
            returned: Any = self.task.transform(content, context, **self.task_options)
        several = isinstance(returned, Iterable) and not isinstance(returned, np.ndarray)
        results = list(returned) if several else [returned]
        if len(results) != len(job.outputs):
            raise LatentsError(
                f"task {self.task.name} returned {len(results)} results instead of {len(job.outputs)}"
            )
        return results


def _metadata(source: Item, result: Any) -> dict[str, str]:
    """What of the input goes with a result."""
    carried = dict(source.metadata)
    # z_style holds the colours: a grey picture in another style is no longer meant to be grey.
    if isinstance(result, Latents) and not torch.equal(source.latents.z_style, result.z_style):
        carried.pop("mode", None)
    if isinstance(result, np.ndarray) and any(
        (result[rows, :, :1] != result[rows]).any() for rows in strips(len(result))
    ):
        carried.pop("mode", None)
    return carried


CACHE = "PMAVAE_CACHE"


class CacheError(PMAVAEError):
    """A cache folder that cannot be used."""


def cache_folder(plugin: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The cache folder of a plugin, made where there is none; raises CacheError where that cannot be."""
    if chosen := environment.get(CACHE):
        base = Path(chosen).expanduser().absolute()
    else:
        import platformdirs  # not for every start

        base = platformdirs.user_cache_path("pmavae", appauthor=False)
    # One folder, whatever an entry point is called.
    folder = base / "plugins" / (re.sub(r"[^a-z0-9]+", "-", plugin.lower()).strip("-") or "plugin")
    reason = "no permission to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        reason, writable = error.strerror or str(error), False
    if not writable:
        raise CacheError(
            f"the cache folder {folder} cannot be used ({reason}): set {CACHE} to a folder that can be "
            "written"
        )
    return folder


PICTURE_SIDE = 2048  # px of the longer side of a style's picture, at most


class ParameterFiles:
    """The files that options name, read once, before any input."""

    def __init__(
        self, session: Session, task: Task, task_options: Mapping[str, Any], failures: Failures
    ) -> None:
        self._session, self._failures = session, failures
        # Whether a style that cannot be read is left out, not the end.
        self._leaves_out = task.many_to_one(**task_options)
        self._scale = task.style_scale(**task_options)  # of styles, where one is asked for
        self._uses_pictures = task.uses_pictures(**task_options)  # beside the styles
        self._reported_fixed = False

    def read(self, value: Any) -> Any:
        """A value with the contents of the files in place of their Sources."""
        if isinstance(value, MaskSource):
            return self._session.load_mask(value)
        if isinstance(value, StyleSource):
            return self._read_style(value)
        if isinstance(value, Source):
            return self._session.load(value).latents
        if not isinstance(value, tuple):
            return value
        if not (self._leaves_out and value and isinstance(value[0], StyleSource)):
            return tuple(map(self.read, value))
        found = []
        for source in value:
            if self._failures.ended:
                break
            with self._failures.reported(source.name):
                found.append(self._read_style(source))
        return tuple(found)

    def _read_style(self, source: StyleSource) -> Weighted:
        scale = 1.0 if self._scale is None else self._scale
        loaded = self._session.load_style(source, scale)
        picture = loaded.pixels
        if loaded.stored and (picture is None or not self._uses_pictures):
            self.report_fixed(source)
        if picture is not None:
            # Hundreds of styles have to fit in memory, and a sheet shows them no larger than a cell.
            largest = round(CELL_SIDE * max(1.0, scale)) if self._leaves_out else PICTURE_SIDE
            picture = fit_side(picture, min(largest, max(picture.shape[:2])))
        item = replace(loaded, pixels=None)  # which may be large, and would be kept with it
        # What is wrong with a style is told before the first input, unless its picture may do alone.
        _ = None if self._uses_pictures else item.as_style
        return Weighted(source.stem, lambda: item.as_style, source.weight, picture)

    def report_fixed(self, source: Source) -> None:
        """Say, once, that a scale is asked for which a file cannot have."""
        if self._scale is None or self._reported_fixed:
            return
        self._reported_fixed = True
        self._session.console.note(
            f"{source.name} keeps the scale at which it was encoded: --style-scale is for pictures"
        )
