"""A batch reads the next picture and saves the last while it computes one, and tells all in order."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image

from pmavae_cli.api import Task
from pmavae_cli.images.formats import OutputError
from pmavae_cli.plugin_manager import load_plugins
from pmavae_cli.run import outputs
from pmavae_cli.run.reader import Session

WAIT = 60  # seconds, after which a test fails


class Watched(Task):
    """Keeps the pixels, and does with each picture what the test wants."""

    name = "watched"
    help = "Keep the pixels."
    input_kind = "pixels"

    def __init__(self) -> None:
        self.done = 0

    def meanwhile(self, index: int) -> None:
        """What happens while a picture is computed."""

    def transform(self, pixels: Any, context: Any) -> Any:
        self.meanwhile(self.done)
        context.log(f"computed {self.done}")
        self.done += 1
        return pixels


class Disk:
    """How many pictures were read ahead and written."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.read = 0
        self.written: list[str] = []

    def until(self, *, read: int = 0, written: int = 0) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.read >= read and len(self.written) >= written, WAIT), (
                f"{self.read} read and {self.written} written"
            )


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Watched:
    registry = load_plugins()
    registry.tasks["watched"] = task = Watched()
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    return task


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    read, write = Session.read_ahead, outputs.write

    def read_ahead(session: Session, source: Any) -> Any:
        try:
            return read(session, source)
        finally:
            with disk.changed:
                disk.read += 1
                disk.changed.notify_all()

    def write_and_tell(output: Any, data: bytes, overwrite: bool) -> None:
        write(output, data, overwrite)
        with disk.changed:
            disk.written.append(output.name)
            disk.changed.notify_all()

    monkeypatch.setattr(Session, "read_ahead", read_ahead)
    monkeypatch.setattr(outputs, "write", write_and_tell)
    yield disk


def pictures(count: int) -> list[str]:
    names = [f"{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        picture((32, 24), seed=i).save(name)
    return names


def test_the_next_is_read_and_the_last_saved_while_one_is_computed(
    pmavae: Command, here: Path, task: Watched, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pictures(6)

    def meanwhile(index: int) -> None:
        disk.until(read=min(index + 1, 5), written=index)
        assert disk.read <= index + 1  # and no more, whatever the time

    monkeypatch.setattr(task, "meanwhile", meanwhile)
    result = pmavae("watched", *names, "-o", "out/", "-q")
    assert (result.status, result.err) == (0, "")
    assert result.lines == disk.written == [f"out/{name}" for name in names]
    for name in names:
        assert np.array_equal(np.asarray(Image.open(f"out/{name}")), np.asarray(Image.open(name)))


def test_results_notes_and_failures_come_in_the_order_of_the_inputs(
    pmavae: Command, here: Path, task: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pictures(5)
    write = outputs.write

    def failing(output: Any, data: bytes, overwrite: bool) -> None:
        time.sleep(0.05)  # so that what is computed meanwhile would be told first
        if output.name == "out/1.jpg":
            raise OutputError(f"{output.name} cannot be written: the disk is gone")
        write(output, data, overwrite)

    monkeypatch.setattr(outputs, "write", failing)
    Path(names[3]).write_bytes(b"no picture")
    Image.new("RGBA", (32, 32), (1, 2, 3, 99)).save(names[2])
    result = pmavae("watched", *names, "-o", "out/", "--format", "jpg")
    assert result.status == 1
    assert result.lines == ["out/0.jpg", "out/2.jpg", "out/4.jpg"]
    assert [line.split(":", 1)[1].strip()[:34] for line in result.err.splitlines()] == [
        "computed 0",
        "computed 1",
        "1.png: out/1.jpg cannot be written",
        "computed 2",
        "out/2.jpg: jpg cannot hold its tra",
        "3.png is neither a picture (JPEG, ",
        "computed 3",
    ]
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.jpg", "2.jpg", "4.jpg"]


def test_with_fail_fast_nothing_is_computed_beside_what_may_fail(
    pmavae: Command, here: Path, task: Watched, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pictures(4)
    write = outputs.write

    def failing(output: Any, data: bytes, overwrite: bool) -> None:
        if output.name == "out/1.png":
            raise OutputError(f"{output.name} cannot be written: the disk is gone")
        write(output, data, overwrite)

    monkeypatch.setattr(outputs, "write", failing)
    result = pmavae("watched", *names, "-o", "out/", "--fail-fast", "--json")
    assert result.status == 1
    assert [json.loads(line)["status"] for line in result.lines] == ["written", "failed"]
    assert task.done == 2
    assert [path.name for path in Path("out").iterdir()] == ["0.png"]


@pytest.mark.parametrize("large", [False, True])
def test_large_pictures_are_alone_in_memory(
    pmavae: Command, here: Path, task: Watched, disk: Disk, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    names = pictures(4)
    monkeypatch.setattr(outputs, "MAX_PIXELS", 32 * 24 - large)
    result = pmavae("watched", *names, "-o", "out/")
    assert result.status == 0
    assert disk.read == (0 if large else 3)
    assert disk.written == [f"out/{name}" for name in names]


def test_ctrl_c_in_a_batch_finishes_the_file_that_is_being_saved_and_no_more(
    pmavae: Command, here: Path, task: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pictures(5)
    begun, write = threading.Event(), outputs.write

    def slow(output: Any, data: bytes, overwrite: bool) -> None:
        begun.set()
        time.sleep(0.2)
        write(output, data, overwrite)

    def meanwhile(index: int) -> None:
        if index == 1:
            assert begun.wait(WAIT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(WAIT)

    monkeypatch.setattr(outputs, "write", slow)
    monkeypatch.setattr(task, "meanwhile", meanwhile)
    result = pmavae("watched", *names, "-o", "out/", "-q")
    assert result.status == 130
    assert result.err.split() == ["pmavae:", "interrupted"]
    assert [path.name for path in Path("out").iterdir()] == ["0.png"]
    Image.open("out/0.png").load()
    monkeypatch.setattr(task, "meanwhile", lambda index: None)
    assert pmavae("watched", *names, "-o", "out/", "--skip-existing").status == 0
    assert len(list(Path("out").iterdir())) == 5
