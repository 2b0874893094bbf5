"""The models of one run, and reading with them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NoReturn

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pmavae import PMAVAE, PRESETS, Latents, Style
from pmavae.errors import ImageError, PMAVAEError, WeightsError
from pmavae.latent_file import (
    LatentHeader,
    check_weights,
    looks_like_latents,
    read_latents,
    read_latents_or_style,
)
from pmavae.latents import expected_shapes
from pmavae.pixels import to_pixels
from pmavae.refinement.features import FeatureNetwork
from pmavae.style_source import fit_side, style_view
from pmavae.task_models import CODEC_BOUND, TaskModel, load_task_model
from pmavae.texture.network import TexturePrior
from pmavae.weights import Manifest, has_weights, weights_folder
from pmavae_cli.carried import METADATA
from pmavae_cli.console import Console
from pmavae_cli.formats import LATENTS, format_of
from pmavae_cli.inputs import Source
from pmavae_cli.options import RunOptions
from pmavae_cli.picture import Picture, read_mask, read_picture

# Reading makes an error of Pillow's warning of too large a picture, and all threads share their warnings.
_READING = Lock()


class LatentsError(PMAVAEError):
    """Latents that no file can hold."""


@dataclass(frozen=True)
class Loaded:
    """One input as latents."""

    latents: Latents
    carried: dict[str, str]  # see carried.py
    pixels: NDArray[np.uint8] | None = None  # (H, W, 3), what was encoded; None out of a latent file


@dataclass(frozen=True)
class LoadedStyle:
    """The style of a file."""

    style: Style
    picture: NDArray[np.uint8] | None  # (H, W, 3), what it is of; None out of a style file
    fixed: bool  # encoded before, at a scale of its own


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
    def task_model(self) -> TaskModel:
        """The network of the task. Raises WeightsError, and ValueError for a task without."""
        task = self.task_weights
        if task is None:
            raise ValueError("the task names no weights of its own")
        name = self.options.weights or self.options.preset
        if name in PRESETS and not has_weights(name, task):
            if task in CODEC_BOUND:
                self._refuse_preset(name, task)
            self.console.detail(f"{task} has no weights of preset {name}, those of tiny are used")
            name = "tiny"
        model = load_task_model(name, task)
        if self.options.weights:
            self._check_preset(name, model.config.preset)
        if isinstance(model, TexturePrior):
            model.check_codec(self.model)
        self._tell(model.weights_id)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def features(self) -> FeatureNetwork:
        """The network that compares pictures. Raises WeightsError."""
        return FeatureNetwork.from_pretrained().to(self.device)

    def _refuse_preset(self, name: str, task: str) -> NoReturn:
        entries = Manifest.load(weights_folder() / "manifest.json").entries
        others = [entry.preset for entry in entries if entry.task == task]
        remedy = f"use --preset {' or '.join(others)}" if others else "train some"
        raise WeightsError(
            f"preset {name} has no weights for {task}, and those of another preset do not fit its latents: "
            f"{remedy}, or give some with --weights"
        )

    def _check_preset(self, name: str, found: str) -> None:
        if self.options.preset_given and found != self.options.preset:
            raise WeightsError(
                f"{name} has weights of preset {found}, not {self.options.preset}: "
                "leave out --preset or --weights"
            )

    def _tell(self, weights_id: str) -> None:
        self.console.detail(f"weights {weights_id} on {self.device}, {torch.get_num_threads()} threads")

    def load(self, source: Source, side: int | None = None, ahead: Picture | None = None) -> Loaded:
        """A picture or a latent file as latents; raises PMAVAEError, naming it, in one sentence.

        side: the longer side, in px, to which a picture is resized before it is encoded. ahead: the picture,
        where it was read before.
        """
        found = self._noted(ahead, source) if ahead else self._read(source)
        if isinstance(found, Loaded):
            return found
        assert isinstance(found, Picture)
        pixels = fit_side(found.pixels, side) if side else np.asarray(found.pixels)
        latents = self.model.encode(pixels)
        # The log-variances would double a latent file for the few tasks that could use them.
        latents = replace(latents, logvar_base=None, logvar_detail=None)
        return Loaded(self.as_stored(latents), found.carried, pixels)

    def load_pixels(
        self, source: Source, side: int | None = None, ahead: Picture | None = None
    ) -> LoadedPixels:
        """A picture as its pixels, a latent file as what it decodes to; raises as `load` does."""
        found = self._noted(ahead, source) if ahead else self._read(source)
        if isinstance(found, Loaded):
            pixels = to_pixels(self.model.decode(found.latents)[0])
            return LoadedPixels(pixels, found.carried, None, decoded=True)
        assert isinstance(found, Picture)
        pixels = fit_side(found.pixels, side) if side else np.asarray(found.pixels)
        return LoadedPixels(pixels, found.carried, None if side else found.tables, decoded=False)

    def load_style(self, source: Source, scale: float = 1.0) -> LoadedStyle:
        """The style of a picture by `style_view`, or of a latent file; raises as `load` does."""
        found = self._read(source, style=True)
        if isinstance(found, Style):
            return LoadedStyle(found, None, fixed=True)
        if isinstance(found, Loaded):
            whole = found.latents
            style = Style(whole.z_style, whole.width, whole.height)
            return LoadedStyle(style, to_pixels(self.model.decode(whole)[0]), fixed=True)
        latents = self.as_stored(self.model.encode(style_view(found.pixels, scale)))
        style = Style(latents.z_style, latents.width, latents.height)
        return LoadedStyle(style, np.asarray(found.pixels), fixed=False)

    def load_mask(self, source: Source) -> NDArray[np.uint8]:
        """The greys of a picture, (H, W), black where it is transparent; raises as `load` does."""
        try:
            data = sys.stdin.buffer.read() if source.path is None else source.path.read_bytes()
        except OSError as reason:
            raise ImageError(f"{source.name} cannot be read: {reason.strerror or reason}") from None
        if looks_like_latents(data[:9]):
            raise ImageError(f"{source.name} is a latent file: a mask has to be a picture")
        return read_mask(io.BytesIO(data), source.name)

    def load_path(self, path: str | Path) -> Latents:
        """The latents of another picture or latent file."""
        return self.load(Source(str(path), Path(path))).latents

    def _read(self, source: Source, style: bool = False) -> Loaded | Style | Picture:
        if source.path is None:
            return self._parse(sys.stdin.buffer.read(), source, style)
        try:
            with source.path.open("rb") as file:
                # A pipe cannot be read twice, and what is in it shows only on reading.
                return self._parse(file if file.seekable() else file.read(), source, style)
        except OSError as reason:
            raise ImageError(f"{source.name} cannot be read: {reason.strerror or reason}") from None

    def _parse(self, content: bytes | BinaryIO, source: Source, style: bool) -> Loaded | Style | Picture:
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        first_bytes = stream.read(9)
        stream.seek(0)
        if looks_like_latents(first_bytes) or (source.path and format_of(source.path) is LATENTS):
            # By its path, a file that turns out to be of another kind is not read as a whole.
            place = content if isinstance(content, bytes) else source.path
            assert place is not None
            # The loaded model's own shape counts before the preset that its name stands for.
            known = {**PRESETS, self.model.config.preset: self.model.config}
            read = read_latents_or_style if style else read_latents
            found, header = read(place, known.__getitem__, name=source.name)
            check_weights(header, self.model.weights_id, self.model.weights_sha256, source.name)
            if isinstance(found, Style):
                return replace(found, z_style=found.z_style.to(self.model.device))
            return Loaded(found.to(self.model.device), self._kept(header.picture))
        with _READING:
            picture = read_picture(stream, source.name)
        return self._noted(picture, source)

    def _noted(self, picture: Picture, source: Source) -> Picture:
        for note in picture.notes:
            self.console.note(f"{source.name}: {note}")
        return replace(picture, carried=self._kept(picture.carried))

    def read_ahead(self, source: Source) -> Picture | None:
        """A picture file for `load` and `load_pixels`, read without a model or a word, as in a thread.

        None for a latent file. Raises as `load` does.
        """
        if source.path is None or format_of(source.path) is LATENTS:
            return None
        try:
            with source.path.open("rb") as file:
                if looks_like_latents(file.read(9)):
                    return None
                file.seek(0)
                with _READING:
                    return read_picture(file, source.name)
        except OSError as reason:
            raise ImageError(f"{source.name} cannot be read: {reason.strerror or reason}") from None

    def _kept(self, carried: Mapping[str, str]) -> dict[str, str]:
        """What is to go to an output."""
        strip = self.options.metadata == "strip"
        return {key: value for key, value in carried.items() if not (strip and key in METADATA)}

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

    def check_style(self, style: Style, task: str) -> Style:
        """What a task returned as a style; raises LatentsError where it is not one of this model."""
        expected = (1, self.model.config.style_channels, 1, 1)
        if tuple(style.z_style.shape) != expected:
            found = tuple(style.z_style.shape)
            raise LatentsError(f"task {task} returned z_style of shape {found}, which should be {expected}")
        return style

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
