"""The options that every task has, and those that other commands share."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import click

from pmavae.config import PRESETS
from pmavae_cli.console import Console
from pmavae_cli.images.formats import FORMAT_NAMES

# Completed by a shell, and not checked: what a path stands for is found out when all are known.
ANY_FILE = click.Path(readable=False)

_Item = TypeVar("_Item")
Decorator = Callable[[Callable[..., Any]], Any]

_PRESETS = click.Choice(list(PRESETS))
_WEIGHTS: dict[str, Any] = {
    "type": ANY_FILE,
    "metavar": "NAME|PATH",
    "help": "Weights: an id, a file, a folder, or org/name[@revision][:file] on the Hugging Face Hub. "
    "Default: those of the preset.",
}
_DEVICE: dict[str, Any] = {
    "type": click.Choice(["auto", "cpu", "cuda", "mps"]),
    "default": "auto",
    "show_default": True,
}
_QUIET: dict[str, Any] = {"is_flag": True, "help": "Say nothing but errors."}
_DEBUG: dict[str, Any] = {"is_flag": True, "help": "Show the traceback of an error."}


OFFLINE = "HF_HUB_OFFLINE"
_TRUE = ("1", "ON", "YES", "TRUE")  # as the client reads its variables


def go_offline() -> Callable[[], None]:
    """Tell the Hub's client, wherever it is used, also in plugins and in processes of this one.

    Returns what takes that back.
    """

    def tell(variable: str | None, constant: bool) -> None:
        if variable is None:
            os.environ.pop(OFFLINE, None)
        else:
            os.environ[OFFLINE] = variable
        # The variable is read when the client is imported, which a plugin may have done already.
        if client := sys.modules.get("huggingface_hub.constants"):
            client.HF_HUB_OFFLINE = constant  # type: ignore[attr-defined]

    before = os.environ.get(OFFLINE)
    client: Any = sys.modules.get("huggingface_hub.constants")
    was = client.HF_HUB_OFFLINE if client else (before or "").upper() in _TRUE
    tell("1", True)
    return lambda: tell(before, was)


def _switch(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        ctx.call_on_close(go_offline())
    return value


_OFFLINE: dict[str, Any] = {
    "is_flag": True,
    "callback": _switch,
    "help": "Ask the network for nothing: only what is here already is used.",
}

with_weights = click.option("--weights", **_WEIGHTS)
with_device = click.option("--device", **_DEVICE)
with_offline = click.option("--offline", expose_value=False, **_OFFLINE)  # what is told the client is enough
with_threads = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
with_quiet = click.option("-q", "--quiet", **_QUIET)
with_debug = click.option("--debug", expose_value=False, **_DEBUG)  # `main` finds it by itself


def with_preset(help: str | None = None, default: str | None = None) -> Decorator:
    """`--preset`."""
    return click.option("--preset", type=_PRESETS, default=default, show_default=True, help=help)


def with_json(help: str = "One JSON object a line.") -> Decorator:
    """`--json`."""
    return click.option("--json", is_flag=True, help=help)


def with_overwrite(what: str = "an output that exists") -> Decorator:
    """`--overwrite`, of what it replaces."""
    return click.option("--overwrite", is_flag=True, help=f"Replace {what}.")


def with_console(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --debug, and hand over a `console` in the place of the values of -q, --json and --debug."""

    @click.option("--debug", **_DEBUG)
    @wraps(command)
    def with_its_own(*arguments: Any, **values: Any) -> Any:
        voice = {name: values.pop(name) for name in ("quiet", "json", "debug") if name in values}
        return command(*arguments, console=Console(**voice), **values)

    return with_its_own


def calm_threads() -> None:
    """To be called before torch is loaded, which reads it.

    Threads that spin while they wait for each other cost a busy machine whole seconds a picture.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


SMALLEST = 64 << 20  # below it, strips and tiles are mostly margin, and a wide picture takes more anyway
SHARE = 0.8  # of the free memory, where nothing is said
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class SizeType(click.ParamType):
    """A number of bytes: 2G, 800M, 1.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([KMGT]?)(?:I?B)?", value.strip().upper())
        if not found:
            self.fail(f"{value!r} is not a size such as 2G or 800M.", param, ctx)
        size = int(float(found[1]) * _UNITS[found[2]])
        if size < SMALLEST:
            self.fail(
                f"{value!r} is too little: {SMALLEST >> 20}M is the smallest that would do.", param, ctx
            )
        return size


def free_memory() -> int | None:
    """Bytes that could be had without swapping; None on a system that does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+([0-9]+) kB", Path("/proc/meminfo").read_text("ascii"), re.M)
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None


def budget(asked: int | None, usual: int) -> int:
    """What working sets may take: what is asked for, else `usual`, or less where less is free."""
    if asked is not None:
        return asked
    free = free_memory()
    return usual if free is None else max(SMALLEST, min(usual, int(SHARE * free)))


@dataclass(frozen=True)
class Shard:
    """One of several parts that together are the whole."""

    part: int  # from 1
    parts: int

    def of(self, whole: Sequence[_Item]) -> list[_Item]:
        """Every N-th item, so that a folder's slow and quick pictures are spread over the parts."""
        return list(whole[self.part - 1 :: self.parts])


class ShardType(click.ParamType):
    """I/N, the I-th of N parts."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        if isinstance(value, Shard):
            return value
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", value)
        shard = Shard(*map(int, found.groups())) if found else Shard(0, 0)
        if not 1 <= shard.part <= shard.parts:
            self.fail(f"{value!r} is not I/N with I from 1 to N: write 1/4, say, for a quarter.", param, ctx)
        return shard


class RayType(click.ParamType):
    """Where a Ray cluster is."""

    name = "[ADDRESS]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in ("local", "auto") or _RAY_ADDRESS.fullmatch(value):
            return str(value)
        self.fail(f"{value!r} is not auto, host:port or ray://host:port.", param, ctx)


# A port after a colon, and no slash before it but those of ray://.
_RAY_ADDRESS = re.compile(r"(ray://)?([^/:\s]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}|ray://[^/:\s]+")


def with_ray_address(arguments: Sequence[str]) -> list[str]:
    """A command line in which every --ray has its value.

    The word after a bare --ray is its address only if it looks like one and is no file: else it is an INPUT.
    """
    found = list(arguments)
    end = found.index("--") if "--" in found else len(found)
    for place in [i for i, word in enumerate(found[:end]) if word == "--ray"][::-1]:
        following = found[place + 1] if place + 1 < end else ""
        if _is_ray_address(following):
            found[place : place + 2] = [f"--ray={following}"]
        else:
            found[place] = "--ray=local"
    return found


def _is_ray_address(word: str) -> bool:
    if word.startswith("ray://"):
        return True
    if word != "auto" and not _RAY_ADDRESS.fullmatch(word):
        return False
    # A style has a weight after its colon.
    return not (os.path.lexists(word) or os.path.lexists(word.rpartition(":")[0]))


COMMON_OPTIONS = (
    click.Option(
        ["-o", "--output"],
        type=ANY_FILE,
        metavar="PATH",
        help="File, folder (existing, or ending in /) or - for stdout. Default: a new file beside the input.",
    ),
    click.Option(
        ["-r", "--recursive"], is_flag=True, help="Take folders with the folders in them; -o keeps these."
    ),
    click.Option(
        ["--shard"], type=ShardType(), help="Do only the I-th of N parts of the inputs, as in job arrays."
    ),
    click.Option(["--fail-fast"], is_flag=True, help="End at the first input that fails."),
    click.Option(["--overwrite"], is_flag=True, help="Replace outputs that exist."),
    click.Option(["--skip-existing"], is_flag=True, help="Leave outputs that exist, and do the rest."),
    click.Option(
        ["--format"],
        type=click.Choice(FORMAT_NAMES, case_sensitive=False),
        help="Format of the output, where its name does not say.",
    ),
    click.Option(
        ["--quality"],
        type=click.IntRange(1, 100),
        default=95,
        show_default=True,
        help="Of JPEG, WebP and AVIF files.",
    ),
    click.Option(
        ["--metadata"],
        type=click.Choice(["keep", "strip"]),
        default="keep",
        show_default=True,
        help="Whether EXIF and XMP go to the output; colour profiles always do.",
    ),
    click.Option(
        ["--dtype"],
        type=click.Choice(["float16", "float32"]),
        default="float16",
        show_default=True,
        help="Precision of latents, in files and between steps.",
    ),
    click.Option(["--preset"], type=_PRESETS, default="tiny", show_default=True, help="Model size."),
    click.Option(["--weights", "--model-weights", "weights"], **_WEIGHTS),
    click.Option(["--offline"], **_OFFLINE),
    click.Option(["--device"], **_DEVICE, help="Where to compute."),
    click.Option(
        ["--precision"],
        type=click.Choice(["auto", "float32"]),
        default="auto",
        show_default=True,
        help="Of what is computed: auto takes a shorter type where a device is fast in it.",
    ),
    click.Option(
        ["--threads"], type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: all cores."
    ),
    click.Option(
        ["--max-memory"],
        type=SizeType(),
        metavar="SIZE",
        help="Of what is computed at a time, beside the program and the pixels: 2G, 800M. Default: what is "
        "quick, or 0.8 of the free memory where that is less.",
    ),
    click.Option(
        ["--ray"],
        type=RayType(),
        help="Share the inputs among the workers of the Ray cluster at auto, host:port or ray://host:port. "
        "Without ADDRESS: of one that is started on this machine.",
    ),
    click.Option(
        ["--seed"],
        type=click.IntRange(0, 2**32 - 1),
        metavar="N",
        default=0,
        show_default=True,
        help="Of whatever is random: the same seed gives the same bytes.",
    ),
    click.Option(["--json"], is_flag=True, help="One JSON object a line on stdout, instead of paths."),
    click.Option(["-q", "--quiet"], **_QUIET),
    click.Option(["-v", "--verbose"], is_flag=True, help="Say what is done, and how long it takes."),
    click.Option(["--debug"], **_DEBUG),
)


def common_options(own: Sequence[click.Parameter]) -> tuple[click.Option, ...]:
    """COMMON_OPTIONS beside a task's own: one called --weights, of a mixture say, takes that name."""
    if not any("--weights" in param.opts for param in own):
        return COMMON_OPTIONS
    model_weights = copy(next(option for option in COMMON_OPTIONS if option.name == "weights"))
    model_weights.opts = ["--model-weights"]
    return tuple(model_weights if option.name == "weights" else option for option in COMMON_OPTIONS)


@dataclass(frozen=True)
class RunOptions:
    """The values of COMMON_OPTIONS."""

    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    recursive: bool = False
    shard: Shard | None = None
    fail_fast: bool = False
    format: str | None = None
    quality: int = 95
    metadata: str = "keep"
    dtype: str = "float16"
    preset: str = "tiny"
    preset_given: bool = False  # on the command line, so that other weights contradict it
    weights: str | None = None
    offline: bool = False
    device: str = "auto"
    precision: Literal["auto", "float32"] = "auto"
    threads: int | None = None
    max_memory: int | None = None  # bytes
    ray: str | None = None  # address of a cluster; "local" for one of this machine
    seed: int = 0
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    @classmethod
    def take(cls, ctx: click.Context, values: dict[str, Any]) -> Self:
        """Remove the common options from a command's values."""
        names = {f.name for f in fields(cls)} & set(values)
        given = ctx.get_parameter_source("preset") is click.core.ParameterSource.COMMANDLINE
        return cls(**{name: values.pop(name) for name in names}, preset_given=given)
