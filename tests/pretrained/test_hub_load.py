"""The Hub's cache under load, under signals and without a network: each in processes of their own."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hub_fixtures import child_environment
from hub_server import Fault, HubServer, hub_server, wait_until
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.pretrained.weights import save_weights

FETCH = (
    "from pmavae.pretrained.hub import *; "
    "f = fetch(HubReference.parse('painter/large')); print(f.path, f.commit)"
)
# Any way to another computer, by whoever.
NO_SOCKETS = """
import socket
def refuse(*arguments, **options):
    raise RuntimeError("a socket was opened")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A Hub with a file of 3 MB, and with a small model."""
    folder = tmp_path_factory.mktemp("large")
    torch.manual_seed(0)
    save_weights(folder / "large.safetensors", {"a": torch.rand(1_500_000)}, CONFIG, "large-1")
    small = PMAVAE(CONFIG).save_pretrained(folder, "small-1")
    with hub_server() as server:
        server.repo("painter/large", {"model.safetensors": folder / "large.safetensors"})
        server.repo("painter/small", {"model.safetensors": small})
        yield server


def start(server: HubServer, cache: Path, code: str = FETCH, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=child_environment(server, cache, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(cache: Path, pattern: str) -> list[Path]:
    return list((cache / "hub").glob(f"models--painter--large/{pattern}"))


def test_eight_processes_fetch_one_file(server, tmp_path):
    server.fault, server.bodies = Fault(slow=0.3), 0  # so that all of them are there before it has arrived
    children = [start(server, tmp_path) for _ in range(8)]
    ends = [child.communicate(timeout=120) for child in children]
    server.fault = Fault()
    assert [child.returncode for child in children] == [0] * 8, ends
    assert len({out for out, _ in ends}) == 1 and {err for _, err in ends} == {""}
    path, commit = ends[0][0].split()
    expected = server.repos["painter/large"].commits[commit]["model.safetensors"]
    assert hashlib.sha256(Path(path).read_bytes()).digest() == hashlib.sha256(expected).digest()
    assert len(files(tmp_path, "blobs/*")) == 1, "something is left"
    assert server.bodies == 1, "the others wait for the first, by a lock"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_stopped_installs_nothing(server, tmp_path, number):
    server.fault = Fault(slow=30.0)
    child = start(server, tmp_path)
    try:
        # Half of the body is on its way: the client holds it back until a chunk of its own is full.
        wait_until(lambda: files(tmp_path, "blobs/*.incomplete"), 60)
        time.sleep(0.05)
        child.send_signal(number)
        child.communicate(timeout=60)
    finally:
        child.kill()
        server.fault = Fault()
    assert child.returncode == -number
    assert files(tmp_path, "snapshots/*/*") == []
    assert all(path.suffix == ".incomplete" for path in files(tmp_path, "blobs/*"))
    if number == signal.SIGINT:
        assert files(tmp_path, "blobs/*") == []
    again = start(server, tmp_path)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0 and err == ""
    assert (
        Path(out.split()[0]).read_bytes() == server.repos["painter/large"].at("main")[1]["model.safetensors"]
    )


def test_the_command_ends_with_130(server, tmp_path):
    server.fault = Fault(slow=30.0)
    code = (
        "import sys; from pmavae_cli.main import main; sys.exit(main(['weights', 'fetch', 'painter/large']))"
    )
    child = start(server, tmp_path, code)
    try:
        wait_until(lambda: files(tmp_path, "blobs/*.incomplete"), 60)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
        server.fault = Fault()
    assert (child.returncode, out) == (130, "") and "Traceback" not in err
    assert files(tmp_path, "blobs/*") == []


def test_offline_opens_no_socket(server, tmp_path):
    code = "from pmavae import PMAVAE; print(PMAVAE.from_pretrained({}).weights_id)"
    fetched = start(server, tmp_path, FETCH.replace("large", "small"))
    assert fetched.communicate(timeout=60)[1] == ""
    commit = server.repos["painter/small"].branches["main"]
    asked = len(server.requests)
    script = NO_SOCKETS + "\n".join(
        code.format(call)
        for call in (
            "'tiny'",
            f"'painter/small', revision='{commit}'",
            f"'painter/small@{commit}'",
            "'painter/small', offline=True",
        )
    )
    child = start(server, tmp_path, script)
    assert child.communicate(timeout=60) == ("tiny-2\nsmall-1\nsmall-1\nsmall-1\n", "")
    child = start(server, tmp_path, NO_SOCKETS + code.format("'painter/small'"), HF_HUB_OFFLINE="1")
    assert child.communicate(timeout=60) == ("small-1\n", "")
    child = start(server, tmp_path, NO_SOCKETS + FETCH)
    assert "a socket was opened" in child.communicate(timeout=60)[1], "the trap holds"
    assert len(server.requests) == asked


def test_neither_torch_nor_the_client_is_imported_before_it_is_needed(server, tmp_path):
    code = (
        "import sys, pmavae.pretrained.hub, pmavae.files.header; from pmavae.pretrained import manifest; "
        "manifest.released_weights(); "
        "print([n for n in ('torch', 'huggingface_hub') if n in sys.modules]); "
        "from pmavae.pretrained.hub import cached; print(len(cached()), 'torch' in sys.modules)"
    )
    child = start(server, tmp_path, code)
    assert child.communicate(timeout=60) == ("[]\n0 False\n", "")
