"""The models of one run, and reading with them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmavae.config import PRESETS
from pmavae.errors import ImageError, PMAVAEError
from pmavae.files.latent_file import LatentHeader, check_weights, read_latents, read_latents_or_style
from pmavae.files.tensors import looks_like_tensor_file
from pmavae.images.pixels import Pixels, RowSource, eight_bits, fit_side, style_view
from pmavae.inference.fused import set_precision
from pmavae.latents import Latents, Style
from pmavae.pretrained.manifest import WeightsIndex, released_weights
from pmavae.pretrained.network import Builder
from pmavae_cli.console import Console
from pmavae_cli.images.formats import LATENTS, format_of, starts_like_a_picture
from pmavae_cli.images.metadata import METADATA
from pmavae_cli.images.reading import Picture, TooLargeError, read_mask, read_picture
from pmavae_cli.options import RunOptions, go_offline
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.models import RunModels, choose_device

# Reading makes an error of Pillow's warning of too large a picture, and all threads share their warnings.
_READING = Lock()


class LatentsError(PMAVAEError):
    """Latents that no file can hold."""


@dataclass(frozen=True)
class Item:
    """A picture in transit: what it was read as or a task made of it, and what comes with it."""

    session: Session
    metadata: Mapping[str, str] = field(default_factory=dict)  # see images/metadata.py
    pixels: Pixels | None = None  # (H, W, 3)
    rows: RowSource | None = None  # of a picture that is too large to be read as a whole
    coded: Latents | None = None  # of a latent file, or of a task
    style: Style | None = None  # where no more is there, or asked for
    view: Pixels | None = None  # of a picture, at the size at which its style is read
    tables: Mapping[int, Sequence[int]] | None = None  # quantisation tables of a JPEG file
    stored: bool = False  # read from a latent file or a style file

    @cached_property
    def latents(self) -> Latents:
        """Those that it came as, else what is encoded when they are first asked for, as once stored."""
        if self.coded is not None:
            return self.coded
        pixels = self.rows if self.pixels is None else self.pixels
        assert pixels is not None, "a style is no picture"
        return self.session.encoded(pixels)

    @cached_property
    def as_style(self) -> Style:
        """That which it came as, or that of its view or its latents, read when it is first asked for."""
        if self.style is not None:
            return self.style
        session = self.session
        read = self.latents if self.view is None else session.as_stored(session.model.encode(self.view))
        return Style(read.z_style, read.width, read.height)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        if self.pixels is not None:
            return self.pixels.shape[1], self.pixels.shape[0]
        found = self.style or self.latents
        return found.width, found.height

    @property
    def grey(self) -> bool:
        """Whether it came as a greyscale picture."""
        return self.metadata.get("mode") == "L"

    @property
    def dtype(self) -> np.dtype[Any]:
        """What its pixels are kept in: uint16 where it came with 16 bits a channel."""
        return np.dtype(np.uint16 if self.metadata.get("depth") == "16" else np.uint8)

    def as_pixels(self, deep: bool = True) -> Pixels:
        """Its own pixels, or what its latents decode to, of `dtype`, or where it is not deep of 8 bits."""
        if self.pixels is not None:
            return self.pixels
        return self.session.model.decode_pixels(self.latents, self.dtype if deep else np.uint8)


@dataclass(frozen=True)
class Session(RunModels):
    """What one run computes with, and reading with it."""

    dtype: torch.dtype  # of latents

    @classmethod
    def open(
        cls,
        options: RunOptions,
        console: Console,
        task_weights: str | None = None,
        index: WeightsIndex | None = None,
        build_network: Builder | None = None,
    ) -> Session:
        """Find the device; raises click.UsageError where it is not there.

        Without an index, the weights that come with pmavae have names.
        """
        if options.offline:
            go_offline()  # a worker elsewhere has parsed no command line
        if options.threads:
            torch.set_num_threads(options.threads)
        set_precision(options.precision)
        device = choose_device(options.device)
        dtype = getattr(torch, options.dtype)
        index = index or released_weights()
        return cls(options, console, task_weights, device, index, build_network, dtype)

    def load(
        self, source: Source, side: int | None = None, ahead: Picture | None = None, large: bool = False
    ) -> Item:
        """A picture or a latent file; raises PMAVAEError, naming it, in one sentence.

        side: the longer side, in px, to which a picture is resized. ahead: the picture, where it was read
        before. large: whether a picture may have more pixels than are read as a whole; there are then only
        its rows.
        """
        found = self._item(ahead, source) if ahead else self._read(source, large=large and not side)
        if side and found.pixels is not None:
            return replace(found, pixels=fit_side(eight_bits(found.pixels), side), tables=None)
        return found

    def encoded(self, pixels: Pixels | RowSource) -> Latents:
        """The latents of a picture, as they are once stored."""
        # The log-variances would double a latent file for the few tasks that could use them.
        return self.as_stored(replace(self.model.encode(pixels), logvar_base=None, logvar_detail=None))

    def load_style(self, source: Source, scale: float = 1.0) -> Item:
        """The style of a picture by `style_view`, or of a latent file; raises as `load` does.

        The picture is there too, in 8 bits, but for a style file.
        """
        found = self._read(source, style=True)
        if found.style is not None:
            return found
        pixels = eight_bits(found.as_pixels(deep=False))
        return replace(found, pixels=pixels, view=None if found.stored else style_view(pixels, scale))

    def load_mask(self, source: Source) -> NDArray[np.uint8]:
        """The greys of a picture, (H, W), black where it is transparent; raises as `load` does."""
        with source.opened() as stream:
            if looks_like_tensor_file(stream.read(9)):
                raise ImageError(f"{source.name} is a latent file: a mask has to be a picture")
            stream.seek(0)
            return read_mask(stream, source.name)

    def load_path(self, path: str | Path) -> Latents:
        """The latents of another picture or latent file."""
        return self.load(Source(str(path), Path(path))).latents

    def _read(self, source: Source, style: bool = False, large: bool = False) -> Item:
        with source.opened() as stream:
            first_bytes = stream.read(12)
            stream.seek(0)
            # By its path, a file that turns out to be of another kind is not read as a whole.
            place = stream.getvalue() if isinstance(stream, io.BytesIO) else source.path
            assert place is not None
            named = source.path is not None and format_of(source.path) is LATENTS
            if looks_like_tensor_file(first_bytes) or (named and not starts_like_a_picture(first_bytes)):
                return self._stored(place, source, style)
            with _READING:
                try:
                    picture = read_picture(stream, source.name)
                except TooLargeError as reason:
                    if not large:
                        raise
                    from pmavae_cli.images.large import open_large

                    picture = open_large(place, source.name, reason)
        return self._item(picture, source)

    def _stored(self, place: bytes | Path, source: Source, style: bool) -> Item:
        # The loaded model's own shape counts before the preset that its name stands for.
        known = {**PRESETS, self.model.config.preset: self.model.config}
        read = read_latents_or_style if style else read_latents
        found, header = read(place, known.__getitem__, name=source.name)
        check_weights(header, self.model.weights_id, self.model.weights_sha256, source.name)
        if isinstance(found, Style):
            alone = replace(found, z_style=found.z_style.to(self.model.device))
            return Item(self, style=alone, stored=True)
        return Item(self, self._kept(header.picture), coded=found.to(self.model.device), stored=True)

    def _item(self, picture: Picture, source: Source) -> Item:
        for note in picture.notes:
            self.console.note(f"{source.name}: {note}")
        kept = self._kept(picture.carried)
        return Item(self, kept, picture.pixels, picture.rows, tables=picture.tables)

    def read_ahead(self, source: Source) -> Picture | None:
        """A picture file for `load`, read without a model or a word, as in a thread.

        None for a latent file. Raises as `load` does.
        """
        if source.path is None or format_of(source.path) is LATENTS:
            return None
        with source.opened() as stream:
            if looks_like_tensor_file(stream.read(9)):
                return None
            stream.seek(0)
            with _READING:
                return read_picture(stream, source.name)

    def _kept(self, carried: Mapping[str, str]) -> dict[str, str]:
        """What is to go to an output."""
        strip = self.options.metadata == "strip"
        return {key: value for key, value in carried.items() if not (strip and key in METADATA)}

    def as_stored(self, latents: Latents) -> Latents:
        """The latents as they are once written to a file and read again.

        Every step of a run works on these, so that a chain of commands through latent files gives
        the same bytes as one command. Raises LatentsError for values that a file cannot hold.
        """
        # A file has one memory layout, and kernels may round differently in another.
        changed = {
            name: z.to(self.dtype).to(torch.float32, memory_format=torch.contiguous_format).contiguous()
            for name, z in latents.tensors().items()
        }
        rounded = latents.replace(**changed)
        if not all(tensor.isfinite().all() for tensor in rounded.tensors().values()):
            hint = "; try --dtype float32" if self.dtype is torch.float16 else ""
            raise LatentsError(f"its latents have values that are not finite{hint}")
        return rounded

    def header(self, carried: dict[str, str]) -> LatentHeader:
        """The header of a latent file of this run."""
        return LatentHeader(
            self.model.config.preset, self.model.weights_id, self.model.weights_sha256, carried
        )
