"""`pmavae plugins`: which plugins are installed, what they bring, and a new one to start from."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pmavae_cli.console import one_line, print_json, print_table, say
from pmavae_cli.options import with_debug
from pmavae_cli.plugin_manager import Plugin, Registry, is_strict

COLUMNS = ("plugin", "version", "origin", "tasks", "also", "state")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--strict", is_flag=True, help="Exit status 1 if any plugin is broken.")
@with_debug
@click.pass_context
def plugins(ctx: click.Context, as_json: bool, strict: bool, debug: bool) -> None:
    """List the plugins, what they bring, and what is wrong with a broken one.

    The variable PMAVAE_PLUGINS selects plugins by name: posterize,sepia loads only these two beside the
    built-in ones, -sepia all but that one, and an empty value none. With PMAVAE_PLUGINS_STRICT=1 a broken
    plugin ends every command with exit status 1.
    """
    if ctx.invoked_subcommand:
        return
    registry = ctx.find_object(Registry)
    assert registry is not None
    if as_json:
        for plugin in registry.plugins:
            print_json(_facts(plugin))
    else:
        rows = [_row(plugin) for plugin in registry.plugins]
        # A table that fits its lines to a terminal would break those that another program reads.
        _show_table(rows) if sys.stdout.isatty() else print_table([COLUMNS, *rows])
    for complaint in registry.selection.unknown(registry.plugins):
        say(complaint)
    if debug:
        import traceback  # not for every start

        for plugin in registry.plugins:
            for cause in plugin.causes:
                traceback.print_exception(cause)
    if registry.complaints and (strict or is_strict()):
        ctx.exit(1)


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
    from pmavae_cli.commands.plugins.work import check_name, write_package

    check_name(name, taken={**registry.tasks, **registry.commands})
    folder = folder or Path(f"pmavae-{name}")
    write_package(name, folder)
    click.echo(str(folder))
    say(f"pip install -e {folder} && pmavae {name} photo.jpg")


def _facts(plugin: Plugin) -> dict[str, object]:
    return {
        "name": plugin.name,
        "version": plugin.version,
        "origin": plugin.origin,
        "entry_point": plugin.entry_point,
        "api": plugin.api,
        "tasks": plugin.tasks,
        "weights": plugin.weights,
        "trainings": plugin.trainings,
        "commands": plugin.commands,
        "state": plugin.state,
        "error": _error(plugin) or None,
    }


def _error(plugin: Plugin) -> str:
    return one_line("; ".join(plugin.errors))


def _row(plugin: Plugin) -> list[str]:
    origin = f"{plugin.origin}: {plugin.entry_point}" if plugin.entry_point else plugin.origin
    state = f"broken: {_error(plugin)}" if plugin.errors else plugin.state
    also = [f"{kind} {name}" for kind, names in plugin.brings.items() if kind != "task" for name in names]
    return [plugin.name, plugin.version, origin, ", ".join(plugin.tasks), ", ".join(also), state]


def _show_table(rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "disabled": "dim"}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, for names and errors may hold what rich reads as markup.
        table.add_row(*map(Text, row[:-1]), Text(row[-1], styles.get(row[-1], "red")))
    Console().print(table)
