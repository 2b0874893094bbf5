"""`pmavae completion`: the scripts, and what a shell gets from them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Command

PLUGIN = """
import click
from pmavae_cli.api import Task, hookimpl

class Shrink(Task):
    name = "shrink"
    help = "Make a picture smaller."
    params = (click.Option(["--softly"], is_flag=True, help="Little by little."),)

    def transform(self, latents, context, softly):
        return latents

@hookimpl
def register_tasks():
    return [Shrink()]
"""
BASH, ZSH, FISH = (shutil.which(shell) for shell in ("bash", "zsh", "fish"))
WAIT = 60  # seconds, after which a test fails


def with_program(here: Path) -> dict[str, str]:
    """An environment in which `pmavae` is this one."""
    program = here / "bin" / "pmavae"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pmavae_cli "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "HOME": str(here), "PATH": f"{program.parent}:{os.environ['PATH']}"}


def completed(here: Path, *words: str, **variables: str) -> list[str]:
    """What bash offers for the last of these words after it has read the script."""
    script = """
        source <(pmavae completion bash)
        COMP_WORDS=(pmavae "$@")
        COMP_CWORD=$#
        compopt() { echo "compopt $1 $2"; }
        _pmavae_completion pmavae
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    assert BASH
    done = subprocess.run(
        [BASH, "--norc", "-c", script, "bash", *words],
        env={**with_program(here), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1]


def install(here: Path, module: str) -> None:
    """Make a module known as a plugin to whoever has this folder on the path."""
    info = here / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pmavae.plugins]\n{module} = {module}\n")


@pytest.mark.skipif(not BASH, reason="no bash here")
def test_bash_completes_tasks_options_values_and_files(here: Path) -> None:
    assert completed(here, "de") == ["decode", "denoise"]
    assert "--strength" in completed(here, "style-mix", "a.jpg", "--str")
    assert completed(here, "decode", "--preset", "t") == ["tiny"]
    assert completed(here, "completion", "") == ["bash", "zsh", "fish"]
    for line in ("decode ph", "style-mix a.jpg --style ph", "decode -o ph", "info ph", "compare a.jpg ph"):
        words = line.split()
        assert completed(here, *words)[0] == "compopt -o default", words


@pytest.mark.skipif(not BASH, reason="no bash here")
def test_bash_completes_tasks_of_plugins(here: Path) -> None:
    (here / "shrinking.py").write_text(PLUGIN)
    install(here, "shrinking")
    assert completed(here, "shr", PYTHONPATH=str(here)) == ["shrink"]
    assert completed(here, "shrink", "--so", PYTHONPATH=str(here)) == ["--softly"]
    assert completed(here, "shrink", "--over", PYTHONPATH=str(here)) == ["--overwrite"]


@pytest.mark.skipif(not BASH, reason="no bash here")
def test_a_broken_plugin_does_not_speak_into_what_is_typed(here: Path) -> None:
    install(here, "no_such_module")
    assert completed(here, "enc", PYTHONPATH=str(here)) == ["encode"]  # and nothing on stderr


@pytest.mark.skipif(not FISH, reason="no fish here")
def test_fish_completes_tasks_and_options(here: Path) -> None:
    script = """
        pmavae completion fish | source
        complete --do-complete "pmavae deco"
        complete --do-complete "pmavae decode --skip-e"
        complete --do-complete "pmavae completion z"
    """
    assert FISH
    done = subprocess.run(
        [FISH, "--no-config", "-c", script],
        env=with_program(here),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["decode", "--skip-existing", "zsh"]


class Typed:
    """A shell on a terminal, to which words are typed."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.screen, terminal = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True
        )
        os.close(terminal)
        self.shown = ""

    def type(self, keys: str, until: str) -> None:
        """Type these, and wait for what they bring; fails where that does not come."""
        self.shown = ""
        os.write(self.screen, keys.encode())
        end = time.monotonic() + WAIT
        while until not in self.shown:
            ready, _, _ = select.select([self.screen], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{until!r} did not come: {self.shown!r}"
            self.shown += os.read(self.screen, 4096).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)


@pytest.mark.skipif(not ZSH, reason="no zsh here")
def test_zsh_completes_tasks_and_options_that_are_typed(here: Path) -> None:
    assert ZSH
    shell = Typed([ZSH, "-f", "-i"], {**with_program(here), "TERM": "dumb"})
    try:
        shell.type("PS1='rea''dy> '\n", until="ready> ")
        shell.type("autoload -Uz compinit && compinit -D -u && print do''ne\n", until="done")
        shell.type('eval "$(pmavae completion zsh)" && print load""ed\n', until="loaded")
        shell.type("pmavae deco\t", until="decode ")
        shell.type("--skip-e\t", until="existing")
    finally:
        shell.close()


@pytest.mark.parametrize(
    ("shell", "registers"),
    [("bash", "complete -o nosort -F"), ("zsh", "compdef"), ("fish", "complete --no-files --command pmavae")],
)
def test_every_shell_has_a_script(pmavae: Command, shell: str, registers: str) -> None:
    result = pmavae("completion", shell)
    assert (result.status, result.err) == (0, "")
    script = result.out.decode()
    assert registers in script
    assert f"_PMAVAE_COMPLETE={shell}_complete" in script


def test_another_shell_is_wrong_usage(pmavae: Command) -> None:
    result = pmavae("completion", "tcsh")
    assert (result.status, result.out) == (2, b"")
    assert "'bash', 'zsh', 'fish'" in result.err
