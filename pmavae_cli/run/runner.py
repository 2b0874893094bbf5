"""One run of a task over its inputs: read, transform, write, and tell what failed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pmavae import Latents
from pmavae.errors import PMAVAEError
from pmavae.images.pixels import CELL_SIDE, Pixels, eight_bits, fit_side, strips
from pmavae_cli.api import Context, Named, Task, Weighted
from pmavae_cli.console import Console
from pmavae_cli.images.reading import Picture
from pmavae_cli.images.writing import check_size
from pmavae_cli.options import RunOptions
from pmavae_cli.plugin_manager import Registry
from pmavae_cli.progress import Bars
from pmavae_cli.run.failures import Ended, Failures
from pmavae_cli.run.inputs import InputError, MaskSource, Source, StyleSource
from pmavae_cli.run.jobs import Job
from pmavae_cli.run.outputs import Saved, Saver, as_result, is_small, ready
from pmavae_cli.run.reader import Item, LatentsError, Session


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
        self.task_options = dict(task_options)
        self.options = options
        self.console = console
        index = registry.weights if registry else None
        self.session = Session.open(options, console, task.weights, index, task.build_network)
        self.failures = Failures(console, task.name, options.fail_fast)
        self.gathers = task.gathers(**self.task_options)
        self.side = task.side(**self.task_options)
        self.makes_style = task.makes_style(**self.task_options)
        # What is wrong with the weights is wrong for every input, so it ends the run before the first.
        _ = self.session.task_model if task.weights else None
        _ = self.session.model if task.takes != "pixels" else None
        self.files = ParameterFiles(
            self.session,
            console,
            self.failures,
            self.task_options,
            self.gathers,
            task.style_scale(**self.task_options),
            task.uses_pictures(**self.task_options),
        )
        self.task_options = self.files.read()

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs, up to the first that fails where that ends the run; in a batch, threads read and save.

        While one picture is computed, the next is read and the one before it saved. Of large pictures there
        is only one at a time, so that memory does not depend on the folder. What is said comes in the order
        of the jobs.
        """
        ahead: Future[Picture | None] | None = None
        small = bool(jobs) and self._is_small(jobs[0])
        with (
            Bars(self.console, len(jobs)) as self.bars,
            ThreadPoolExecutor(1) as reader,
            Saver(self.options) as saver,
        ):
            self.console.first = lambda: self._tell_saved(saver)
            for done, (job, following) in enumerate(zip_longest(jobs, jobs[1:]), 1):
                read, ahead = ahead, None
                small, this_small = following is not None and self._is_small(following), small
                if following and small:
                    ahead = reader.submit(self.session.read_ahead, following.source)
                with suppress(Ended), self.failures.told(job.name):
                    self._do(job, read, saver, this_small)
                if self.options.fail_fast:
                    self._tell_saved(saver)
                self.bars.done(done - bool(saver.job))
                if self.failures.ended:
                    break
            self._tell_saved(saver)

    def _tell_saved(self, saver: Saver) -> None:
        """Wait for what is being saved, and say how it went."""
        if job := saver.job:
            with self.failures.told(job.name):
                for saved in saver.wait():
                    self._tell(job, saved)

    def _is_small(self, job: Job) -> bool:
        return is_small(job, self.task.scale(**self.task_options), self.options)

    def _do(self, job: Job, read: Future[Picture | None] | None, saver: Saver, small: bool) -> None:
        start = time.perf_counter()
        if not small:
            self._tell_saved(saver)
        results = self._results(job, read.result() if read else None)
        pairs = [
            (output, result) for output, result in zip(job.outputs, results, strict=True) if not output.exists
        ]
        if small:
            converted = [(output, ready(result, output.format)) for output, result in pairs]
            self._tell_saved(saver)
            saver.save(job, converted, start)
            return
        for output, result in pairs:
            self._tell(job, saver.save_now(output, ready(result, output.format), start))

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

    def _results(self, job: Job, ahead: Picture | None) -> list[Item]:
        """What the task makes of one input, or of those it gathers."""
        if self.gathers:
            returned = self._transform(job, self._gathered(job))
            return [as_result(self.session, result, {}, self.task) for result in returned]
        if self.task.takes != "pixels":
            source = self._load(job.source, ahead)
            pixels = None if source.pixels is None else self._allowed(source.pixels)
            depth = 8 * source.dtype.itemsize if self.task.deep else 8
            either = self.task.takes == "either" and pixels is not None
            content = pixels if either else source.latents
            returned = self._transform(job, content, source, pixels=pixels, depth=depth)
            return [as_result(self.session, found, _metadata(source, found), self.task) for found in returned]
        picture, whole = self._load_pixels(job.source, ahead)
        scale = self.task.scale(**self.task_options)
        height, width = (scale * side for side in whole.shape[:2])
        for output in job.outputs:
            check_size(width, height, output.format)
        depth = 8 * whole.itemsize
        returned = self._transform(job, whole, picture, tables=picture.tables, depth=depth)
        return [as_result(self.session, pixels, picture.metadata, self.task) for pixels in returned]

    def _open_cache(self) -> Path:
        return cache_folder(self.registry.owner(self.task.name).name if self.registry else self.task.name)

    def _gathered(self, job: Job) -> list[Named]:
        """All inputs that can be read; the others have then been reported."""
        found = []
        for source in job.gathered:
            with self.failures.told(source.name):
                if self.task.takes != "pixels":
                    found.append(Named(source.stem, self._load(source).latents, source.name))
                else:
                    _, pixels = self._load_pixels(source)
                    found.append(Named(source.stem, pixels, source.name))
            if self.failures.ended:
                raise Ended
        if not found:
            raise InputError("none of the inputs can be read")
        return found

    def _load(self, source: Source, ahead: Picture | None = None) -> Item:
        loaded = self.session.load(source, self.side, ahead, self.task.large)
        if self.makes_style and loaded.stored:
            self.files.report_fixed(source)
        return loaded

    def _load_pixels(self, source: Source, ahead: Picture | None = None) -> tuple[Item, Pixels]:
        loaded = self.session.load(source, self.side, ahead)
        pixels = loaded.as_pixels()
        if loaded.stored:
            self.console.note(
                f"{source.name} holds latents and no pixels: {self.task.name} starts from what they "
                "decode to, and can be no truer",
                once="decoded",
            )
        if pixels.dtype != np.uint8 and not self.task.deep:
            self.console.note(f"{source.name} has 16 bits a channel, of which {self.task.name} uses 8")
            pixels = eight_bits(pixels)
        return loaded, pixels

    def _allowed(self, pixels: Pixels) -> Pixels:
        return pixels if self.task.deep else eight_bits(pixels)

    @torch.no_grad()
    def _transform(
        self,
        job: Job,
        content: Any,
        source: Item | None = None,
        *,
        tables: Mapping[int, Sequence[int]] | None = None,
        pixels: Pixels | None = None,
        depth: int = 8,
    ) -> list[Any]:
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
                tables=tables,
                open_features=lambda: self.session.features,
                open_cache=self._open_cache,
                device=self.session.device,
                grey=source is not None and source.grey,
                pixels=pixels,
                depth=depth,
                open_latents=(lambda: source.latents) if source else None,
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
    folder = _base(environment) / "plugins" / _file_name(plugin)
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


def _base(environment: Mapping[str, str]) -> Path:
    if chosen := environment.get(CACHE):
        return Path(chosen).expanduser().absolute()
    import platformdirs  # not for every start

    return platformdirs.user_cache_path("pmavae", appauthor=False)


def _file_name(plugin: str) -> str:
    """Of one folder, whatever an entry point is called."""
    return re.sub(r"[^a-z0-9]+", "-", plugin.lower()).strip("-") or "plugin"


PICTURE_SIDE = 2048  # px of the longer side of a style's picture, at most


@dataclass
class ParameterFiles:
    """Reads them, once, before any input."""

    session: Session
    console: Console
    failures: Failures
    values: Mapping[str, Any]  # of the parameters, files as Sources
    gathers: bool  # whether a style that cannot be read is left out, not the end
    scale: float | None  # of styles, where one is asked for
    uses_pictures: bool  # beside the styles
    reported_fixed: bool = False

    def read(self) -> dict[str, Any]:
        """The values with the contents of the files."""
        return {name: self._read(value) for name, value in self.values.items()}

    def _read(self, value: Any) -> Any:
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
        """The styles; where the task gathers, those that cannot be read have then been told."""
        if not self.gathers:
            return tuple(map(self._read_style, sources))
        found = []
        for source in sources:
            if self.failures.ended:
                break
            with self.failures.told(source.name):
                found.append(self._read_style(source))
        return tuple(found)

    def _read_style(self, source: StyleSource) -> Weighted:
        scale = 1.0 if self.scale is None else self.scale
        loaded = self.session.load_style(source, scale)
        picture = loaded.pixels
        if loaded.stored and (picture is None or not self.uses_pictures):
            self.report_fixed(source)
        if picture is not None:
            # Hundreds of styles have to fit in memory, and a sheet shows them no larger than a cell.
            largest = round(CELL_SIDE * max(1.0, scale)) if self.gathers else PICTURE_SIDE
            picture = fit_side(picture, min(largest, max(picture.shape[:2])))
        item = replace(loaded, pixels=None)  # which may be large, and would be kept with it
        # What is wrong with a style is told before the first input, unless its picture may do alone.
        _ = None if self.uses_pictures else item.as_style
        return Weighted(source.stem, lambda: item.as_style, source.weight, picture)

    def report_fixed(self, source: Source) -> None:
        """Say, once, that a scale is asked for which a file cannot have."""
        if self.scale is None or self.reported_fixed:
            return
        self.reported_fixed = True
        self.console.note(
            f"{source.name} keeps the scale at which it was encoded: --style-scale is for pictures"
        )
