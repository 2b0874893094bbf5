"""`pmavae plugins`: which plugins are installed, and what they bring."""

from __future__ import annotations

import click

from pmavae_cli.console import one_line, print_json, print_table
from pmavae_cli.plugin_manager import Registry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_obj
def plugins(registry: Registry, as_json: bool, debug: bool) -> None:
    """List the plugins, their tasks, and what is wrong with a broken one."""
    if as_json:
        for plugin in registry.plugins:
            print_json(
                {
                    "name": plugin.name,
                    "version": plugin.version,
                    "origin": plugin.origin,
                    "tasks": plugin.tasks,
                    "errors": plugin.errors,
                }
            )
        return
    rows = [
        [p.name, p.version, p.origin, ", ".join(p.tasks), one_line("; ".join(p.errors)) or "ok"]
        for p in registry.plugins
    ]
    print_table([["plugin", "version", "origin", "tasks", "state"], *rows])
