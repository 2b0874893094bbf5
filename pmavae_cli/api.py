"""The task API: the only module of the command line that a plugin imports.

A plugin is a module that implements a hook, such as `register_tasks`, and is named in the entry-point
group `pmavae.plugins`. Importing this module does not import torch, and neither should importing
a plugin: import it inside `transform`.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import click
import pluggy
from click.shell_completion import CompletionItem

from pmavae.training.phases import Phase
from pmavae.training.plugin import Batch, Example, Examples, Training

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from pmavae import PMAVAE, Latents, Style
    from pmavae.style_transfer.features import FeatureNetwork

    Pixels = NDArray[np.unsignedinteger[Any]]  # (H, W, 3) uint8, or uint16 where a task is `deep`
    Content = Latents | Pixels
    Returned = Content | Style
    InputKind = Literal["latents", "pixels", "either"]
    OutputKind = Literal["image", "latents", "style"]

__all__ = [
    "API_VERSION",
    "MASK",
    "OLDEST_API_VERSION",
    "PICTURE",
    "STYLE",
    "TILE",
    "Batch",
    "Context",
    "Example",
    "Examples",
    "Named",
    "Phase",
    "Task",
    "Training",
    "Weighted",
    "hookimpl",
]

API_VERSION = 1  # goes up with what a plugin may use or has to do; a plugin names it as PMAVAE_API
OLDEST_API_VERSION = 1  # plugins written for an older one no longer work
PROJECT = "pmavae"
ENTRY_POINT_GROUP = "pmavae.plugins"

hookimpl = pluggy.HookimplMarker(PROJECT)


class _FileType(click.ParamType):
    """A parameter that a shell completes with the names of files."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[Any]]:
        """Whatever files the shell finds."""
        return [CompletionItem(incomplete, type="file")]


class PictureType(_FileType):
    """A parameter that names one more picture or latent file.

    `transform` gets its latents, not its path. The file is read once, before any input, so a
    missing one costs nothing.
    """

    name = "picture"


PICTURE = PictureType()


class MaskType(_FileType):
    """A parameter that names a picture which says where in the input a task works.

    `transform` gets its greys, (H, W) uint8, upright, at the size of the file: white is everything, black
    nothing. It is read once, before any input.
    """

    name = "mask"


MASK = MaskType()


@dataclass(frozen=True)
class Weighted:
    """One style of a parameter of type STYLE."""

    name: str  # of its file, without folder and suffix
    open_style: Callable[[], Style]  # what `style` is
    weight: float  # above 0; the weights of several need not sum to 1
    picture: Pixels | None = None  # (H, W, 3): what the style is of, at most 2048 px; None for a style file

    @property
    def style(self) -> Style:
        """That of the file; of a picture that counts beside it, encoded when first asked for."""
        return self.open_style()

    def __iter__(self) -> Iterator[Any]:
        """Name, style, weight and picture: a tuple in earlier versions, it can be unpacked as one."""
        return iter((self.name, self.style, self.weight, self.picture))


class WeightedPath(NamedTuple):
    """The text of a parameter of type STYLE, parsed."""

    path: str
    weight: float


class StyleType(_FileType):
    """A parameter that names a style, or a folder of styles, and what weight it has: PATH or PATH:WEIGHT.

    A style is a picture, a latent file or a style file. `transform` gets a tuple of Weighted, one for each
    file; the files of a folder share its weight equally. With `multiple=True` the tuple is as flat, and
    without a value it is empty. All are read once, before any input, as `Task.style_scale` and
    `Task.uses_pictures` say.
    """

    name = "style"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> WeightedPath:
        if isinstance(value, WeightedPath):
            return value
        path, colon, text = value.rpartition(":")
        # A file may well have a name that ends like a weight.
        if not colon or os.path.lexists(value):
            return WeightedPath(value, 1.0)
        try:
            weight = float(text)
        except ValueError:
            if not os.path.lexists(path):  # so the colon may belong to a name, which is then missing
                return WeightedPath(value, 1.0)
            weight = math.nan
        if not 0 < weight < math.inf:
            self.fail(f"{value!r} has no weight above 0 after its colon: write {path}:2, say.", param, ctx)
        return WeightedPath(path, weight)


STYLE = StyleType()


class Named(NamedTuple):
    """One input of a task that makes one result of many."""

    name: str  # of its file, without folder and suffix
    content: Any  # by `input_kind`, Latents or pixels
    file: str  # what messages call it, as the user did


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


class Progress(Protocol):
    """Tells how far a transform is."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@dataclass(frozen=True)
class Context:
    """What a transform may use beside its latents; made anew for every input."""

    open_model: Callable[[], PMAVAE]  # what `model` is, loaded when it is first asked for
    open_task_model: Callable[[], nn.Module]  # what `task_model` is
    seed: int  # of --seed
    generator: torch.Generator  # on the CPU, freshly seeded: a result depends on no other input
    load: Callable[[str | Path], Latents]  # latents of another picture or latent file, by this model
    log: Callable[[str], None]  # one line on stderr, unless -q
    detail: Callable[[str], None]  # one line on stderr, with -v only
    progress: Progress  # parts done, of all, and a note if any: a bar on a terminal
    tables: Mapping[int, Sequence[int]] | None  # quantisation tables, where the input is a JPEG file
    open_features: Callable[[], FeatureNetwork]  # what `features` is
    open_cache: Callable[[], Path]  # what `cache` is
    device: torch.device  # where the networks and the latents are
    grey: bool = False  # whether the input is a greyscale picture
    pixels: Pixels | None = None  # (H, W, 3): what the latents are of, where the input is a picture
    depth: int = 8  # bits a channel of the input, 16 only where the task is `deep`: those to return
    open_latents: Callable[[], Latents] | None = None  # what `latents` is; None of many inputs together

    @property
    def model(self) -> PMAVAE:
        """The autoencoder, in evaluation mode, on the device where the latents are."""
        return self.open_model()

    @property
    def latents(self) -> Latents:
        """Those of the input, as `transform` is given them; of a picture, encoded when first asked for.

        Raises ValueError in a task that makes one result of many inputs.
        """
        if self.open_latents is None:
            raise ValueError("several inputs together have no latents of their own")
        return self.open_latents()

    @property
    def features(self) -> FeatureNetwork:
        """A small classification network, frozen: how pictures are compared beyond their pixels."""
        return self.open_features()

    @property
    def task_model(self) -> Any:
        """The network of the task's `weights`, in evaluation mode; ValueError for a task that names none."""
        return self.open_task_model()

    @property
    def cache(self) -> Path:
        """A folder of the plugin's own for what it need not compute twice, made when it is asked for.

        In the user's cache folder, or below PMAVAE_CACHE where that is set. Whatever is in it may be gone at
        the next run, and others may write to it at the same time. Raises CacheError where it cannot be made.
        """
        return self.open_cache()


class Task(ABC):
    """A transform of latents, or of pixels, and how the command line offers it.

    Reading, padding, metadata, output names, writing and errors are the runner's.
    """

    name: ClassVar[str]  # of the command: lower-case words joined by hyphens
    help: ClassVar[str]  # one line
    params: ClassVar[Sequence[click.Parameter]] = ()  # passed to transform by name
    writes: ClassVar[Literal["image", "latents"]] = "image"  # where the output's suffix does not say
    input_name: ClassVar[str] = "INPUT"  # what the usage line calls the inputs
    input_kind: ClassVar[InputKind] = "latents"  # what transform gets and returns
    large: ClassVar[bool] = False  # takes latents of pictures with more pixels than are read as a whole
    deep: ClassVar[bool] = (
        False  # whether it takes pixels of 16 bits, where an input has them, and returns such
    )
    weights: ClassVar[str | None] = None  # task of the weights that --weights names, unless the codec's

    @abstractmethod
    def transform(
        self, content: Any, context: Context, *args: Any, **options: Any
    ) -> Returned | Sequence[Returned]:
        """One picture to another.

        content: by `input_kind`, the Latents of a picture (batch 1, float32, on the model's device) or its
        pixels, (H, W, 3) uint8, or uint16 where the task is `deep`; not to be changed in place. Pixels of a
        latent file are those it decodes to. A task that takes either gets what the input is, latents or
        pixels, and has the latents of both as `context.latents`; where it is `many_to_one`, it gets latents.
        options: the values of `params`, by name. Returns what it takes, or exactly `count(**options)` of
        them. A task that takes latents may return pixels as well, from which a latent file is then encoded
        anew, or a Style where `output_kind` says so. Where it is `many_to_one`, content is a list of Named.
        Raise ValueError, with one sentence, for an input that cannot be transformed: the runner reports it
        with the input's name and goes on.
        """

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        """The untrained network of the task, where its `weights` are those of a plugin.

        settings: what its training said of its shape, out of the checked weights file. Names and shapes of
        parameters and buffers follow from them alone, so that those of the file fit. Called twice for a
        file, first on torch's meta device, to compare shapes before anything is read.
        """
        raise NotImplementedError(f"task {self.name} makes no network")

    # The methods below get the options before a file is read, files as whatever names them; they may raise
    # click.UsageError for options that contradict each other.

    def count(self, **options: Any) -> int:
        """How many results transform returns; asked before a model is loaded, to plan the outputs."""
        return 1

    def scale(self, **options: Any) -> int:
        """The sides of a result over those of its input: what is too large for a file is refused first."""
        return 1

    def side(self, **options: Any) -> int | None:
        """The longer side, in px, to which pictures are resized before anything else; None as they are.

        Latents of a latent file stay as they are.
        """
        return None

    def style_scale(self, **options: Any) -> float | None:
        """The scale of `style_view` at which the pictures of styles are read; None is 1.

        Where it is a number, files that cannot follow it are mentioned: those that were encoded before.
        """
        scale: float | None = options.get("style_scale")
        return scale

    def uses_pictures(self, **options: Any) -> bool:
        """Whether `picture` of a Weighted counts beside its `style`: that of a latent file can be scaled."""
        return False

    def output_kind(self, **options: Any) -> OutputKind:
        """What results are where the output's suffix does not say, `writes` unless it depends on options.

        "style" is a Style, which no picture file can hold; asked to plan the outputs.
        """
        return "style" if self.makes_style(**options) else self.writes

    def many_to_one(self, **options: Any) -> bool:
        """Whether all inputs become one result (or `count`), not each its own; asked to plan the outputs.

        transform is then called once, with a list of Named; inputs and styles that cannot be read are
        reported and left out, and the exit status is 1.
        """
        return self.gathers(**options)

    # What was called so before, for plugins that define it, until version 2.

    @property
    def takes(self) -> InputKind:
        """The old name of `input_kind`."""
        return self.input_kind

    @takes.setter
    def takes(self, kind: InputKind) -> None:
        self.input_kind = kind  # type: ignore[misc]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "takes" in vars(cls) and "input_kind" not in vars(cls):
            cls.input_kind = vars(cls)["takes"]

    def makes_style(self, **options: Any) -> bool:
        """The old way to say that `output_kind` is "style"."""
        return False

    def gathers(self, **options: Any) -> bool:
        """The old name of `many_to_one`."""
        return False
