"""What a run will do, as a plan has it."""

from dataclasses import dataclass
from typing import IO, Any

import click

from pmavae_cli.console import say
from pmavae_cli.images.formats import Output
from pmavae_cli.run.inputs import InputError, Source


class Refused(click.ClickException):
    """A run that would overwrite or mix up files; wrong usage."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """One line, without the usage."""
        say(self.format_message())


@dataclass(frozen=True)
class Job:
    """One input and its outputs, in the order of the task's results."""

    source: Source
    outputs: tuple[Output, ...]
    gathered: tuple[Source, ...] = ()  # all inputs, where they become these outputs together

    @property
    def name(self) -> str:
        """What messages call it."""
        more = len(self.gathered) - 1
        return f"{self.source.name} and {more} more" if more > 0 else self.source.name

    @property
    def named(self) -> dict[str, str | list[str]]:
        """What rows of results call it."""
        if self.gathered:
            return {"inputs": [source.name for source in self.gathered]}
        return {"input": self.source.name}


@dataclass(frozen=True)
class Plan:
    """All that a run will do, and the arguments that it cannot do."""

    jobs: list[Job]
    failures: list[tuple[str, InputError]]
