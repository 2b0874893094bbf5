"""What the three commands have in common: their options, their weights, and going on after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pmavae.errors import PMAVAEError

if TYPE_CHECKING:
    import torch

_OPTIONS = (
    click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
    click.option(
        "--weights",
        metavar="WEIGHTS",
        help="A file, a folder, or org/name[@revision][:file] on the Hub. None come with the plugin.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
    ),
    click.option("--offline", is_flag=True, help="Ask the network for nothing."),
    click.option("--json", "as_json", is_flag=True, help="One object on one line for each picture."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)
_OUTPUTS = (
    click.option("-o", "--output", type=click.Path(path_type=Path), help="A file, or a folder for many."),
    click.option("--overwrite", is_flag=True, help="Replace files that are there."),
)


def common_options(outputs: bool) -> Callable[[Any], Any]:
    """A decorator; `outputs` for a command that writes files."""

    def decorate(command: Any) -> Any:
        for option in reversed((*_OPTIONS, *(_OUTPUTS if outputs else ()))):
            command = option(command)
        return command

    return decorate


def required_weights(weights: str | None, task: str) -> str:
    """What --weights says; raises UsageError where it is not given."""
    if weights is None:
        raise click.UsageError(
            f"{task} comes with no weights: give some with --weights, "
            f"as pmavae train --task {task} makes them."
        )
    return weights


def choose_device(name: str) -> torch.device:
    """That of --device; raises UsageError for one that is not there."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in present.items() if here)
    if not present[name]:
        raise click.UsageError(f"--device {name}: torch finds no such device here; use --device cpu.")
    return torch.device(name)


class Failures:
    """Says what fails, a line on stderr each, and remembers that something did."""

    def __init__(self, debug: bool) -> None:
        self.debug, self.any = debug, False

    @contextmanager
    def told(self) -> Iterator[None]:
        """Whatever is wrong with one picture in here does not end the run."""
        try:
            yield
        except PMAVAEError as error:
            if self.debug:
                raise
            self.any = True
            click.echo(f"pmavae: {error}", err=True)


def each_picture(inputs: tuple[str, ...], failures: Failures) -> Iterator[Path]:
    """The pictures of the arguments, one after the other."""
    from pmavae_vision.pictures import expand

    for argument in inputs:
        found: list[Path] = []
        with failures.told():
            found = list(expand([argument]))
        yield from found


def is_many(inputs: tuple[str, ...]) -> bool:
    """Whether -o has to be a folder."""
    return len(inputs) > 1 or Path(inputs[0]).is_dir()
