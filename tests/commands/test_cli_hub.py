"""`--weights org/name`, `pmavae weights fetch` and `push` against a server, and `--offline`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import Command, on_a_terminal, picture
from hub_commands import Hub, no_sockets
from hub_server import TOKEN, Fault, hub_server, wait_until
from huggingface_hub import ModelCard
from PIL import Image

from pmavae_cli.options import RunOptions, with_offline
from pmavae_cli.plugin_manager import load_plugins
from pmavae_cli.run.plan import make_plan


@pytest.fixture
def hub(tmp_path: Path, restorer: Path) -> Iterator[Hub]:
    with hub_server() as server:
        commit = server.repo("org/restorer", {"model.safetensors": restorer / "model.safetensors"})
        yield Hub(server, tmp_path / "home", commit)


def test_weights_of_the_hub_from_fetching_to_repairing(hub: Hub, here: Path, restorer: Path) -> None:
    picture((32, 32)).save("a.png")
    pinned = f"org/restorer@{hub.commit}"
    fetched, where, listed, verified, local, ours = hub.run(
        ["weights", "fetch", "org/restorer"],
        ["weights", "path", pinned],
        ["weights", "list", "--json"],
        ["weights", "verify", "--json"],
        ["denoise", "a.png", "--weights", str(restorer), "-o", "local.png"],
        ["denoise", "a.png", "--weights", "org/restorer@main", "-o", "hub.png"],
    )
    assert [r.status for r in (fetched, where, listed, verified, local, ours)] == [0] * 6, ours.err
    path = hub.cached()
    assert fetched.lines == where.lines == [str(path)]
    assert path.read_bytes() == (restorer / "model.safetensors").read_bytes()
    row = json.loads(listed.lines[-1])
    assert (row["id"], row["state"], row["task"]) == (pinned, "cached", "denoise")
    assert json.loads(verified.lines[-1])["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (np.asarray(Image.open("local.png")) == np.asarray(Image.open("hub.png"))).all()
    assert hub.server.bodies == 1

    blob = path.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    wrong, named, other, unknown = hub.run(
        ["weights", "verify"],
        ["weights", "verify", "org/restorer"],
        ["weights", "verify", "tiny-2"],
        ["weights", "verify", "org/other"],
    )
    assert [r.status for r in (wrong, named, other, unknown)] == [1, 1, 0, 1]
    assert "tiny-2" in wrong.out.decode() and pinned not in wrong.out.decode()
    assert f"run pmavae weights fetch {pinned} --force" in named.err and "damaged" in named.err
    assert "org/other" in unknown.err

    repaired, again = hub.run(["weights", "fetch", pinned, "--force"], ["weights", "verify", pinned])
    assert (repaired.status, again.status) == (0, 0), repaired.err
    assert again.out.decode().startswith("ok  ")


def test_a_cached_reference_works_where_sockets_are_forbidden(hub: Hub, here: Path) -> None:
    picture((32, 32)).save("a.png")
    pinned = f"org/restorer@{hub.commit}"
    assert hub.run(["weights", "fetch", "org/restorer"])[0].status == 0
    asked = len(hub.server.requests)
    (here / "data").mkdir()
    for name in "ab":
        picture((128, 128), seed=ord(name)).save(f"data/{name}.png")
    alone = no_sockets(here / "site")
    bench = ["bench", "data", "--limit", "1", "--peers", "none", "--offline", "-q"]
    train = ["train", "--data", "data", "--offline"]
    results = hub.run(
        ["denoise", "a.png", "--weights", pinned, "-o", "pinned.png"],  # a commit needs no --offline
        ["denoise", "a.png", "--weights", pinned, "--offline", "-o", "b.png"],
        ["denoise", "a.png", "--weights", "org/restorer", "--offline", "-o", "c.png"],
        ["encode", "a.png", "--offline"],
        [*bench, "--task", "denoise", "--conditions", "noise25", "--weights", pinned],
        [*bench, "--perceptual", "none"],
        ["info", "a.png", "--offline"],
        ["compare", "a.png", "a.safetensors", "--offline"],
        ["weights", "list", "--offline"],
        ["weights", "verify", "--offline"],
        ["weights", "path", pinned, "--offline"],
        ["weights", "fetch", pinned, "--offline"],
        [*train, "--task", "denoise", "--init-from", "denoise-tiny-1", "--steps", "1", "--dry-run"],
        **alone,
    )
    assert [r.status for r in results] == [0] * len(results), [r.err for r in results if r.status]
    refused = hub.run(
        ["denoise", "a.png", "--weights", "org/never", "--offline", "-o", "d.png"],
        ["weights", "fetch", "org/never", "--offline"],
        [*train, "--init-from", "org/never", "--perceptual", "none"],
        [*train, "--perceptual", "vgg16"],
        **alone,
    )
    assert [r.status for r in refused] == [1] * 4
    assert all(len(r.err.splitlines()) == 1 for r in refused)
    assert all("org/never" in r.err and "offline" in r.err.lower() for r in refused[:3])
    assert "OFFLINE" in refused[3].err
    assert len(hub.server.requests) == asked


def test_the_installed_command_opens_no_socket_with_offline(installed: Command, hub: Hub, here: Path) -> None:
    picture((32, 32)).save("a.png")
    environment = hub.environment | no_sockets(here / "site")
    arguments = ["denoise", "a.png", "-o", "b.png", "--weights", "org/restorer"]
    # The guard does what it says: without --offline, the Hub is asked.
    assert installed(*arguments, env=environment).status == 99
    result = installed(*arguments, "--offline", env=environment)
    assert result.status == 1 and "pmavae weights fetch org/restorer" in result.err
    assert hub.server.requests == []


def test_a_download_has_a_bar_on_a_terminal_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, shown = on_a_terminal("weights", "fetch", "org/restorer")
    assert out.decode().splitlines() == [str(hub.cached())]
    assert b"org/restorer" in shown and "━".encode() in shown
    hub.cached().resolve().unlink()
    (silent,) = hub.run(["weights", "fetch", "org/restorer", "--force"])
    assert (silent.status, silent.err) == (0, "")


def test_an_interrupted_download_leaves_nothing_and_goes_on(hub: Hub) -> None:
    hub.server.fault = Fault(stall=60)
    command = [sys.executable, "-m", "pmavae_cli", "weights", "fetch", "org/restorer"]
    process = subprocess.Popen(command, env=hub.environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_until(lambda: hub.server.bodies, seconds=60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, b"", b"pmavae: interrupted")
    hub.server.fault = Fault()
    missing, fetched, verified = hub.run(
        ["weights", "path", "org/restorer"], ["weights", "fetch", "org/restorer"], ["weights", "verify"]
    )
    assert [r.status for r in (missing, fetched, verified)] == [1, 0, 0], fetched.err
    assert fetched.lines == [str(hub.cached())]


def test_a_manifest_entry_is_fetched_by_its_id_and_checked(hub: Hub, tmp_path: Path, restorer: Path) -> None:
    script = """
import json, sys
from pathlib import Path
from pmavae.errors import WeightsError
from pmavae.pretrained.manifest import Shelf, WeightsIndex
from pmavae_cli.console import Console
from pmavae_cli.progress import find_weights
manifest = Path(sys.argv[1])
index = WeightsIndex((Shelf.load(manifest, "plugin far"),))
for name, task in (("far-1", "base"), ("tiny", "denoise"), ("wrong-1", "base"), ("far-1", "base")):
    try:
        print(find_weights(name, task, index, Console()).path)
    except WeightsError as error:
        print(error)
"""
    sha256 = hashlib.sha256((restorer / "model.safetensors").read_bytes()).hexdigest()
    row = {
        **{"id": "far-1", "file": "far.safetensors", "preset": "tiny", "task": "denoise", "sha256": sha256},
        **{"parameters": 1, "repo": "org/restorer", "revision": hub.commit, "licence": "MIT", "data": ""},
        **{"recipe": {}, "scores": {}},
    }
    manifest = tmp_path / "manifest.json"
    rows = [row, row | {"id": "wrong-1", "sha256": "0" * 64, "preset": "small"}]
    manifest.write_text(json.dumps({"version": 1, "weights": rows}))
    done = subprocess.run(
        [sys.executable, "-c", script, str(manifest)], env=hub.environment, capture_output=True, text=True
    )
    first, second, wrong, again = done.stdout.splitlines()
    assert first == second == again == str(hub.cached())
    assert sha256 in wrong and "0" * 64 in wrong
    assert hub.server.bodies == 2  # the file was removed where it was not what the manifest says


def test_a_reference_is_no_file_that_an_output_could_replace(here: Path) -> None:
    (here / "org").mkdir()
    picture((32, 32)).save("a.png")
    options = RunOptions(weights="org/name", output="org/name", format="png", overwrite=True)
    plan = make_plan(load_plugins().tasks["decode"], 1, ["a.png"], [], options)
    assert [str(output.path) for job in plan.jobs for output in job.outputs] == ["org/name"]


def test_push_uploads_weights_and_a_card_and_nothing_else(hub: Hub, restorer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((restorer / "model.safetensors").read_bytes())
    (folder / "secret.txt").write_text("mine")
    before = sorted(folder.iterdir())
    first, second = hub.run(
        [
            "weights",
            "push",
            folder,
            "org/new",
            *["--private", "--message", "First", "--licence", "MIT", "--dataset", "org/pictures"],
        ],
        ["weights", "fetch", "org/new"],
        HF_TOKEN=TOKEN,
    )
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert first.lines[0].startswith(f"{hub.server.url}/org/new/commit/")
    assert sorted(folder.iterdir()) == before
    repo = hub.server.repos["org/new"]
    _, files = repo.at("main") or ("", {})
    assert repo.private and hub.server.messages == ["First"]
    assert set(files) - {".gitattributes"} == {"README.md", "config.json", "model.safetensors"}
    data = ModelCard(files["README.md"].decode()).data.to_dict()
    assert (data["license"], data["library_name"], data["datasets"]) == ("mit", "pmavae", ["org/pictures"])
    assert Path(second.lines[0]).read_bytes() == (restorer / "model.safetensors").read_bytes()


def test_a_card_of_the_user_is_pushed_as_it_is(hub: Hub, restorer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((restorer / "model.safetensors").read_bytes())
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    refused, pushed, none = hub.run(
        ["weights", "push", str(folder), "org/own", "--licence", "MIT"],
        ["weights", "push", str(folder), "org/own", "--revision", "next"],
        ["weights", "push", str(tmp_path), "org/own"],
        HF_TOKEN=TOKEN,
    )
    assert (refused.status, pushed.status, none.status) == (1, 0, 1), pushed.err
    assert "README.md" in refused.err and "no model.safetensors" in none.err
    _, files = hub.server.repos["org/own"].at("next") or ("", {})
    assert files["README.md"] == (folder / "README.md").read_bytes()


def test_without_a_token_a_push_is_one_sentence(hub: Hub, restorer: Path) -> None:
    (result,) = hub.run(["weights", "push", str(restorer), "org/new"])
    assert (result.status, result.out) == (1, b"")
    assert "HF_TOKEN" in result.err and len(result.err.splitlines()) == 1
    assert hub.server.requests == []


def test_offline_ends_with_the_command(pmavae: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    seen = []

    @click.command()
    @with_offline
    def look() -> None:
        seen.append((os.environ["HF_HUB_OFFLINE"], constants.is_offline_mode()))

    assert look.main(["--offline"], standalone_mode=False) is None
    assert seen == [("1", True)]
    assert pmavae("weights", "path", "tiny", "--offline").status == 0
    assert "HF_HUB_OFFLINE" not in os.environ and constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("task", ["bench", "compare", "info", "train", *load_plugins().tasks])
def test_every_command_takes_offline(pmavae: Command, task: str) -> None:
    assert "--offline" in pmavae(task, "--help").out.decode()
