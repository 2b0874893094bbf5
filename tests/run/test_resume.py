"""A long batch that is killed half way goes on where it was, and nothing of it is half written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import picture
from evil_files import encoded, jpeg_of_size, png
from PIL import Image

COUNT, FOLDERS, SIDE = 1000, 20, 32
WAIT = 120  # seconds, after which a test fails


def in_tree(index: int) -> Path:
    """The place of a picture, no more than three folders deep."""
    folder = index % FOLDERS
    return Path(*"xyz"[: folder % 4], f"day {folder}", f"p{index}")


@pytest.fixture
def tree(here: Path) -> set[Path]:
    """1,000 pictures in nested folders, of which these are bad."""
    whole = encoded(picture((SIDE, SIDE)), "PNG")
    bad = {
        3: b"",
        333: whole[: len(whole) // 2],
        500: b"no picture",
        777: jpeg_of_size(0, 0),
        999: png(60_000, 60_000),
    }
    pictures = [encoded(picture((SIDE, SIDE), seed=seed), "PNG") for seed in range(8)]
    for index in range(COUNT):
        path = "in" / in_tree(index).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bad.get(index, pictures[index % 8]))
    return {in_tree(index).with_suffix(".png") for index in bad}


def files(folder: Path) -> set[Path]:
    """Every file below a folder, by its place in it."""
    return {Path(at, name).relative_to(folder) for at, _, names in os.walk(folder) for name in names}


def outputs(folder: Path) -> dict[Path, int]:
    """What has the name of an output, which a temporary file has not, and when it was changed."""
    named = [path for path in files(folder) if not path.name.startswith(".")]
    return {path: (folder / path).stat().st_mtime_ns for path in named}


def test_a_thousand_pictures_killed_half_way_and_resumed(
    here: Path, tree: set[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from small_restorers import saved, untrained

    # The quickest task there is, which takes the same way through the runner as every other.
    weights = saved(untrained("denoise"), tmp_path_factory.mktemp("network"), "test-denoise")
    command = [sys.executable, "-m", "pmavae_cli", "denoise", "in", "-r", "-o", "out/", "--strength", "0"]
    command += ["--weights", str(weights), "--threads", "1", "--json"]

    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + WAIT
    while len(outputs(Path("out"))) < COUNT // 2:
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    before = outputs(Path("out"))
    assert COUNT // 2 <= len(before) < COUNT - len(tree)
    # What a process leaves that is killed while it writes; whether this one did is chance.
    left_over = Path("out", ".0123456789abcdef.part")
    left_over.write_bytes(b"\x89PNG")

    done = subprocess.run([*command, "--skip-existing"], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert {Path(line.split(".png")[0].removeprefix("pmavae: ") + ".png") for line in lines} == {
        "in" / path for path in tree
    }
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    by_status = {
        status: [row for row in rows if row["status"] == status] for status in ("skipped", "written")
    }
    assert {Path(row["output"]).relative_to("out") for row in by_status["skipped"]} == set(before)
    assert len(by_status["written"]) == COUNT - len(tree) - len(before)

    after = outputs(Path("out"))
    assert {path: after[path] for path in before} == before
    assert set(after) == {in_tree(index).with_suffix(".png") for index in range(COUNT)} - tree
    for path in after:
        with Image.open("out" / path) as image:
            image.load()
            assert image.size == (SIDE, SIDE)
    hidden = files(Path("out")) - set(after)
    assert left_over.relative_to("out") in hidden
    assert all(path.suffix == ".part" for path in hidden) and len(hidden) <= 2
