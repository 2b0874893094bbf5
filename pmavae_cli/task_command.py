"""A task as a click command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import MaskType, PictureType, StyleType, Task, WeightedPath
from pmavae_cli.console import Console
from pmavae_cli.images.formats import READABLE_NAMES
from pmavae_cli.options import ANY_FILE, RunOptions, calm_threads, common_options, with_ray_address
from pmavae_cli.plugin_manager import Registry

if TYPE_CHECKING:
    from pmavae_cli.run.inputs import InputError, Source, StyleSource


class TaskCommand(click.Command):
    """Shows a task's own options before those that every task has."""

    common: tuple[click.Option, ...] = ()  # those that every task has

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As of any command, but the value of --ray may be missing."""
        return super().parse_args(ctx, with_ray_address(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists of options."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        own = [option for option in options if option not in self.common]
        for title, listed in (("Options", own), ("Options of every task", self.common)):
            with formatter.section(title):
                formatter.write_dl([record for o in listed if (record := o.get_help_record(ctx))])


def task_command(task: Task) -> TaskCommand:
    """The command that runs a task."""

    @click.pass_context
    def callback(ctx: click.Context, inputs: tuple[str, ...], **values: Any) -> None:
        options = RunOptions.take(ctx, values)
        ctx.exit(_run(task, inputs, values, options, ctx.find_object(Registry)))

    about = (
        f"{task.help}\n\n{task.input_name} is a picture ({READABLE_NAMES}), a latent file, a folder of "
        "these, a glob, or - for stdin."
    )
    for param in task.params:
        if isinstance(param.type, PictureType):
            about += f" {param.human_readable_name} is one picture or latent file."
        elif isinstance(param.type, StyleType) and isinstance(param, click.Argument):
            about += (
                f" {param.human_readable_name} is a picture, a latent file, a style file (of pmavae encode "
                "--only style) or a folder of these, with :WEIGHT after it where it has one."
            )
    common = common_options(task.params)
    operand = click.Argument(
        ["inputs"], nargs=-1, required=True, type=ANY_FILE, metavar=f"{task.input_name}..."
    )
    command = TaskCommand(
        task.name,
        callback=callback,
        params=[operand, *task.params, *common],
        short_help=task.help,
        help=about,
    )
    command.common = common
    return command


def _run(
    task: Task,
    inputs: tuple[str, ...],
    values: dict[str, Any],
    options: RunOptions,
    registry: Registry | None,
) -> int:
    """The exit status of a run: 0, or 1 where an input failed."""
    # Like all that only a run needs, not imported for --help.
    from pmavae_cli.run.plan import make_plan

    console = Console(options.quiet, options.verbose, options.json, options.debug)
    many_to_one = task.many_to_one(**values)
    values, others, missing = _with_sources(task, values)
    if missing and not many_to_one:
        raise missing[0][1]
    plan = make_plan(
        task,
        task.count(**values),
        inputs,
        others,
        options,
        kind=task.output_kind(**values),
        many_to_one=many_to_one,
        scale=task.scale(**values),
    )
    if options.ray:
        from pmavae_cli.ray.client import check_for_ray

        check_for_ray(task, many_to_one, plan.jobs, others)
    failures = [*missing, *plan.failures]
    if options.fail_fast:
        failures = failures[:1]
    for name, error in failures:
        console.failure(name, task.name, error)
    if options.fail_fast and failures:
        return 1
    if options.shard and not plan.jobs and not failures:
        console.note(
            f"shard {options.shard.part}/{options.shard.parts} has no inputs: there are fewer than shards"
        )
    to_do = []
    for job in plan.jobs:
        for output in job.outputs:
            if output.exists:
                console.skipped(job.name, job.named, output.name, task.name)
        if not all(output.exists for output in job.outputs):
            to_do.append(job)
    if to_do and options.ray:
        from pmavae_cli.ray.client import run_on_ray

        run_on_ray(task, values, options, console, to_do)
    elif to_do:
        calm_threads()
        with swift_imports():
            from pmavae_cli.run.runner import Runner

        runner = Runner(task, values, options, console, registry)
        if not runner.failures.ended:
            runner.run(to_do)
    return int(console.failures > 0)


def _with_sources(
    task: Task, values: dict[str, Any]
) -> tuple[dict[str, Any], list[Source], list[tuple[str, InputError]]]:
    """The options with a Source for each file that they name, all these, and the styles that are missing.

    Raises InputError for another file that is missing.
    """
    from pmavae_cli.run.inputs import InputError, single_input, style_inputs

    sources: list[Source] = []
    missing: list[tuple[str, InputError]] = []

    def single(value: Any, what: str, mask: bool) -> Any:
        if isinstance(value, tuple):
            return tuple(single(part, what, mask) for part in value)
        if value is None:
            return None
        sources.append(single_input(value, what, mask))
        return sources[-1]

    def styles(value: WeightedPath | tuple[WeightedPath, ...] | None) -> tuple[StyleSource, ...]:
        found: list[StyleSource] = []
        for argument in [value] if isinstance(value, WeightedPath) else value or ():
            try:
                found += style_inputs(argument)
            except InputError as error:
                missing.append((argument.path, error))
        sources.extend(found)
        return tuple(found)

    values = dict(values)
    for param in task.params:
        if isinstance(param.type, StyleType) and param.name:
            values[param.name] = styles(values[param.name])
        elif isinstance(param.type, PictureType | MaskType) and param.name:
            what = param.opts[-1] if isinstance(param, click.Option) else param.human_readable_name
            values[param.name] = single(values[param.name], what, isinstance(param.type, MaskType))
    return values, sources, missing


@contextmanager
def swift_imports() -> Iterator[None]:
    """Import torch in here without looking for garbage, and never look for any in what is imported.

    Importing makes hundreds of thousands of objects that stay. Python's collector goes through all of them
    again and again, for a tenth of the start's time; frozen, they cost later collections nothing either.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
