"""`--ray`: the plan of a run done by the workers of a cluster, also where one of them is killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image

from pmavae import __version__
from pmavae_cli.images.formats import Output, format_of
from pmavae_cli.options import RunOptions, with_ray_address
from pmavae_cli.ray import client
from pmavae_cli.ray.messages import Recorder, Row, Work, say_again
from pmavae_cli.ray.worker import MOST_ATTEMPTS, Ledger, Worker
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.jobs import Job

# A task that does what the first pixel says, and keeps a diary.
MARKS = """
import os, signal, sys, time
from pathlib import Path
from pmavae.files import tensors
from pmavae_cli.api import Task, hookimpl

class Marks(Task):
    name, help = "marks", "Do what the first pixel says."

    def transform(self, latents, context):
        mark = int(context.pixels[0, 0, 0])
        with open("diary", "a") as diary:
            diary.write(f"{os.getpid()} {mark} {os.environ.get('OMP_WAIT_POLICY')}\\n")
        if mark == 77 and "ray" in sys.modules and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if mark == 55:
            Path("out").mkdir(exist_ok=True)
            Path(f"out/.{tensors.part_prefix}0.part").touch()
            time.sleep(120)
        return latents

@hookimpl
def register_tasks():
    return [Marks()]
"""


@pytest.fixture
def env(here: Path) -> dict[str, str]:
    """An environment in which the task is a plugin."""
    site = here / "site"
    (site / "marks-1.0.dist-info").mkdir(parents=True)
    (site / "marks.py").write_text(MARKS)
    (site / "marks-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: marks\nVersion: 1.0\n")
    (site / "marks-1.0.dist-info/entry_points.txt").write_text("[pmavae.plugins]\nmarks = marks\n")
    before = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return {**before, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}


def marked(marks: list[int]) -> None:
    Path("in").mkdir()
    for i, mark in enumerate(marks):
        image = picture((32, 32), seed=i)
        image.putpixel((0, 0), (mark, 0, 0))
        image.save(f"in/{i}.png")


def diary() -> list[list[str]]:
    return [line.split() for line in Path("diary").read_text().splitlines()]


def still_running(path: str) -> list[str]:
    """The processes that were started with this PYTHONPATH, as those of a cluster are."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PYTHONPATH={path}\0".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
    return found


def gone(pid: str) -> bool:
    """Whether a process has ended, at once or in a moment."""
    limit = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def test_a_cluster_does_what_one_process_does_though_a_worker_is_killed(
    installed: Command, weights: str, env: dict[str, str]
) -> None:
    marked([0, 1, 2, 77, 4, 5, 6, 7, 8, 9])
    Path("in/5.png").write_bytes(Path("in/5.png").read_bytes()[:90])
    run = ("marks", "--json", "-v", "--weights", weights, "--threads", "1")
    alone = installed(*run, "in", "-o", "alone", env=env)
    Path("diary").unlink()
    shared = installed(*run, "--ray", "in", "-o", "shared", env=env)
    assert alone.status == shared.status == 1

    def said(err: str) -> list[str]:
        return sorted(line for line in err.splitlines() if " → " not in line)  # which have times

    assert said(alone.err) == said(shared.err) and len(said(shared.err)) == 2
    assert "weights test-tiny on cpu, 1 threads" in shared.err  # once, though three workers have them
    assert shared.err.count(" → ") == 9

    def rows(lines: list[str]) -> Counter[str]:
        found = [{**json.loads(line.replace("shared/", "alone/")), "seconds": 0} for line in lines]
        return Counter(json.dumps(row, sort_keys=True) for row in found)

    assert rows(shared.lines) == rows(alone.lines)
    names = sorted(path.name for path in Path("alone").iterdir())
    assert names == sorted(path.name for path in Path("shared").iterdir())
    assert len(names) == 9
    for name in names:
        assert np.array_equal(
            np.asarray(Image.open(f"alone/{name}")), np.asarray(Image.open(f"shared/{name}"))
        )
    assert sorted(int(mark) for _, mark, _ in diary()) == [0, 1, 2, 4, 6, 7, 8, 9, 77, 77]
    assert len({pid for pid, mark, _ in diary() if mark == "77"}) == 2
    assert {policy for _, _, policy in diary()} == {"PASSIVE"}
    assert all(gone(pid) for pid, _, _ in diary())


def test_ctrl_c_leaves_no_file_and_no_process(weights: str, env: dict[str, str]) -> None:
    marked([55])
    process = subprocess.Popen(
        [sys.executable, "-m", "pmavae_cli", "marks", "in", "-o", "out", "--ray", "--weights", weights],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    limit = time.monotonic() + 120
    while not list(Path().glob("out/.*.part")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, b"", b"pmavae: interrupted")
    assert list(Path("out").iterdir()) == []
    assert all(gone(pid) for pid, _, _ in diary())
    assert still_running(env["PYTHONPATH"]) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ray", "photos/"], ["--ray=local", "photos/"]),
        (["photos/", "--ray"], ["photos/", "--ray=local"]),
        (["--ray", "-o", "x/"], ["--ray=local", "-o", "x/"]),
        (["--ray", "--", "auto"], ["--ray=local", "--", "auto"]),
        (["--", "--ray", "auto"], ["--", "--ray", "auto"]),
        (["--ray", "auto", "a.jpg"], ["--ray=auto", "a.jpg"]),
        (["--ray", "10.0.0.7:6379", "a.jpg"], ["--ray=10.0.0.7:6379", "a.jpg"]),
        (["--ray", "head.cluster:6379"], ["--ray=head.cluster:6379"]),
        (["--ray", "ray://head:10001", "a.jpg"], ["--ray=ray://head:10001", "a.jpg"]),
        (["--ray=auto", "a.jpg"], ["--ray=auto", "a.jpg"]),
        (["--ray", "a.jpg:2"], ["--ray=local", "a.jpg:2"]),  # a style with its weight, as a.jpg is there
        (["--ray", "C:/photos"], ["--ray=local", "C:/photos"]),
        (["--ray", "a.jpg", "auto"], ["--ray=local", "a.jpg", "auto"]),
    ],
)
def test_an_input_is_not_taken_for_the_address(here: Path, arguments: list[str], expected: list[str]) -> None:
    Path("a.jpg").touch()
    assert with_ray_address(arguments) == expected


def test_a_file_called_auto_is_an_input(here: Path) -> None:
    Path("auto").touch()
    assert with_ray_address(["--ray", "auto"]) == ["--ray=local", "auto"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["decode", "-", "-o", "out/a.png"], "--ray cannot read - (stdin)"),
        (["decode", "a.png", "-o", "-"], "--ray cannot write to stdout"),
        (
            ["style-mix", "a.png", "b.png", "--grid", "-o", "out/a.png"],
            "--ray parts the inputs, and style-mix makes",
        ),
        (["decode", "a.png", "--ray=somewhere"], "'somewhere' is not auto, host:port or ray://host:port"),
    ],
)
def test_what_ray_cannot_do_is_refused_before_it_starts(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.setattr(client, "run_on_ray", lambda *_: pytest.fail("Ray was started"))
    Path("out").mkdir()
    picture().save("a.png")
    picture().save("b.png")
    result = pmavae(*arguments, *([] if "--ray=somewhere" in arguments else ["--ray"]))
    assert (result.status, result.out) == (2, b"")
    assert sentence in result.err


def test_without_ray_one_sentence_says_how_to_install_it(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "find_spec", lambda name: None)
    picture().save("a.png")
    result = pmavae("decode", "a.png", "--ray")
    assert (result.status, result.err) == (2, "pmavae: --ray needs Ray Data: pip install 'pmavae[ray]'\n")


@pytest.mark.parametrize(
    ("address", "where"), [("127.0.0.1:1", "at 127.0.0.1:1"), ("ray://127.0.0.1:1", "at ray://127.0.0.1:1")]
)
def test_an_address_without_a_cluster_is_one_sentence(
    pmavae: Command, here: Path, address: str, where: str
) -> None:
    picture().save("a.png")
    result = pmavae("decode", "a.png", "--ray", address)
    assert (result.status, result.out) == (1, b"")
    assert result.err.startswith(f"pmavae: there is no Ray cluster {where} (")
    assert len(result.err.splitlines()) == 1
    assert [path.name for path in here.iterdir()] == ["a.png"]


def test_an_end_of_ray_without_a_word_is_one_sentence(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    picture().save("a.png")
    result = pmavae("decode", "a.png", "--ray")
    assert (result.status, result.out) == (1, b"")
    assert result.err == "pmavae: Ray ended without a word: run again with --debug for what it says\n"


def test_help_does_not_import_ray() -> None:
    code = (
        "import sys; from pmavae_cli.main import main; main(sys.argv[1:]); "
        "print('ray' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "decode", "missing.jpg", "--ray"], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "False"


@pytest.fixture
def worker(here: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr("pmavae.files.tensors.part_prefix", "")  # so that it is again what it was
    options = RunOptions(weights=weights, output="a.out.png")
    return Worker(Work("decode", __version__, {}, options, here, "0" * 16), None)


def a_job() -> Job:
    path = Path("a.out.png")
    form = format_of(path)
    assert form
    picture().save("a.png")
    return Job(Source("a.png", Path("a.png")), (Output(path, form),))


def test_a_second_attempt_replaces_what_the_killed_one_wrote_and_a_first_does_not(worker: Worker) -> None:
    job = pickle.dumps(a_job())
    Path("a.out.png").write_bytes(b"of somebody else")
    row = worker._do(0, 1, job)
    assert [method for method, *_ in row.said if method != "detail"] == ["failed"]
    assert Path("a.out.png").read_bytes() == b"of somebody else"
    row = worker._do(0, 2, job)
    assert [method for method, *_ in row.said if method != "detail"] == ["result"]
    Image.open("a.out.png").load()
    Path("a.out.png").write_bytes(b"of somebody else")
    assert worker._do(1, 1, job).said[-1][0] == "failed"  # the next picture has its own attempts


def test_a_picture_that_ends_its_worker_each_time_fails(worker: Worker, capsys: Any) -> None:
    row = worker._do(0, MOST_ATTEMPTS + 1, pickle.dumps(a_job()))
    assert not Path("a.out.png").exists()
    console = Recorder()
    say_again(console, row.said)
    assert console.said == row.said
    (_, (name, task, message, _), _), *_ = (said for said in row.said if said[0] == "failed")
    assert (name, task) == ("a.png", "decode")
    assert message.startswith("a.png ended its worker 3 times")


def test_what_is_wrong_with_all_of_a_run_is_told_with_the_machine(here: Path) -> None:
    for work, sentence in (
        (
            Work("decode", "0.0.0", {}, RunOptions(), here, ""),
            f"has pmavae {__version__}, not 0.0.0: install",
        ),
        (Work("decode", __version__, {}, RunOptions(), here / "no", ""), "has no folder"),
        (Work("no-such", __version__, {}, RunOptions(), here, ""), "has no task no-such: install its plugin"),
    ):
        refusal = pickle.loads(Worker(work, None)({"index": [0], "job": [b""]})["row"][0])
        assert refusal.status == 1 and sentence in refusal.message


def test_the_ledger_knows_what_was_done_and_what_is_at_work() -> None:
    ledger = Ledger()
    assert [ledger.begin(0), ledger.begin(1), ledger.begin(1)] == [(1, None), (1, None), (2, None)]
    row = pickle.dumps(Row(0, []))
    ledger.end(0, row)
    assert ledger.begin(0) == (1, row)  # done again, as its answer was lost
    ledger.stop()
    assert ledger.rows_at_rest() is None  # 1 is at work
    assert ledger.begin(2) == (0, None)
    ledger.end(1, row)
    assert ledger.rows_at_rest() == [row, row]
