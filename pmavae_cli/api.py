"""The task API: the only module of the command line that a plugin imports.

A plugin is a module that implements the hook `register_tasks` and is named in the entry-point
group `pmavae.plugins`. Importing this module does not import torch, and neither should importing
a plugin: import it inside `transform`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import click
import pluggy

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pmavae import PMAVAE, Latents
    from pmavae.restoration.network import Restorer

    Pixels = NDArray[np.uint8]  # (H, W, 3)
    Content = Latents | Pixels

__all__ = ["API_VERSION", "PICTURE", "TILE", "Context", "Task", "hookimpl"]

API_VERSION = 1  # goes up when a plugin written for the version before may no longer work
PROJECT = "pmavae"
ENTRY_POINT_GROUP = "pmavae.plugins"

hookimpl = pluggy.HookimplMarker(PROJECT)


class PictureType(click.ParamType):
    """A parameter that names one more picture or latent file.

    `transform` gets its latents, not its path. The file is read once, before any input, so a
    missing one costs nothing.
    """

    name = "picture"


PICTURE = PictureType()


class TileType(click.ParamType):
    """The side of tiles in px: "auto" is None, which bounds the memory, and "off" is 0."""

    name = "auto|off|N"
    smallest = 64

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value in (None, "auto"):
            return None
        if value in (0, "off"):
            return 0
        if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) >= self.smallest:
            return int(value)
        self.fail(f"{value!r} is not auto, off or a number from {self.smallest} on.", param, ctx)


TILE = TileType()


@dataclass(frozen=True)
class Context:
    """What a transform may use beside its latents; made anew for every input."""

    open_model: Callable[[], PMAVAE]  # what `model` is, loaded when it is first asked for
    open_restorer: Callable[[], Restorer]  # what `restorer` is
    seed: int  # of --seed
    generator: torch.Generator  # on the CPU, freshly seeded: a result depends on no other input
    load: Callable[[str | Path], Latents]  # latents of another picture or latent file, by this model
    log: Callable[[str], None]  # one line on stderr, unless -q
    detail: Callable[[str], None]  # one line on stderr, with -v only
    progress: Callable[[int, int], None]  # parts done and of all: a bar on a terminal
    tables: Mapping[int, Sequence[int]] | None  # quantisation tables, where the input is a JPEG file

    @property
    def model(self) -> PMAVAE:
        """The autoencoder, in evaluation mode, on the device where the latents are."""
        return self.open_model()

    @property
    def restorer(self) -> Restorer:
        """The network of the task's `weights`, in evaluation mode; ValueError for a task that names none."""
        return self.open_restorer()


class Task(ABC):
    """A transform of latents, or of pixels, and how the command line offers it.

    Reading, padding, metadata, output names, writing and errors are the runner's.
    """

    name: ClassVar[str]  # of the command: lower-case words joined by hyphens
    help: ClassVar[str]  # one line
    params: ClassVar[Sequence[click.Parameter]] = ()  # passed to transform by name
    writes: ClassVar[Literal["image", "latents"]] = "image"  # where the output's suffix does not say
    input_name: ClassVar[str] = "INPUT"  # what the usage line calls the inputs
    takes: ClassVar[Literal["latents", "pixels"]] = "latents"  # what transform is given, and returns
    weights: ClassVar[str | None] = None  # task of the weights that --weights names, unless the codec's

    @abstractmethod
    def transform(
        self, content: Any, context: Context, *args: Any, **options: Any
    ) -> Content | Sequence[Content]:
        """One picture to another.

        content: by `takes`, the picture's Latents (batch 1, float32, on the model's device) or its pixels,
        (H, W, 3) uint8; not to be changed in place. Pixels of a latent file are those it decodes to.
        options: the values of `params`, by name. Returns what it takes, or exactly `count(**options)` of
        them. Raise ValueError, with one sentence, for an input that cannot be transformed: the runner
        reports it with the input's name and goes on.
        """

    def count(self, **options: Any) -> int:
        """How many results transform returns; asked before a model is loaded, to plan the outputs."""
        return 1

    def scale(self, **options: Any) -> int:
        """The sides of a result over those of its input: what is too large for a file is refused first."""
        return 1
