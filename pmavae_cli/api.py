"""The task API: the only module of the command line that a plugin imports.

A plugin is a module that implements the hook `register_tasks` and is named in the entry-point
group `pmavae.plugins`. Importing this module does not import torch, and neither should importing
a plugin: import it inside `transform`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import click
import pluggy

if TYPE_CHECKING:
    import torch

    from pmavae import PMAVAE, Latents

__all__ = ["API_VERSION", "PICTURE", "Context", "Task", "hookimpl"]

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


@dataclass(frozen=True)
class Context:
    """What a transform may use beside its latents; made anew for every input."""

    model: PMAVAE  # in evaluation mode, on the device where the latents are
    seed: int  # of --seed
    generator: torch.Generator  # on the CPU, freshly seeded: a result depends on no other input
    load: Callable[[str | Path], Latents]  # latents of another picture or latent file, by this model
    log: Callable[[str], None]  # one line on stderr, unless -q


class Task(ABC):
    """A transform of latents, and how the command line offers it.

    Reading, padding, metadata, output names, writing and errors are the runner's.
    """

    name: ClassVar[str]  # of the command: lower-case words joined by hyphens
    help: ClassVar[str]  # one line
    params: ClassVar[Sequence[click.Parameter]] = ()  # passed to transform by name
    writes: ClassVar[Literal["image", "latents"]] = "image"  # where the output's suffix does not say
    input_name: ClassVar[str] = "INPUT"  # what the usage line calls the inputs

    @abstractmethod
    def transform(
        self, latents: Latents, context: Context, *args: Any, **options: Any
    ) -> Latents | Sequence[Latents]:
        """One picture's latents to others of the same weights.

        latents: batch 1, float32, on the model's device; not to be changed in place. options: the
        values of `params`, by name. Returns Latents, or exactly `count(**options)` of them. Raise
        ValueError, with one sentence, for an input that cannot be transformed: the runner reports
        it with the input's name and goes on.
        """

    def count(self, **options: Any) -> int:
        """How many Latents transform returns; asked before a model is loaded, to plan the outputs."""
        return 1
