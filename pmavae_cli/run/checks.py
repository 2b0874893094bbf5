"""What of a plan cannot be done, and about how much room it takes, before anything is touched."""

import os
import shutil
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import click

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, PRESETS
from pmavae_cli.images.formats import LATENTS, READABLE, Format, format_of
from pmavae_cli.options import RunOptions
from pmavae_cli.run.inputs import Source, identity, is_file, is_folder
from pmavae_cli.run.jobs import Job, Refused

MAX_NAME = 255  # bytes, of nearly every file system
MAX_PATH = 4095

_Place = tuple[tuple[int, int] | None, tuple[str, ...]]


def refuse_pictures(jobs: list[Job]) -> None:
    """Styles have to be in latent files."""
    for output in (output for job in jobs for output in job.outputs):
        if output.format.is_image:
            raise click.UsageError(
                f"{output.name} would be a {output.format.name} picture, which cannot hold a style: "
                "name a .safetensors file."
            )


def refuse_long_name(path: Path) -> None:
    """No file system takes such a name, but some say so only when it is written."""
    for part in path.parts:
        if (length := len(os.fsencode(part))) > MAX_NAME:
            raise Refused(
                f"{path} cannot be written: {part} has {length} bytes, and a name has at most {MAX_NAME}; "
                "rename the input, or give a shorter -o"
            )
    if (length := len(os.fsencode(path))) > MAX_PATH:
        raise Refused(
            f"{path} cannot be written: the path has {length} bytes, and at most {MAX_PATH} are possible; "
            "give another -o"
        )


def refuse_collisions(jobs: list[Job], sources: list[Source]) -> None:
    """No output replaces an input, or another output."""
    read = {identity(source.path): source.name for source in sources if source.path}
    place_of = _places()
    makers: dict[_Place, tuple[Job, Path]] = {}
    for job, path in _paths(jobs):
        itself = identity(path)
        if itself and (name := read.get(itself)):
            raise Refused(f"{path} would replace the input {name}: give another -o")
        first, other = makers.setdefault(place_of(path), (job, path))
        if first is job:
            continue
        both = f"{first.source.name} and {job.source.name} would both become"
        if os.path.realpath(other) == os.path.realpath(path):
            raise Refused(f"{both} {path}: rename one, or run them apart")
        raise Refused(
            f"{both} {path}, or {other} where the disk tells them apart, as many do not: "
            "rename one, or run them apart"
        )
    for folder in {above for _, path in _paths(jobs) for above in path.parents}:
        if folder.name and (maker := makers.get(place_of(folder))):
            raise Refused(
                f"{maker[0].source.name} would become {maker[1]}, which is also the folder of other "
                "outputs: rename one, or run them apart"
            )


def _places() -> Callable[[Path], _Place]:
    """What tells where a path leads, alike for those that lead to one file on a disk that ignores case."""

    def below(folder: Path, name: str) -> _Place:
        itself, names = of_folder(folder)
        return itself, (*names, unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()))

    @cache
    def of_folder(folder: Path) -> _Place:
        """A folder that exists is known by itself, one that is to be made by the letters of its name."""
        itself = identity(folder)
        if itself is None and folder != folder.parent:
            return below(folder.parent, folder.name)
        return itself, ()

    def of(path: Path) -> _Place:
        real = Path(os.path.realpath(path))
        return below(real.parent, real.name)

    return of


def mark_existing(jobs: list[Job], skip: bool) -> list[Job]:
    """Refuse outputs that exist, or note them as what is to be left."""
    existing = [o.path for job in jobs for o in job.outputs if o.path and _is_there(o.path)]
    if existing and not skip:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise Refused(
            f"{existing[0]} exists{more}: use --overwrite to replace it, or --skip-existing to keep it"
        )
    kept = set(existing)
    return [
        replace(job, outputs=tuple(replace(output, exists=output.path in kept) for output in job.outputs))
        for job in jobs
    ]


def refuse_folders(jobs: list[Job]) -> None:
    """No output can replace a folder."""
    for job, path in _paths(jobs):
        if is_folder(path):
            raise Refused(
                f"{path} is a folder, and {job.source.name} would become it: rename it, or give another -o"
            )


def check_folders(jobs: list[Job], may_make: bool) -> None:
    """Fail before hours of work, not after: the folder of every output must take files."""
    for path in {
        o.path.parent: o.path for job in jobs for o in job.outputs if o.path and not o.exists
    }.values():
        folder = _existing(path.parent) if may_make else path.parent
        if not os.path.lexists(folder):
            raise Refused(f"{path} cannot be written: there is no folder {folder}; make it first")
        if not is_folder(folder):
            raise Refused(f"{path} cannot be written: {folder} is not a folder; give another -o")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(f"{path} cannot be written: no permission for {folder}; give another -o")


def check_space(jobs: list[Job], scale: int, options: RunOptions) -> None:
    """Refuse what would surely fill the disk; what only might is tried."""
    disks: dict[int, list[tuple[Path, Path, Format]]] = defaultdict(list)  # of input, output and its format
    for source, output in ((job.source, output) for job in jobs for output in job.outputs):
        if not output.path or not source.path or output.exists or _is_device(output.path):
            continue
        if itself := identity(_existing(output.path.parent)):
            disks[itself[0]].append((source.path, output.path, output.format))
    for outputs in disks.values():
        folder = _existing(outputs[0][1].parent)
        needed = bytes_needed([(source, form) for source, _, form in outputs], scale, options)
        usage = shutil.disk_usage(folder)
        if not usage.total:  # some network disks do not know their size
            continue
        free = usage.free
        # What is replaced makes room, but only after its successor is whole.
        free += sum(path.stat().st_size for _, path, _ in outputs if is_file(path))
        if needed > free:
            many = f"{len(outputs)} outputs need" if len(outputs) > 1 else f"{outputs[0][1]} needs"
            raise Refused(
                f"{folder} has {free / 1e6:.1f} MB free, and {many} at least {needed / 1e6:.1f} MB: "
                "make room, or give -o on another disk"
            )


def _paths(jobs: Sequence[Job]) -> Iterator[tuple[Job, Path]]:
    """All files to write, without what is no file, such as /dev/null."""
    return ((job, o.path) for job in jobs for o in job.outputs if o.path and not _is_device(o.path))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _is_device(path: Path) -> bool:
    """Whether writing to the path replaces nothing, as with /dev/null."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _is_there(path: Path) -> bool:
    return os.path.lexists(path) and not _is_device(path)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """No output of a command that is no task replaces a file unasked."""
    if not overwrite and _is_there(path):
        raise Refused(f"{path} exists: use --overwrite to replace it")


def refuse_output(path: Path, inputs: Mapping[Path, str], overwrite: bool) -> None:
    """Refuse, before anything is read, what cannot or must not be written.

    inputs: the files that it must not replace, and what a message calls them.
    """
    try:
        for source, name in inputs.items():
            if path.exists() and source.exists() and path.samefile(source):
                raise Refused(f"{path} would replace {name}: give another -o")
        if path.is_dir():
            raise Refused(f"{path} is a folder: give a file")
        refuse_existing(path, overwrite)
        if not path.parent.is_dir():
            raise Refused(f"{path} cannot be written: there is no folder {path.parent}; make it first")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise Refused(f"{path} cannot be written: no permission for {path.parent}; give another -o")
    except OSError as reason:  # a name that is too long, a folder that may not be searched
        raise Refused(f"{path} cannot be written: {reason.strerror or reason}; give another -o") from None


SAMPLE = 64  # headers that are read at most, as a folder may lie on a slow disk
# What a flat photograph takes. An estimate that is too high would refuse a run that has room.
_BYTES_PER_PIXEL = {"png": 0.75, "tiff": 0.75, "bmp": 1.0, "jpg": 0.25}
_LEAST_BYTES_PER_PIXEL = 0.05


def bytes_needed(outputs: Sequence[tuple[Path, Format]], scale: int, options: RunOptions) -> int:
    """The bytes that outputs, each given by its input and its format, take together.

    scale: how many times as wide and high as its input an output is. Of many outputs a sample counts.
    """
    latents = _latent_values(options) * (4 if options.dtype == "float32" else 2)
    bytes_per_pixel = {**_BYTES_PER_PIXEL, LATENTS.name: latents}
    sample = outputs[:: -(-len(outputs) // SAMPLE) or 1]
    total = sum(
        pixels_of(path, options) * scale**2 * bytes_per_pixel.get(form.name, _LEAST_BYTES_PER_PIXEL)
        for path, form in sample
    )
    return round(total / max(1, len(sample)) * len(outputs))


def _latent_values(options: RunOptions) -> float:
    """The numbers that a pixel becomes."""
    config = PRESETS[options.preset]
    return config.base_channels / BASE_STRIDE**2 + config.detail_channels / DETAIL_STRIDE**2


def pixels_of(path: Path, options: RunOptions) -> float:
    """About how many pixels an input has; 0 for what cannot be read, which will have no output."""
    from PIL import Image

    if not is_file(path):
        return 0  # a pipe could be read only once
    try:
        if format_of(path) is LATENTS:
            return path.stat().st_size / (4 * _latent_values(options))
        with Image.open(path, formats=READABLE) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as reason:
        from pmavae_cli.images.large import MAX_PIXELS
        from pmavae_cli.images.reading import pixels_named

        pixels = pixels_named(reason)
        return pixels if pixels <= MAX_PIXELS else 0
    except Exception:  # what a damaged header leads to is told when it is read in earnest
        return 0
