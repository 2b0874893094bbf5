"""A folder of evil files through every task, as a process of its own: an output or a sentence each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, picture
from evil_files import BAD, GOOD, Evil, make_evil_files
from PIL import Image

from pmavae.config import PRESETS
from pmavae_cli.main import main
from pmavae_cli.plugin_manager import load_plugins

TASKS = list(load_plugins().tasks)
MAX_MEMORY = 1.5 * 2**30
TIME = 240  # seconds, after which it hangs

# What a task needs besides its inputs, and what keeps it quick; a task that is not here needs nothing.
AFTER = {"style-mix": ["sound.png"]}
OPTIONS = {"style-mix": ["--refine", "0"]}
SCALE = {"upscale": 2}

# A process that has torch in memory passes its own peak on to those that it starts; this one is small.
MEASURED = """
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


@dataclass(frozen=True)
class Folder:
    """The evil files, beside a sound picture, and what has to become of each."""

    path: Path
    expected: dict[str, Evil]
    before: dict[Path, int]


def contents(folder: Path) -> dict[Path, int]:
    """All that is in a folder, and when it was changed."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    from small_restorers import untrained

    folder = tmp_path_factory.mktemp("evil")
    picture((32, 24)).save(folder / "sound.png")
    for name, only in (("z", ()), ("style", ("--only", "style"))):
        output = folder / f"{name}.safetensors"
        assert main(["encode", str(folder / "sound.png"), "-q", "-o", str(output), *only]) == 0
    untrained("denoise").save_pretrained(folder / "network", "test-denoise")
    (network,) = (folder / "network").glob("*.safetensors")
    latents, style = ((folder / f"{name}.safetensors").read_bytes() for name in ("z", "style"))
    (folder / "in").mkdir()
    expected = make_evil_files(folder / "in", latents, style, network)
    return Folder(folder, expected, contents(folder))


def check(name: str, output: Path, size: tuple[int, int]) -> None:
    """An output is whole, of the right kind and of the right size."""
    if output.suffix == ".safetensors":
        from pmavae.files.latent_file import read_latents

        latents, _ = read_latents(output, PRESETS.__getitem__)
        assert (latents.width, latents.height) == size, name
        return
    with Image.open(output) as image:
        image.load()
        assert image.size == size, name


@dataclass(frozen=True)
class Done:
    """How a run ended, and what it used."""

    status: int
    rows: list[dict[str, Any]]
    lines: list[str]
    out: Path
    memory: int  # bytes at most


def run(evil: Folder, out: Path, task: str) -> Done:
    inputs = [f"in/{name}" for name in evil.expected]
    command = [sys.executable, "-m", "pmavae_cli", task, *inputs, *AFTER.get(task, [])]
    command += [*OPTIONS.get(task, []), "-o", f"{out}/", "--json", "--quiet", "--threads", "1"]
    peak = out.with_suffix(".kb")
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURED, str(peak), *command],
        cwd=evil.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return Done(done.returncode, rows, done.stderr.splitlines(), out, int(peak.read_text()) * 1024)


@pytest.fixture(scope="module")
def runs(evil: Folder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Every task over all files; two at a time, because most of the time is that of their start."""
    folder = tmp_path_factory.mktemp("evil-runs")
    with ThreadPoolExecutor(2) as pool:
        begun = {task: pool.submit(run, evil, folder / task, task) for task in TASKS}
    return {task: future.result() for task, future in begun.items()}


def check_said(rows: list[dict[str, Any]], lines: list[str]) -> None:
    """Each failure is one line that names its file and says more than that it failed."""
    failed = [row for row in rows if row["status"] == "failed"]
    assert Counter(lines) == Counter(f"pmavae: {row['error']}" for row in failed)
    for row in failed:
        assert row["input"] in row["error"], row
        assert row["error"].count(" ") > 3, row
        assert "unexpected error" not in row["error"], row


@pytest.mark.parametrize("task", TASKS)
def test_each_evil_file_ends_in_an_output_or_in_one_sentence(
    evil: Folder, runs: dict[str, Done], task: str
) -> None:
    done = runs[task]
    assert done.status == 1
    check_said(done.rows, done.lines)
    assert Counter(row["input"] for row in done.rows) == Counter(f"in/{name}" for name in evil.expected)
    for row in done.rows:
        outcome = evil.expected[Path(row["input"]).name].outcome
        if outcome in (GOOD, BAD):
            assert row["status"] == ("written" if outcome == GOOD else "failed"), row


@pytest.mark.parametrize("task", TASKS)
def test_outputs_are_whole_and_nothing_is_beside_them(evil: Folder, runs: dict[str, Done], task: str) -> None:
    written = [row for row in runs[task].rows if row["status"] == "written"]
    assert {str(path) for path in runs[task].out.rglob("*")} == {row["output"] for row in written}
    for row in written:
        width, height = evil.expected[Path(row["input"]).name].size
        scale = SCALE.get(task, 1)
        check(row["input"], Path(row["output"]), (scale * width, scale * height))


@pytest.mark.parametrize("task", TASKS)
def test_evil_files_cannot_fill_the_memory(runs: dict[str, Done], task: str) -> None:
    assert 10 * 2**20 < runs[task].memory < MAX_MEMORY


def test_the_inputs_are_as_they_were(evil: Folder, runs: dict[str, Done]) -> None:
    assert contents(evil.path) == evil.before


def test_painting_in_steps_takes_them_too(
    pmavae: Command, evil: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evil.path)
    names = ["palette.png", "bilevel.png", "smallest.png", "z-unchanged.safetensors", "z-nan.safetensors"]
    names += ["empty.png", "png-4-eighths.png", "turned-6.jpg", "cmyk.jpg", "bomb-header.png"]
    inputs = [f"in/{name}" for name in names]
    result = pmavae(
        "style-mix", *inputs, "sound.png", "--refine", "1", "-o", f"{tmp_path}/out/", "-q", "--json"
    )
    assert result.status == 1
    rows = [json.loads(line) for line in result.lines]
    check_said(rows, result.err.splitlines())
    assert [row["status"] for row in rows] == [
        "written" if evil.expected[name].outcome == GOOD else "failed" for name in names
    ]
    for row, name in zip(rows, names, strict=True):
        if row["status"] == "written":
            check(name, Path(row["output"]), evil.expected[name].size)


def test_what_a_file_is_its_content_says(pmavae: Command, evil: Folder, tmp_path: Path) -> None:
    name = evil.path / "in" / "called-latents.safetensors"
    assert pmavae("decode", name, "-o", tmp_path / "out.png", "-q").status == 0
