"""Starting and ending: help without torch, exit codes, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import Command, picture

import pmavae as library
from pmavae_cli.api import Task
from pmavae_cli.main import main
from pmavae_cli.plugin_manager import Registry, load_plugins


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["style-mix", "--help"],
        ["denoise", "--help"],
        ["upscale", "--help"],
        ["bench", "--help"],
        ["train", "--help"],
        ["compare", "--help"],
        ["weights", "--help"],
        ["weights", "import", "--help"],
        ["compare", "a.jpg", "missing.jpg"],
        ["info", "--help"],
        ["completion", "bash"],
        ["plugins"],
        ["--version"],
        ["decode", "missing.jpg"],
    ],
)
def test_torch_stays_unloaded_until_a_picture_is_there(arguments: list[str]) -> None:
    code = (
        "import sys; from pmavae_cli.main import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'numba', 'PIL', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_lists_tasks_before_other_commands(pmavae: Command) -> None:
    result = pmavae("--help")
    assert result.status == 0
    text = result.out.decode()
    places = [text.index(word) for word in ("Tasks:", "  encode ", "  style-mix ", "Commands:", "  info ")]
    assert places == sorted(places)


def test_version(pmavae: Command) -> None:
    assert pmavae("--version").lines == [f"pmavae {library.__version__}"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-task"],
        ["decode"],
        ["decode", "a.jpg", "--no-such-option"],
        ["style-mix", "only-one.jpg"],
        ["style-mix", "a.jpg", "b.jpg", "--strength", "1.5"],
        ["decode", "a.jpg", "--overwrite", "--skip-existing"],
        ["decode", "a.jpg", "-o", ""],
    ],
)
def test_wrong_usage_is_exit_2(pmavae: Command, arguments: list[str]) -> None:
    result = pmavae(*arguments)
    assert (result.status, result.out) == (2, b"")
    assert "Error: " in result.err
    assert "Traceback" not in result.err


class Faulty(Task):
    name = "faulty"
    help = "Fails in a way nobody foresaw."

    def transform(self, latents, context):  # type: ignore[no-untyped-def]
        raise KeyError("no such thing")


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug(
    pmavae: Command, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_plugins()
    registry.tasks["faulty"] = Faulty()
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    picture().save("a.png")
    picture().save("b.png")
    result = pmavae("faulty", "a.png", "b.png", "-o", "out/", "--weights", weights)
    assert result.status == 1
    assert result.err.splitlines() == [
        f"pmavae: {name}: unexpected error: KeyError: 'no such thing'; "
        "run again with --debug for the traceback"
        for name in ("a.png", "b.png")
    ]
    assert "Traceback" in pmavae("faulty", "a.png", "--weights", weights, "--debug").err


def test_ctrl_c_while_parsing_is_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> Registry:
        raise KeyboardInterrupt

    monkeypatch.setattr("pmavae_cli.main.load_plugins", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == "pmavae: interrupted\n"


@pytest.mark.parametrize(
    ("number", "status", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_run_that_is_ended_says_so_and_leaves_nothing(
    number: signal.Signals, status: int, said: str, weights: str, here: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pmavae_cli", "decode", "-", "-o", "out.png", "-v", "--weights", weights],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"weights test-tiny" in process.stderr.readline()  # the next thing it does is wait for stdin
    process.send_signal(number)
    assert process.wait(timeout=60) == status
    assert process.stderr.read().decode().split() == ["pmavae:", said]
    assert list(here.iterdir()) == []
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_a_closed_pipe_ends_quietly(weights: str, here: Path) -> None:
    picture().save("a.png")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "pmavae_cli", "decode", "a.png", "-o", "-", "--weights", weights],
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_every_parameter_of_a_task_has_help() -> None:
    for task in load_plugins().tasks.values():
        for param in task.params:
            assert not isinstance(param, click.Option) or param.help
