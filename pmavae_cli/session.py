"""The model of one run, and reading with it."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import click
import torch

from pmavae import PMAVAE, PRESETS, Latents
from pmavae.errors import ImageError, PMAVAEError, WeightsError
from pmavae.latent_file import LatentHeader, check_weights, looks_like_latents, read_latents
from pmavae.latents import expected_shapes
from pmavae_cli.console import Console
from pmavae_cli.formats import LATENTS, format_of
from pmavae_cli.inputs import Source
from pmavae_cli.options import RunOptions
from pmavae_cli.picture import read_picture


class LatentsError(PMAVAEError):
    """Latents that no file can hold."""


@dataclass(frozen=True)
class Loaded:
    """One input as latents."""

    latents: Latents
    carried: dict[str, str]  # see carried.py


@dataclass(frozen=True)
class Session:
    """A loaded model and the precision of its latents."""

    model: PMAVAE
    dtype: torch.dtype
    console: Console

    @classmethod
    def open(cls, options: RunOptions, console: Console) -> Session:
        """Load the weights that the options ask for, onto their device."""
        if options.threads:
            torch.set_num_threads(options.threads)
        device = choose_device(options.device)
        name = options.weights or options.preset
        model = PMAVAE.from_pretrained(name)
        if options.preset_given and model.config.preset != options.preset:
            raise WeightsError(
                f"{name} has weights of preset {model.config.preset}, not {options.preset}: "
                "leave out --preset or --weights"
            )
        console.detail(f"weights {model.weights_id} on {device}, {torch.get_num_threads()} threads")
        return cls(model.to(device), getattr(torch, options.dtype), console)

    def load(self, source: Source) -> Loaded:
        """Read a picture or a latent file; raises PMAVAEError, naming it, in one sentence."""
        if source.path is None:
            return self._load(sys.stdin.buffer.read(), source)
        try:
            with source.path.open("rb") as file:
                # A pipe cannot be read twice, and what is in it shows only on reading.
                return self._load(file if file.seekable() else file.read(), source)
        except OSError as reason:
            raise ImageError(f"{source.name} cannot be read: {reason.strerror or reason}") from None

    def load_path(self, path: str | Path) -> Latents:
        """The latents of another picture or latent file."""
        return self.load(Source(str(path), Path(path))).latents

    def _load(self, content: bytes | BinaryIO, source: Source) -> Loaded:
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
        latents = self.model.encode(picture.pixels)
        # The log-variances would double a latent file for the few tasks that could use them.
        latents = replace(latents, logvar_base=None, logvar_detail=None)
        return Loaded(self.as_stored(latents), picture.carried)

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
