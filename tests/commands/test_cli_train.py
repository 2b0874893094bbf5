"""`pmavae train` as a process: plans, runs, pauses, interrupts, several processes, bad input."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import picture
from safetensors.numpy import load_file

PHASE = '--set=phases=[{"name":"short","share":1,"crop":64,"batch":4,"learning_rate":1e-3}]'
FAST = [
    PHASE,
    "--set=adversary.start=0.5",
    "--set=adversary.channels=4",
    "--set=linear_crops=16",
    "--set=precision=fp32",
    "--perceptual=none",
    "--device=cpu",
    "--threads=1",
    "--log-every=1",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(20):
        picture((160, 128), seed).save(folder / f"{seed:02d}.png")
    return folder


def command(*arguments):
    return [sys.executable, "-m", "pmavae_cli", "train", *map(str, arguments), *FAST]


def run(*arguments, **options):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, **options)
    return done.returncode, done.stdout, done.stderr


def log(folder, group="train"):
    with (folder / "log.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["group"] == group]


def test_a_run_leaves_weights_a_log_pictures_and_its_settings(photos, tmp_path):
    status, out, err = run("--preset", "tiny", "--data", photos, "--out", tmp_path / "run", "--steps", 4)
    assert status == 0 and out == ""
    folder = tmp_path / "run"
    assert [row["step"] for row in log(folder)] == ["1.0", "2.0", "3.0", "4.0"]
    assert 5 < float(log(folder, "validation")[-1]["psnr"]) < 60
    assert all(0 <= float(row["waiting"]) <= 1 for row in log(folder))
    for name in ("model.safetensors", "contact-sheet.png", "previews/step-00000004.png"):
        assert (folder / name).stat().st_size > 1000
    config = json.loads((folder / "config.json").read_text())
    assert (config["steps"], config["preset"], config["loss"]["network"]) == (4, "tiny", "none")
    assert err.count("\n") < 20 and "images per second" in err

    status, _, err = run("--data", photos, "--out", folder, "--steps", 5)
    assert status == 0 and "continuing" in err
    assert len(log(folder)) == 5
    assert run("--data", photos, "--out", folder, "--resume", "never")[0] == 1


def test_a_dry_run_tells_the_plan_and_leaves_nothing(photos, tmp_path):
    (tmp_path / "mixed").mkdir()
    picture((160, 128)).save(tmp_path / "mixed" / "good.png")
    (tmp_path / "mixed" / "bad.jpg").write_bytes(b"no picture")
    status, out, _ = run(
        "--data", photos, tmp_path / "mixed", "--out", tmp_path / "run", "--steps", 10, "--dry-run"
    )
    assert status == 0
    assert "bad.jpg" in out and "19 to train on, 2 to validate on" in out
    assert "10 steps" in out and "GiB" in out and "linear start" in out
    assert not (tmp_path / "run").exists()


def test_ctrl_c_saves_and_the_same_command_continues_to_the_same_weights(photos, tmp_path):
    arguments = ["--data", photos, "--steps", 12]
    assert run(*arguments, "--out", tmp_path / "straight")[0] == 0
    process = subprocess.Popen(
        command(*arguments, "--out", tmp_path / "halves"), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "step 3" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "interrupted and saved" in rest and "Traceback" not in rest
    assert 3 <= len(log(tmp_path / "halves")) < 12
    assert run(*arguments, "--out", tmp_path / "halves")[0] == 0
    last = "checkpoints/step-00000012/{}.safetensors"
    for name in ("model", "state"):
        a, b = (load_file(tmp_path / run / last.format(name)) for run in ("straight", "halves"))
        assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def test_a_branch_goes_down_from_where_a_run_stands(photos, tmp_path):
    late = PHASE.replace('"learning_rate"', '"decay":0.25,"learning_rate"')
    kinds = ["--set=optimizer.kind=muon", "--set=loss.pixels=log-mse"]
    first = ["--data", photos, "--steps", 8, "--out", tmp_path / "run"]
    assert subprocess.run([*command(*first), late, *kinds], capture_output=True).returncode == 0
    branch = command("--branch-from", tmp_path / "run", "--steps", 4, "--out", tmp_path / "branch")
    branch.remove(PHASE)
    assert subprocess.run(branch, capture_output=True).returncode == 0
    rows = log(tmp_path / "branch")
    assert [float(row["step"]) for row in rows] == [9, 10, 11, 12]
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=True) and rates[0] == 1e-3 and rates[-1] < 2e-4
    config = json.loads((tmp_path / "branch" / "config.json").read_text())
    assert (config["optimizer"]["kind"], config["loss"]["pixels"]) == ("muon", "log-mse")
    run_state, state = (
        load_file(tmp_path / f"{name}/checkpoints/step-{step:08d}/state.safetensors")
        for name, step in (("run", 8), ("branch", 12))
    )
    # Adam counts the steps of both, and Muon has gone on from what it had.
    assert any(key.startswith("muon.") for key in state) and run_state.keys() == state.keys()
    assert {float(state[key]) for key in state if key.startswith("optimizer.") and key.endswith(".step")} == {
        12.0
    }


def test_a_branch_of_no_run_is_refused(pmavae, tmp_path):
    result = pmavae("train", "--branch-from", tmp_path / "none", "--out", tmp_path / "x", "--steps", 1)
    assert result.status == 1 and "no checkpoint to branch from" in result.err


def test_a_second_ctrl_c_leaves_at_once(photos, tmp_path):
    process = subprocess.Popen(
        command(
            "--data", photos, "--out", tmp_path / "run", "--steps", 10_000, "--set", "phases.0.batch=512"
        ),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "previews").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)  # into a step of 512 crops, which takes much longer than this test waits
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_two_processes_train_as_one_does(photos, tmp_path):
    pytest.importorskip("accelerate")
    arguments = ["--data", photos, "--steps", 4, "--set=adversary.weight=0"]
    assert run(*arguments, "--out", tmp_path / "one")[0] == 0
    # What `accelerate launch --multi_gpu` starts, too; of CPUs it starts only one without MPI.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "pmavae_cli"]
    launch += command(*arguments, "--out", tmp_path / "two")[3:]
    plan = subprocess.run([*launch, "--dry-run"], capture_output=True, text=True, timeout=300)
    assert "2 process(es)" in plan.stdout
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = ([float(row["loss"]) for row in log(tmp_path / run)] for run in ("one", "two"))
    assert len(one) == 4 and two == pytest.approx(one, rel=1e-4)
    a, b = (
        load_file(tmp_path / run / "checkpoints/step-00000004/model.safetensors") for run in ("one", "two")
    )
    assert max(abs(a[k] - b[k]).max() for k in a) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "missing"], "missing"),
        ([], "give pictures with --data"),
        (["--data", "{photos}", "--set", "loss.klx=1"], "unknown setting loss.klx"),
        (["--data", "{photos}", "--config", "none.toml"], "none.toml cannot be read"),
        (["--data", "{photos}", "--init-from", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--data", "{photos}", "--time-limit", "soon"], "'soon' is no length of time"),
        (["--data", "{photos}", "--set", "phases.0.crop=4096"], "larger pictures"),
        (["--data", "{photos}", "--perceptual", "resnet"], "resnet"),
    ],
)
def test_bad_input_is_one_sentence(pmavae, photos, here, arguments, words):
    arguments = [argument.format(photos=photos) for argument in arguments]
    result = pmavae("train", "--perceptual", "none", "--device", "cpu", *arguments)
    assert result.status == 1 and words in result.err
    assert len(result.err.splitlines()) <= 2 and "Traceback" not in result.err


def test_two_lengths_are_wrong_usage(pmavae, here):
    assert pmavae("train", "--data", "x", "--steps", 3, "--time-limit", "1h").status == 2
