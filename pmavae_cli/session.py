"""The models of one run, and reading with them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pmavae import PMAVAE, PRESETS, Latents
from pmavae.errors import ImageError, PMAVAEError, WeightsError
from pmavae.latent_file import LatentHeader, check_weights, looks_like_latents, read_latents
from pmavae.latents import expected_shapes
from pmavae.pixels import to_pixels
from pmavae.restoration.network import Restorer
from pmavae.weights import has_weights
from pmavae_cli.console import Console
from pmavae_cli.formats import LATENTS, format_of
from pmavae_cli.inputs import Source
from pmavae_cli.options import RunOptions
from pmavae_cli.picture import Picture, read_picture


class LatentsError(PMAVAEError):
    """Latents that no file can hold."""


@dataclass(frozen=True)
class Loaded:
    """One input as latents."""

    latents: Latents
    carried: dict[str, str]  # see carried.py


@dataclass(frozen=True)
class LoadedPixels:
    """One input as pixels."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    carried: dict[str, str]
    tables: Mapping[int, Sequence[int]] | None  # of a JPEG file
    decoded: bool  # out of latents


@dataclass(frozen=True)
class Session:
    """What one run computes with; a model is loaded when it is first used."""

    options: RunOptions
    console: Console
    task_weights: str | None  # the task whose weights --weights names; None for the autoencoder's
    device: torch.device
    dtype: torch.dtype  # of latents

    @classmethod
    def open(cls, options: RunOptions, console: Console, task_weights: str | None = None) -> Session:
        """Find the device; raises click.UsageError where it is not there."""
        if options.threads:
            torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        return cls(options, console, task_weights, device, getattr(torch, options.dtype))

    @cached_property
    def model(self) -> PMAVAE:
        """The autoencoder. Raises WeightsError."""
        asked = self.options.weights if self.task_weights is None else None
        name = asked or self.options.preset
        model = PMAVAE.from_pretrained(name)
        self._check_preset(name, model.config.preset)
        self._tell(model.weights_id)
        return model.to(self.device)

    @cached_property
    def restorer(self) -> Restorer:
        """The network of the task. Raises WeightsError, and ValueError for a task without."""
        task = self.task_weights
        if task is None:
            raise ValueError("the task names no weights of its own")
        name = self.options.weights or self.options.preset
        if name in PRESETS and not has_weights(name, task):
            self.console.detail(f"{task} has no weights of preset {name}, those of tiny are used")
            name = "tiny"
        model = Restorer.from_pretrained(name, task)
        if self.options.weights:
            self._check_preset(name, model.config.preset)
        self._tell(model.weights_id)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _check_preset(self, name: str, found: str) -> None:
        if self.options.preset_given and found != self.options.preset:
            raise WeightsError(
                f"{name} has weights of preset {found}, not {self.options.preset}: "
                "leave out --preset or --weights"
            )

    def _tell(self, weights_id: str) -> None:
        self.console.detail(f"weights {weights_id} on {self.device}, {torch.get_num_threads()} threads")

    def load(self, source: Source) -> Loaded:
        """A picture or a latent file as latents; raises PMAVAEError, naming it, in one sentence."""
        found = self._read(source)
        if isinstance(found, Loaded):
            return found
        latents = self.model.encode(found.pixels)
        # The log-variances would double a latent file for the few tasks that could use them.
        latents = replace(latents, logvar_base=None, logvar_detail=None)
        return Loaded(self.as_stored(latents), found.carried)

    def load_pixels(self, source: Source) -> LoadedPixels:
        """A picture as its pixels, a latent file as what it decodes to; raises as `load` does."""
        found = self._read(source)
        if isinstance(found, Loaded):
            pixels = to_pixels(self.model.decode(found.latents)[0])
            return LoadedPixels(pixels, found.carried, None, decoded=True)
        return LoadedPixels(np.asarray(found.pixels), found.carried, found.tables, decoded=False)

    def load_path(self, path: str | Path) -> Latents:
        """The latents of another picture or latent file."""
        return self.load(Source(str(path), Path(path))).latents

    def _read(self, source: Source) -> Loaded | Picture:
        if source.path is None:
            return self._parse(sys.stdin.buffer.read(), source)
        try:
            with source.path.open("rb") as file:
                # A pipe cannot be read twice, and what is in it shows only on reading.
                return self._parse(file if file.seekable() else file.read(), source)
        except OSError as reason:
            raise ImageError(f"{source.name} cannot be read: {reason.strerror or reason}") from None

    def _parse(self, content: bytes | BinaryIO, source: Source) -> Loaded | Picture:
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        first_bytes = stream.read(9)
        stream.seek(0)
        if looks_like_latents(first_bytes) or (source.path and format_of(source.path) is LATENTS):
            # By its path, a file that turns out to be of another kind is not read as a whole.
            place = content if isinstance(content, bytes) else source.path
            assert place is not None
            # The loaded model's own shape counts before the preset that its name stands for.
            known = {**PRESETS, self.model.config.preset: self.model.config}
            latents, header = read_latents(place, known.__getitem__, name=source.name)
            check_weights(header, self.model.weights_id, self.model.weights_sha256, source.name)
            return Loaded(latents.to(self.model.device), header.picture)
        picture = read_picture(stream, source.name)
        for note in picture.notes:
            self.console.note(f"{source.name}: {note}")
        return picture

    def as_stored(self, latents: Latents) -> Latents:
        """The latents as they are once written to a file and read again.

        Every step of a run works on these, so that a chain of commands through latent files gives
        the same bytes as one command. Raises LatentsError for values that a file cannot hold.
        """
        rounded = latents.to(dtype=self.dtype).to(dtype=torch.float32)
        # A file has one memory layout, and kernels may round differently in another.
        rounded = rounded.replace(**{name: z.contiguous() for name, z in rounded.tensors().items()})
        if not all(tensor.isfinite().all() for tensor in rounded.tensors().values()):
            hint = "; try --dtype float32" if self.dtype is torch.float16 else ""
            raise LatentsError(f"its latents have values that are not finite{hint}")
        return rounded

    def check(self, latents: Latents, task: str) -> Latents:
        """What a task returned, as stored; raises LatentsError where it is not latents of one picture."""
        if not isinstance(latents, Latents):
            raise LatentsError(f"task {task} returned {type(latents).__name__} instead of Latents")
        expected = expected_shapes(self.model.config, latents.height, latents.width)
        for name, tensor in latents.tensors().items():
            if tuple(tensor.shape) != (1, *expected[name]):
                raise LatentsError(
                    f"task {task} returned {name} of shape {tuple(tensor.shape)}, "
                    f"which should be {(1, *expected[name])}"
                )
        return self.as_stored(latents)

    def header(self, carried: dict[str, str]) -> LatentHeader:
        """The header of a latent file of this run."""
        return LatentHeader(
            self.model.config.preset, self.model.weights_id, self.model.weights_sha256, carried
        )


def choose_device(name: str) -> torch.device:
    """The torch device of `--device`; raises click.UsageError for one that is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[name]:
        raise click.UsageError(f"--device {name}: torch finds no such device here; use --device cpu.")
    return torch.device(name)
