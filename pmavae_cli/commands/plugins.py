"""`pmavae plugins`: the plugins that are installed, what they bring, and a package to start one from."""

import os
import tempfile
from collections.abc import Container
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from pmavae.errors import PMAVAEError
from pmavae_cli.commands import COMMANDS
from pmavae_cli.console import Console, one_line, print_json, say, show_table
from pmavae_cli.options import with_console, with_json
from pmavae_cli.plugin_manager import TASK_NAME, Plugin, Registry, is_strict

FACTS = (
    *("name", "version", "origin", "entry_point", "api"),
    *("tasks", "weights", "trainings", "commands", "state"),
)
COLUMNS = ("plugin", "version", "origin", "tasks", "also", "state")
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
    folder = files("pmavae_cli.commands") / "plugin_template"
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
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pmavae-", dir=folder.parent) as unfinished:
            package = Path(unfinished) / "package"  # for the temporary folder is private
            for path, text in render(name).items():
                target = package / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, "utf-8")
            package.rename(folder)
    except OSError as error:
        raise TemplateError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --folder"
        ) from error


@click.group(invoke_without_command=True)
@with_json()
@click.option("--strict", is_flag=True, help="Exit status 1 if any plugin is broken.")
@click.pass_context
@with_console
def plugins(ctx: click.Context, console: Console, strict: bool) -> None:
    """List the plugins, what they bring, and what is wrong with a broken one.

    The variable PMAVAE_PLUGINS selects plugins by name: posterize,sepia loads only these two beside the
    built-in ones, -sepia all but that one, and an empty value none. With PMAVAE_PLUGINS_STRICT=1 a broken
    plugin ends every command with exit status 1.
    """
    if ctx.invoked_subcommand:
        return
    registry: Registry = ctx.obj
    if console.json:
        for plugin in registry.plugins:
            print_json({**{name: getattr(plugin, name) for name in FACTS}, "error": _error(plugin) or None})
    else:
        rows = [_row(plugin) for plugin in registry.plugins]
        show_table([COLUMNS, *rows], {"ok": "green", "disabled": "dim"}, other="red")
    for complaint in registry.selection.unknown(registry.plugins):
        say(complaint)
    if console.debug:
        import traceback  # not for every start

        for plugin in registry.plugins:
            for cause in plugin.causes:
                traceback.print_exception(cause)
    if registry.complaints and (strict or is_strict()):
        ctx.exit(1)


def _error(plugin: Plugin) -> str:
    return one_line("; ".join(plugin.errors))


def _row(plugin: Plugin) -> list[str]:
    origin = f"{plugin.origin}: {plugin.entry_point}" if plugin.entry_point else plugin.origin
    also = [f"{kind} {name}" for kind, names in plugin.brings.items() if kind != "task" for name in names]
    state = f"broken: {_error(plugin)}" if plugin.errors else plugin.state
    return [plugin.name, plugin.version, origin, ", ".join(plugin.tasks), ", ".join(also), state]


@plugins.command(short_help="Write a package with a plugin to start from.")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the package, which must not exist.  [default: pmavae-NAME]",
)
@click.pass_obj
def new(registry: Registry, name: str, folder: Path | None) -> None:
    """Write a package with a plugin for the task NAME, ready to install, to be made yours.

    NAME is lower-case words joined by hyphens, such as soft-light.
    """
    check_name(name, taken={**registry.tasks, **registry.commands})
    folder = folder or Path(f"pmavae-{name}")
    write_package(name, folder)
    click.echo(str(folder))
    say(f"pip install -e {folder} && pmavae {name} photo.jpg")
