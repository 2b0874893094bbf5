"""A plan done by Ray: the side that starts it, says what the workers say, and ends it."""

import os
import pickle
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from pmavae import __version__
from pmavae.errors import PMAVAEError
from pmavae_cli.api import Task
from pmavae_cli.console import Console
from pmavae_cli.options import RunOptions
from pmavae_cli.progress import Bars
from pmavae_cli.ray.messages import Batch, Message, Refusal, Row, Started, Work, no_cluster, say_again
from pmavae_cli.run.inputs import STDIN, Source
from pmavae_cli.run.jobs import Job, Refused

CONNECT = 45  # seconds, for a cluster that exists
START = 180  # seconds, for one of this machine
END = 20  # seconds, until what does not end by itself is killed


def check_for_ray(task: Task, many_to_one: bool, jobs: Sequence[Job], others: Sequence[Source]) -> None:
    """Refuse what Ray cannot do, before it starts; raises click.UsageError, or Refused without Ray."""
    if many_to_one:
        raise click.UsageError(f"--ray parts the inputs, and {task.name} makes one output of them all.")
    sources = [*(job.source for job in jobs), *others]
    if any(source.path is None for source in sources):
        raise click.UsageError(f"--ray cannot read {STDIN} (stdin), which only this process has: name files.")
    if any(output.path is None for job in jobs for output in job.outputs):
        raise click.UsageError(
            "--ray cannot write to stdout, which only this process has: name a file or folder."
        )
    if not (find_spec("ray") and find_spec("pyarrow")):
        raise Refused("--ray needs Ray Data: pip install 'pmavae[ray]'")


def run_on_ray(
    task: Task, values: Mapping[str, Any], options: RunOptions, console: Console, jobs: list[Job]
) -> None:
    """Do all jobs, as Runner.run does; what fails is said, and counted by the console.

    Raises PMAVAEError or Refused for what is wrong with all of the run.
    """
    assert options.ray
    mark = secrets.token_hex(8)
    work = Work(task.name, __version__, values, options, Path.cwd(), mark)
    reported: set[int] = set()
    try:
        with _process(work, jobs, options.ray) as process, Bars(console, len(jobs)) as shown:
            for row in _rows(process, options.ray):
                if row.index in reported:
                    continue
                reported.add(row.index)
                failures = console.failures
                say_again(console, row.said)
                shown.done(len(reported))
                if options.fail_fast and console.failures > failures == 0:
                    _send(process, b"stop\n")
    finally:
        _remove_parts(jobs, mark)
    for index, job in enumerate(jobs):
        if index not in reported and not (options.fail_fast and console.failures):
            console.failed(job.name, task.name, "Ray gave no answer about it: run again with --skip-existing")


@contextmanager
def _process(work: Work, jobs: list[Job], address: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that talks to Ray; on leaving, it and the cluster that it started have ended."""
    # Sockets lie in that folder, and their paths have to be short.
    short = Path("/tmp")
    temporary = Path(tempfile.mkdtemp(prefix="pmavae-ray-", dir=short if short.is_dir() else None))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pmavae_cli.ray.driver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which then ends that one
    )
    try:
        _send(process, pickle.dumps(Batch(work, jobs, address, temporary)))
        yield process
    finally:
        _end(process)
        shutil.rmtree(temporary, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C
        process.wait(END)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _rows(process: subprocess.Popen[bytes], address: str) -> Iterator[Row]:
    """The rows as they come; raises PMAVAEError or Refused."""
    assert process.stdout
    local = address == "local"
    if not select.select([process.stdout], [], [], START if local else CONNECT)[0]:
        raise PMAVAEError("Ray does not start") if local else no_cluster(address, "no answer")
    while True:
        try:
            message: Message = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise PMAVAEError("Ray ended without a word: run again with --debug for what it says") from None
        if message is None:
            return
        if isinstance(message, Refusal):
            click.echo(message.trace, err=True, nl=False)
            raise Refused(message.message) if message.status == 2 else PMAVAEError(message.message)
        if isinstance(message, Row):
            yield message
        else:
            assert isinstance(message, Started)


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.flush()


def _remove_parts(jobs: list[Job], mark: str) -> None:
    """The temporary files of workers that were killed."""
    paths = (Path(os.path.realpath(output.path)) for job in jobs for output in job.outputs if output.path)
    for folder in {path.parent for path in paths}:
        for part in folder.glob(f".{mark}*.part"):
            part.unlink(missing_ok=True)
