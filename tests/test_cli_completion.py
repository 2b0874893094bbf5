"""`pmavae completion`: the scripts, and what a shell gets from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
BASH = shutil.which("bash")


def completed(here: Path, *words: str, **variables: str) -> list[str]:
    """What bash offers for the last of these words after it has read the script."""
    program = here / "bin" / "pmavae"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pmavae_cli "$@"\n')
    program.chmod(0o755)
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
        env={**os.environ, **variables, "PATH": f"{program.parent}:{os.environ['PATH']}"},
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
