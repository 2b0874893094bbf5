"""The command `pmavae`: its groups of commands, and how a run ends."""

import os
import signal
import sys
import warnings
from collections.abc import Sequence

import click

from pmavae import __version__
from pmavae_cli.commands import COMMANDS, open_command
from pmavae_cli.console import describe_error, say
from pmavae_cli.plugin_manager import Registry, find_plugins, load_plugins
from pmavae_cli.task_command import task_command

EPILOG = "pmavae COMMAND --help tells more. Tasks chain through latent files (.safetensors)."


class Commands(click.Group):
    """Lists tasks first, then the other commands."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(
            "pmavae",
            help="Restyle and rebuild pictures with a small autoencoder.",
            epilog=EPILOG,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self._registry = registry

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A task, one of pmavae's commands, or one of a plugin's; made when it is used."""
        if cmd_name in COMMANDS:
            return open_command(cmd_name, self._registry.trainings)
        if task := self._registry.tasks.get(cmd_name):
            return task_command(task)
        return self._registry.commands.get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the help."""
        return [name for rows in self._rows() for name in rows]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists of commands."""
        for title, rows in zip(("Tasks", "Commands"), self._rows(), strict=True):
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))

    def _rows(self) -> tuple[dict[str, str], dict[str, str]]:
        """Tasks, then commands, each with its help in short."""
        brought = {name: c.get_short_help_str(100) for name, c in self._registry.commands.items()}
        tasks = {name: task.help for name, task in self._registry.tasks.items()}
        return tasks, {**COMMANDS, **brought}


def build_cli(registry: Registry) -> click.Group:
    """The whole command line, with the tasks of a registry."""
    cli = Commands(registry)
    return click.version_option(__version__, prog_name="pmavae", message="%(prog)s %(version)s")(cli)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status, and leaves no traceback unless asked to."""
    arguments = list(sys.argv[1:] if args is None else args)
    if args is None:
        signal.signal(signal.SIGTERM, _terminate)
    with warnings.catch_warnings():
        # Libraries warn their callers; a user can do nothing about it.
        if "--debug" not in arguments:
            warnings.simplefilter("ignore")
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    try:
        # That command tells what is wrong with the plugins, and works whatever is.
        about_plugins = arguments[:1] == ["plugins"]
        registry = find_plugins() if about_plugins else load_plugins()
        # A shell that asks for completions shows stderr in the middle of what is being typed.
        completes = arguments[:1] == ["completion"] or "_PMAVAE_COMPLETE" in os.environ
        if not about_plugins and not completes:
            for complaint in registry.complaints:
                say(complaint)
        status = build_cli(registry).main(arguments, prog_name="pmavae", standalone_mode=False, obj=registry)
        return int(status or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__ or error, Terminated):
            say("terminated")
            return 143
        say("interrupted")
        return 130
    except Exception as error:
        # Not from the parsed options: the error may be older than these.
        if "--debug" in arguments:
            import traceback  # not for every start

            traceback.print_exception(error)
        say(describe_error(error))
        return 1


class Terminated(KeyboardInterrupt):
    """SIGTERM, as of a batch system whose time is up: what is half written goes, as after Ctrl-C."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated
