"""A new plugin package, as `pmavae plugins new` writes it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Container
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from pmavae.errors import PMAVAEError
from pmavae_cli.command_table import COMMANDS
from pmavae_cli.plugin_checks import TASK_NAME

LONGEST = 40  # of a name: it becomes part of file names
FILES = {  # of the package: the file of the template
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "readme.md.template",
    "src/{module}/__init__.py": "plugin.py.template",
    "tests/test_{module}.py": "test.py.template",
}


class TemplateError(PMAVAEError):
    """A package that cannot be written."""


def check_name(name: str, taken: Container[str] = ()) -> None:
    """Raise click.UsageError for a name that no task can have; `taken` are those of other tasks."""
    if name.startswith("pmavae-"):
        raise click.UsageError(
            f"{name!r} would be the name of the package: write that of its task, "
            f"{name.removeprefix('pmavae-')!r}."
        )
    if not TASK_NAME.fullmatch(name) or len(name) > LONGEST:
        raise click.UsageError(
            f"{name!r:.80} is no name for a task: use lower-case words and hyphens, at most {LONGEST} "
            "characters, such as soft-light."
        )
    if name in COMMANDS or name in taken:
        raise click.UsageError(f"pmavae has a command {name} already: choose another name.")


def render(name: str) -> dict[str, str]:
    """The files of the package for a task, by their path in it."""
    module = f"pmavae_{name.replace('-', '_')}"
    names = {
        "name": name,
        "package": f"pmavae-{name}",
        "module": module,
        "task": "".join(word.capitalize() for word in name.split("-")) + "Task",
    }
    folder = files("pmavae_cli.commands.plugins") / "template"
    return {
        path.format(module=module): Template((folder / source).read_text("utf-8")).substitute(names)
        for path, source in FILES.items()
    }


def write_package(name: str, folder: Path) -> None:
    """Write the package into a new folder, whole or not at all.

    Raises click.UsageError for a folder that exists, TemplateError for one that cannot be written.
    """
    if os.path.lexists(folder):
        raise click.UsageError(f"{folder} exists already: name another folder with --folder.")
    unfinished: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".pmavae-", dir=folder.parent))
        package = unfinished / "package"  # for what mkdtemp makes is private
        for path, text in render(name).items():
            target = package / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        package.rename(folder)
    except OSError as error:
        raise TemplateError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --folder"
        ) from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
