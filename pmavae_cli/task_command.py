"""A task as a click command."""

from __future__ import annotations

import os
from typing import Any

import click

from pmavae_cli.api import PictureType, Task
from pmavae_cli.console import Console
from pmavae_cli.formats import READABLE_NAMES
from pmavae_cli.inputs import Source, single_input
from pmavae_cli.options import COMMON_OPTIONS, RunOptions
from pmavae_cli.planning import make_plan


class TaskCommand(click.Command):
    """Shows a task's own options before those that every task has."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists of options."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        own = [option for option in options if option not in COMMON_OPTIONS]
        for title, listed in (("Options", own), ("Options of every task", COMMON_OPTIONS)):
            with formatter.section(title):
                formatter.write_dl([record for o in listed if (record := o.get_help_record(ctx))])


def task_command(task: Task) -> TaskCommand:
    """The command that runs a task."""

    @click.pass_context
    def callback(ctx: click.Context, inputs: tuple[str, ...], **values: Any) -> None:
        options = RunOptions.take(ctx, values)
        ctx.exit(_run(task, inputs, values, options))

    single = [p.human_readable_name for p in task.params if isinstance(p.type, PictureType)]
    operand = click.Argument(["inputs"], nargs=-1, required=True, metavar=f"{task.input_name}...")
    return TaskCommand(
        task.name,
        callback=callback,
        params=[operand, *task.params, *COMMON_OPTIONS],
        short_help=task.help,
        help=f"{task.help}\n\n{task.input_name} is a picture ({READABLE_NAMES}), a latent file, "
        "a folder of these, a glob, or - for stdin."
        + "".join(f" {name} is one picture or latent file." for name in single),
    )


def _run(task: Task, inputs: tuple[str, ...], values: dict[str, Any], options: RunOptions) -> int:
    """The exit status of a run: 0, or 1 where an input failed."""
    console = Console(options.quiet, options.verbose, options.json, options.debug)
    values, others = _with_sources(task, values)
    plan = make_plan(task, task.count(**values), inputs, others, options)
    for name, error in plan.failures:
        console.failure(name, task.name, error)
    to_do = []
    for job in plan.jobs:
        for output in job.outputs:
            if output.exists:
                console.skipped(job.source.name, output.name, task.name)
        if not all(output.exists for output in job.outputs):
            to_do.append(job)
    failed = bool(plan.failures)
    if to_do:
        # Threads that spin while they wait for each other cost a busy machine whole seconds a picture.
        # Read when torch is loaded, which is now.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from pmavae_cli.runner import Runner

        runner = Runner(task, values, options, console)
        for job in to_do:
            failed |= not runner.run(job)
    return int(failed)


def _with_sources(task: Task, values: dict[str, Any]) -> tuple[dict[str, Any], list[Source]]:
    """The task's options with a Source for each name of a picture, and all these sources."""
    values, sources = dict(values), []

    def find(value: Any, what: str) -> Any:
        if isinstance(value, tuple):
            return tuple(find(part, what) for part in value)
        if value is None:
            return None
        sources.append(single_input(value, what))
        return sources[-1]

    for param in task.params:
        if isinstance(param.type, PictureType) and param.name:
            values[param.name] = find(values[param.name], param.human_readable_name)
    return values, sources
