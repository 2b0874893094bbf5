"""What a task made of one input, as the file that was asked for, saved while the next one is computed."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmavae.config import MIN_SIZE
from pmavae.files.latent_file import latents_to_bytes
from pmavae.latents import Latents, Style, expected_shapes
from pmavae_cli.api import Task
from pmavae_cli.images.formats import Format, Output
from pmavae_cli.images.metadata import fit_header
from pmavae_cli.images.reading import is_large
from pmavae_cli.images.writing import STRIP_FORMATS, render_picture, write
from pmavae_cli.options import RunOptions
from pmavae_cli.run.checks import pixels_of
from pmavae_cli.run.inputs import is_file
from pmavae_cli.run.jobs import Job
from pmavae_cli.run.reader import Item, LatentsError, Session


def ready(item: Item, form: Format) -> Item:
    """The item with what a file of this format holds, and nothing else; all that takes a model is done.

    But so large a picture is decoded while it is written, in strips. Raises LatentsError for a picture of a
    style.
    """
    if item.style is not None:
        if form.is_image:
            raise LatentsError(f"a {form.name} picture cannot hold a style: name a .safetensors file")
        return item
    if not form.is_image:
        return Item(item.session, item.metadata, coded=item.latents)
    if item.pixels is not None or (is_large(*item.size) and form.pillow in STRIP_FORMATS):
        return item
    return Item(item.session, item.metadata, item.as_pixels(form.deep))


def save(item: Item, output: Output, quality: int, overwrite: bool) -> list[str]:
    """Put an item that is `ready` in its place, and return a note for all that its file cannot hold."""
    form, session, notes = output.format, item.session, list[str]()
    if item.style is not None:  # what came with the picture stays with the picture
        data = latents_to_bytes(item.style, session.header({}), session.dtype)
    elif not form.is_image:
        kept, notes = fit_header(item.metadata)
        data = latents_to_bytes(item.latents, session.header(kept), session.dtype)
    elif item.pixels is not None:
        data, notes = render_picture(item.pixels, item.metadata, form, quality)
    else:
        from pmavae_cli.images.strips import write_strips

        rows = session.model.decode_rows(item.latents, item.dtype if form.deep else np.uint8)
        return write_strips(output, rows, item.size, item.metadata, quality, overwrite)
    write(output, data, overwrite)
    return notes


def as_result(session: Session, returned: Any, metadata: Mapping[str, str], task: Task) -> Item:
    """Check what a task returned; raises LatentsError where it is not what the task has to return."""

    def wrong(what: str) -> LatentsError:
        return LatentsError(f"task {task.name} returned {what}")

    config = session.model.config if task.input_kind != "pixels" else None
    if config and isinstance(returned, Style):
        shape, expected = tuple(returned.z_style.shape), (1, config.style_channels, 1, 1)
        if shape != expected:
            raise wrong(f"z_style of shape {shape}, which should be {expected}")
        return Item(session, style=returned)
    if config and not isinstance(returned, np.ndarray):
        if not isinstance(returned, Latents):
            raise wrong(f"{type(returned).__name__} instead of Latents")
        shapes = expected_shapes(config, returned.height, returned.width)
        for name, tensor in returned.tensors().items():
            if tuple(tensor.shape) != (1, *shapes[name]):
                raise wrong(f"{name} of shape {tuple(tensor.shape)}, which should be {(1, *shapes[name])}")
        return Item(session, metadata, coded=session.as_stored(returned))
    if not isinstance(returned, np.ndarray):
        raise wrong(f"{type(returned).__name__} instead of pixels")
    shape, kind = returned.shape, returned.dtype
    kinds = [np.dtype(np.uint8), *([np.dtype(np.uint16)] if task.deep else [])]
    if kind not in kinds or len(shape) != 3 or shape[2] != 3 or min(shape[:2]) < MIN_SIZE:
        raise wrong(f"{kind} {shape} instead of {' or '.join(map(str, kinds))} pixels (H, W, 3)")
    kept = {key: value for key, value in metadata.items() if key != "depth" or kind == np.uint16}
    return Item(session, kept, returned)


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
    """Saves the results of one job at a time, by a thread."""

    def __init__(self, thread: Executor, options: RunOptions) -> None:
        self._thread, self._options = thread, options
        self._saving: Future[None] | None = None
        self._saved: list[Saved] = []
        self.job: Job | None = None  # whose results are being saved, or were and have not been told

    def save(self, job: Job, results: Sequence[tuple[Output, Item]], start: float) -> None:
        """Begin to save converted results; `wait` has to have been called for those before.

        start: the time.perf_counter() at which the job began.
        """
        self.job, self._saved = job, []
        self._saving = self._thread.submit(self._save, results, start)

    def _save(self, results: Sequence[tuple[Output, Item]], start: float) -> None:
        for output, result in results:
            self._saved.append(self.save_now(output, result, start))

    def wait(self) -> Iterator[Saved]:
        """The saved outputs in their order; then raises what ended the saving of the job, if anything did."""
        saving, self._saving, self.job = self._saving, None, None
        if saving:
            wait([saving])
            yield from self._saved
            saving.result()

    def save_now(self, output: Output, result: Item, start: float) -> Saved:
        """Save in the thread of the caller, which Ctrl-C then ends at once."""
        notes = save(result, output, self._options.quality, self._options.overwrite)
        return Saved(output, result.size, notes, time.perf_counter() - start)
