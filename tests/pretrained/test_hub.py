"""Weights on the Hub: what is fetched is checked, what goes wrong is one sentence with a remedy.

The client is the real one, the server a local one.
"""

import hashlib
import json
import logging
import resource
import shutil
import socket
import threading
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from hub_fixtures import local_hub
from hub_server import TOKEN, Fault
from safetensors.torch import save_file
from small_config import CONFIG
from small_restorers import untrained

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.pretrained import hub
from pmavae.pretrained.hub import HubError, HubReference, cached, fetch, push
from pmavae.pretrained.manifest import Shelf, WeightsIndex, read_manifest
from pmavae.pretrained.network import load_task_model
from pmavae.pretrained.resolve import Found, resolve
from pmavae.pretrained.weights import save_weights

NAME = HubReference("painter/small")
STATE = {"a.weight": torch.tensor([[0.5, -1.25]])}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of a few thousand parameters."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    PMAVAE(CONFIG).save_pretrained(folder, "small-1")
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch, model):
    """A Hub with the model as painter/small, and an empty cache."""
    with local_hub(tmp_path / "home", monkeypatch) as server:
        server.repo(NAME.repo, {"model.safetensors": model / "model.safetensors", "README.md": b"# small\n"})
        yield server


def blobs(folder: Path) -> list[Path]:
    """All files in a cache that are not links, locks or notes of the client."""
    hidden = {".locks", "refs", ".no_exist"}
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not hidden & set(path.parts)
        and path.name != "CACHEDIR.TAG"
    ]


def sentence(*arguments, **options) -> str:
    """The error of fetching, which is one line."""
    with pytest.raises(HubError) as caught:
        fetch(*(arguments or (NAME,)), **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubReference("org/name")),
        ("org/name@v1.0", HubReference("org/name", "v1.0")),
        ("org/name@refs/pr/1", HubReference("org/name", "refs/pr/1")),
        ("org/name:sub/w.safetensors", HubReference("org/name", None, "sub/w.safetensors")),
        ("o-r.g/n_a-me@main:w.safetensors", HubReference("o-r.g/n_a-me", "main", "w.safetensors")),
        ("tiny", None),
        ("./org/name", None),
        ("../name", None),
        ("/org/name", None),
        ("org/name/more", None),
        ("org/name@", None),
        ("org/name:", None),
        ("org/a--b", None),
        ("org/name:../w.safetensors", None),
        ("C:\\org\\name", None),
        ("C:/name", None),
        ("https://host/name", None),
        ("~/name", None),
        ("org/na me", None),
    ],
)
def test_references(text, expected):
    assert HubReference.parse(text) == expected
    if expected is not None:
        assert str(expected) == text


def test_a_file_is_fetched_once_and_found_again(server, model, capfd):
    commit = server.repos[NAME.repo].branches["main"]
    fetched = fetch(NAME)
    assert fetched.path.read_bytes() == (model / "model.safetensors").read_bytes()
    assert (fetched.commit, fetched.note, server.bodies) == (commit, "", 1)
    assert cached() == [hub.Fetched(fetched.path, HubReference(NAME.repo, commit), commit)]
    server.requests.clear()
    assert fetch(NAME) == fetched
    assert [method for method, _, _ in server.requests] == ["HEAD"] and server.bodies == 1
    assert fetch(NAME, force=True).path == fetched.path and server.bodies == 2
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_shown_where_one_is_given(server):
    from tqdm import tqdm

    seen = []

    class Bar(tqdm):
        def update(self, n=1):
            seen.append(n)

    fetch(NAME, tqdm_class=Bar)
    assert sum(seen) == fetch(NAME).path.stat().st_size


def test_revisions_and_files(server, model):
    repo = server.repos[NAME.repo]
    old = repo.branches["main"]
    other = model / "model.safetensors"
    repo.commit({"sub/other.safetensors": other.read_bytes()}, "next")
    assert "has no file sub/other.safetensors at main" in sentence(
        HubReference(NAME.repo, None, "sub/other.safetensors")
    )
    fetched = fetch(HubReference(NAME.repo, "next", "sub/other.safetensors"))
    assert fetched.commit == repo.branches["next"] != old
    assert fetch(HubReference(NAME.repo, old)).commit == old
    assert [found.reference.file for found in cached() if found.commit != old] == ["sub/other.safetensors"]


def test_a_branch_that_moves_is_followed(server):
    first = fetch(NAME)
    second = PMAVAE(CONFIG)
    path = first.path.parents[4] / "second"
    server.repos[NAME.repo].commit(
        {"model.safetensors": second.save_pretrained(path, "small-2").read_bytes()}
    )
    assert fetch(NAME).commit != first.commit
    assert fetch(HubReference(NAME.repo, first.commit)) == hub.Fetched(
        first.path, HubReference(NAME.repo, first.commit), first.commit
    )


def forbid_sockets(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_pinned_commit_in_the_cache_needs_no_network(server, monkeypatch):
    commit = fetch(NAME).commit
    server.requests.clear()
    forbid_sockets(monkeypatch)
    assert fetch(HubReference(NAME.repo, commit)).commit == commit
    assert fetch(NAME, offline=True).commit == commit
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(NAME).commit == commit
    assert server.requests == []


def test_offline_says_what_is_not_in_the_cache(server, monkeypatch):
    forbid_sockets(monkeypatch)
    for options in ({"offline": True}, {}):
        message = sentence(**options)
        assert (
            "painter/small is not in the cache" in message and "pmavae weights fetch painter/small" in message
        )
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "cannot be fetched again without the network" in sentence(offline=True, force=True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=401, code="GatedRepo"), ["painter/small is gated", "accept its terms", "HF_TOKEN"]),
        (Fault(status=403, code="GatedRepo"), ["painter/small is gated"]),
        (Fault(status=401), ["no public repository painter/small", "HF_TOKEN"]),
        (Fault(status=404, code="RepoNotFound"), ["no public repository painter/small"]),
        (Fault(status=404, code="RevisionNotFound"), ["has no revision main", "branch, tag or commit"]),
        (Fault(status=404, code="EntryNotFound"), ["has no file model.safetensors at main", ":FILE"]),
        (Fault(status=403), ["is not for everyone", "HF_TOKEN"]),
        (Fault(status=429, retry_after=77), ["too many requests", "in 77 seconds", "HF_TOKEN"]),
        (Fault(status=429), ["too many requests", "try again later"]),
        (Fault(status=500), ["out of order (status 500)", "try again later"]),
        (Fault(status=503), ["out of order (status 503)"]),
        (Fault(status=418), ["refuses the request (status 418)"]),
        (Fault(reset=True), ["the connection broke off", "try again"]),
        (Fault(no_commit=True), ["not as the Hub does", "HF_ENDPOINT"]),
    ],
)
def test_each_refusal_is_a_sentence_with_a_remedy(server, fault, words, capfd):
    server.fault = fault
    message = sentence()
    assert message.startswith("painter/small was not fetched: ")
    for word in words:
        assert word in message
    assert capfd.readouterr() == ("", "")
    assert cached() == []


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429, retry_after=77), Fault(reset=True)])
def test_the_cache_helps_where_the_server_fails(server, fault, caplog):
    path = fetch(NAME).path
    server.fault = fault
    fetched = fetch(NAME)
    assert fetched.path == path
    assert fetched.note.startswith("painter/small is taken from the cache as it was last seen: ")
    with caplog.at_level(logging.WARNING):
        assert resolve("painter/small@main").path == path
    assert "as it was last seen" in caplog.text
    assert sentence(force=True).startswith("painter/small was not fetched")


@pytest.mark.parametrize("fault", [Fault(status=401), Fault(status=404, code="RepoNotFound")])
def test_the_cache_does_not_hide_a_refusal(server, fault):
    fetch(NAME)
    server.fault = fault
    assert "there is no public repository" in sentence()


def test_tokens(server, monkeypatch):
    server.repos[NAME.repo].private = True
    assert "no public repository painter/small" in sentence()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = sentence()
    assert "refuses the token" in message and "hf_wrong" not in message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.requests.clear()
    fetch(NAME)
    told = [("objects" in path, "authorization" in headers) for _, path, headers in server.requests]
    assert (False, True) in told and (True, True) not in told, "the token went to another server"
    server.fault = Fault(status=403, message="a word with " + TOKEN)
    message = sentence(force=True)
    assert "the token may not read painter/small" in message and TOKEN not in message
    server.fault = Fault()
    assert "no repository painter/none that the token may see" in sentence(HubReference("painter/none"))


def test_a_token_that_cannot_be_sent_is_not_printed(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_séçret")
    assert "hf_séçret" not in sentence()


def test_no_network(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    from huggingface_hub import constants

    for host, words in (
        (f"http://127.0.0.1:{port}", "cannot be reached (Connection refused); check the network"),
        ("http://hub.invalid", "cannot be reached"),
    ):
        monkeypatch.setattr(constants, "ENDPOINT", host)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", host + "/{repo_id}/resolve/{revision}/{filename}"
        )
        message = sentence()
        assert words in message and "give its path" in message


def test_a_proxy_that_is_not_there(server, monkeypatch):
    from huggingface_hub.utils import close_session

    close_session()
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    message = sentence()
    assert message.startswith("painter/small was not fetched: ") and "secret" not in message
    assert "cannot be reached" in message or "proxy" in message


def test_a_body_that_breaks_off_is_taken_up_again(server, monkeypatch):
    from huggingface_hub import constants

    # The client keeps whole chunks of a broken download only; of a smaller file, nothing.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    server.fault = Fault(cut=1000, cuts=3)
    assert fetch(NAME).path.is_file()
    ranges = [headers.get("range") for _, path, headers in server.requests if "objects" in path]
    assert ranges == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]


def test_a_body_that_always_breaks_off(server, tmp_path):
    server.fault = Fault(cut=1000)
    assert "the connection broke off before all of it was here; try again" in sentence()
    assert server.bodies > 1 and blobs(tmp_path / "home") == []
    server.fault = Fault()
    assert fetch(NAME).path.is_file()


def test_a_stall_ends(server, monkeypatch):
    from huggingface_hub import constants

    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.02)
        server.fault = Fault(hang=0.3)
        assert "does not answer in time" in sentence()
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.02)
    server.fault = Fault(stall=0.3)
    message = sentence()
    assert "does not answer in time" in message and "HF_HUB_DOWNLOAD_TIMEOUT" in message
    server.fault = Fault()
    assert fetch(NAME).path.is_file()


@pytest.mark.parametrize("links", [True, False])
def test_a_corrupted_body_of_the_right_size_is_removed(server, model, tmp_path, monkeypatch, links):
    if not links:  # as on Windows
        monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda folder: False)
    good = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    server.fault = Fault(corrupt=True)
    for options in ({}, {"sha256": good}):
        message = sentence(**options)
        bad = message.split("its SHA-256 is ")[1].split(",")[0]
        assert len(bad) == 64 and bad != good and f"not {good}" in message and "was removed" in message
        assert blobs(tmp_path / "home") == [] and cached() == []
    server.fault = Fault()
    assert fetch(NAME, sha256=good).path.is_file()


def test_what_no_one_foresaw_is_one_line_without_secrets(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def fail(*arguments, **options):
        raise RuntimeError(f"two\nlines {TOKEN} https://a:b@host/path?Signature=abc")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    message = sentence()
    assert message.endswith("RuntimeError: two lines … https://…host/path?…; try again")


def test_another_file_than_the_manifest_means_is_removed(server, tmp_path):
    message = sentence(sha256="0" * 64)
    assert "not " + "0" * 64 in message
    assert blobs(tmp_path / "home") == [] and cached() == []


def test_a_file_that_was_damaged_in_the_cache_is_removed(server):
    fetched = fetch(NAME)
    blob = fetched.path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x7f")
    assert "was removed, fetch it again" in sentence(HubReference(NAME.repo, fetched.commit), offline=True)
    assert not blob.exists() and not fetched.path.is_symlink()
    assert fetch(HubReference(NAME.repo, fetched.commit)).path == fetched.path


def test_nothing_but_safetensors_is_asked_for(server, tmp_path):
    for file in ("pytorch_model.bin", "model.pth", "model.safetensors.bin", "README.md"):
        assert "is no safetensors file, and nothing else is read" in sentence(
            HubReference(NAME.repo, None, file)
        )
    for file in ("../w.safetensors", "/w.safetensors", "a\\w.safetensors", "a\nb.safetensors"):
        with pytest.raises(HubError, match="names no file in a repository"):
            fetch(HubReference(NAME.repo, None, file))
    assert server.requests == []
    save_file(STATE, tmp_path / "other.safetensors")
    server.repo("other/model", {"model.safetensors": tmp_path / "other.safetensors"})
    assert "other/model is no weights file of pmavae" in sentence(HubReference("other/model"))
    assert cached() == []


def test_a_file_that_no_model_needs_is_not_fetched(server):
    server.fault = Fault(size=10**12)
    assert "has 1000000000000 bytes, more than weights can have" in sentence()
    assert server.bodies == 0
    server.fault = Fault(size=2000)
    assert "the connection broke off" in sentence(), "the size is not what was said"


def test_a_full_disk(server, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 10))
        assert "there is no room for it in" in sentence()
        assert server.bodies == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # a write beyond it fails, as on a full disk
    try:
        message = sentence()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "there is no room for it in" in message and "HF_HOME" in message
    assert blobs(tmp_path / "home") == []
    assert fetch(NAME).path.is_file()


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    from huggingface_hub import constants

    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    message = sentence()
    assert f"{tmp_path}/file/hub cannot be written (Not a directory)" in message and "HF_HOME" in message


def test_an_interrupt_leaves_nothing_and_the_next_try_is_right(server, tmp_path):
    from tqdm import tqdm

    class Interrupting(tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, tqdm_class=Interrupting)
    assert blobs(tmp_path / "home") == [] and cached() == []
    assert fetch(NAME).path.is_file()


def test_eight_threads_fetch_one_file_and_leave_the_client_as_it_was(server):
    from huggingface_hub.utils import are_progress_bars_disabled

    before = logging.getLogger("huggingface_hub").level, are_progress_bars_disabled(), list(warnings.filters)
    server.fault = Fault(slow=0.1)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(NAME))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert server.bodies == 1
    assert (
        logging.getLogger("huggingface_hub").level,
        are_progress_bars_disabled(),
        warnings.filters,
    ) == before


# Look-up.


def test_a_name_is_a_file_then_an_id_then_a_reference(server, here, model, monkeypatch):
    assert resolve("tiny").entry.preset == "tiny" and server.requests == []
    found = resolve("painter/small")
    path, entry = found.path, found.entry
    assert path == fetch(NAME).path and entry is None
    shutil.copytree(model, "painter/small")
    server.requests.clear()
    assert resolve("painter/small") == Found(Path("painter/small/model.safetensors"))
    assert server.requests == []


def test_a_slip_in_a_path_is_no_question_to_a_server(server, here):
    Path("painter").mkdir()
    for name in ("painter/small", "runs/w.safetensors", "runs/w.pth"):
        with pytest.raises(WeightsError, match=f"there is no file or folder {name}: .* {name}@main"):
            resolve(name)
    assert server.requests == []
    assert resolve("painter/small@main").path.is_file()


def test_revision_as_an_argument(server, here):
    commit = server.repos[NAME.repo].branches["main"]
    assert resolve("painter/small", revision=commit).path.parts[-2] == commit
    for name, revision, words in (
        ("painter/small@main", "v1", "another revision than v1"),
        ("painter/small", "../x", "is no revision of painter/small"),
        ("tiny", "v1", "tiny is no org/name on the Hub"),
    ):
        with pytest.raises(WeightsError, match=words):
            resolve(name, revision=revision)


def test_an_entry_without_a_file_is_fetched_and_checked(server, tmp_path, model):
    data = (model / "model.safetensors").read_bytes()
    row = {
        "id": "small-1",
        "file": "small-1.safetensors",
        "preset": "small-one",
        "task": "base",
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": 4,
        "repo": NAME.repo,
        "revision": server.repos[NAME.repo].branches["main"],
        "licence": "MIT",
        "data": "none",
        "recipe": {},
        "scores": {},
    }

    def index(**changes) -> WeightsIndex:
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({"version": 1, "weights": [row | changes]}))
        return WeightsIndex((Shelf(tmp_path, "tests", read_manifest(path)),))

    with pytest.raises(HubError, match="is not in the cache"):
        resolve("small-1", index=index(), offline=True)
    entry = resolve("small-one", index=index()).entry
    assert entry is not None and entry.id == "small-1" and server.bodies == 1
    assert PMAVAE.from_pretrained("small-1", index(), offline=True).weights_id == "small-1"
    with pytest.raises(HubError, match=r"has no file small\.safetensors"):
        resolve("small-1", index=index(repo_file="small.safetensors"))
    with pytest.raises(HubError, match="not " + "0" * 64):
        resolve("small-1", index=index(sha256="0" * 64))
    for changes, words in (
        ({"repo": "no-slash"}, "repo is not valid"),
        ({"revision": "a b"}, "revision is not valid"),
        ({"repo_file": "model.bin"}, "repo_file is not valid"),
        ({"repo_file": "../m.safetensors"}, "repo_file is not valid"),
        ({"repo": None}, "revision is not valid"),
    ):
        with pytest.raises(WeightsError, match=words):
            index(**changes)
    save_weights(tmp_path / "small-1.safetensors", STATE, CONFIG, "small-1")
    server.requests.clear()
    assert resolve("small-1", index=index()).path == tmp_path / "small-1.safetensors"
    assert server.requests == []


# The model class.


def test_from_pretrained_of_the_hub(server, model, capfd):
    mine = PMAVAE.from_pretrained(model)
    theirs = PMAVAE.from_pretrained("painter/small", revision="main")
    assert theirs.weights_id == "small-1" and theirs.weights_sha256 == mine.weights_sha256
    for name, tensor in mine.state_dict().items():
        assert tensor.equal(theirs.state_dict()[name])
    server.requests.clear()
    PMAVAE.from_pretrained("painter/small", offline=True)
    assert server.requests == []
    assert capfd.readouterr() == ("", "")


def test_the_network_of_a_task_comes_from_the_hub(server, tmp_path):
    path = tmp_path / "denoise"
    untrained("denoise").save_pretrained(path, "denoise-1")
    server.repo("painter/denoise", {"model.safetensors": path / "model.safetensors"})
    assert load_task_model("painter/denoise@main", "denoise").weights_id == "denoise-1"
    with pytest.raises(WeightsError, match="has weights of the task denoise"):
        PMAVAE.from_pretrained("painter/denoise")


def test_save_pretrained_writes_what_the_ecosystem_knows(model):
    config = json.loads((model / "config.json").read_text())
    assert config["library_name"] == "pmavae" and config["architecture"] == 1
    assert (config["id"], config["preset"], config["config"]) == ("small-1", "test", CONFIG.to_dict())
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": 2}, "is of architecture version 2, .* and this pmavae have 1"),
        ({"id": "other-1"}, "are not of one model: id is 'other-1' here and 'small-1' there"),
        ({"config": CONFIG.to_dict() | {"d_state": 4}}, "that of d_state, 4 here and 1 there"),
        ({"config": None}, "are not of one model: config is"),
    ],
)
def test_a_config_that_contradicts_is_refused(tmp_path, model, change, words):
    shutil.copytree(model, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=words):
        PMAVAE.from_pretrained(tmp_path / "copy")
    path.write_text('{"task": "base", "steps": 10}')  # a training's
    assert PMAVAE.from_pretrained(tmp_path / "copy").weights_id == "small-1"


def test_the_configuration_of_a_training_is_not_written_over(tmp_path, model):
    (tmp_path / "config.json").write_text('{"task": "base", "steps": 10}')
    with pytest.raises(WeightsError, match="is the configuration of something else"):
        PMAVAE.from_pretrained(model).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_another_architecture_version_is_refused_with_both_named(server, tmp_path):
    header = {"format": "weights", "architecture": 7, "config": CONFIG.to_dict(), "id": "late-1"}
    save_file(STATE, tmp_path / "model.safetensors", {"pmavae": json.dumps(header)})
    server.repo("late/model", {"model.safetensors": tmp_path / "model.safetensors"})
    with pytest.raises(WeightsError, match="is of architecture version 7, this pmavae has 1"):
        PMAVAE.from_pretrained("late/model")


def test_unknown_and_missing_tensors_are_refused(server, tmp_path, model):
    state = PMAVAE.from_pretrained(model).state_dict()
    for change, name in (({"evil.weight": torch.ones(1)}, "evil.weight"), ({}, sorted(state)[0])):
        changed = dict(state) | change
        if not change:
            del changed[name]
        save_weights(tmp_path / "model.safetensors", changed, CONFIG, "odd-1")
        server.repo("odd/model", {"model.safetensors": tmp_path / "model.safetensors"})
        with pytest.raises(WeightsError, match=name):
            PMAVAE.from_pretrained("odd/model")


def test_a_pickle_beside_it_is_never_read(server, tmp_path):
    server.repo("old/model", {"pytorch_model.bin": b"\x80\x02}q\x00."})
    with pytest.raises(HubError, match=r"old/model has no file model\.safetensors"):
        PMAVAE.from_pretrained("old/model")
    assert all("pytorch_model" not in path for _, path, _ in server.requests)


def test_the_python_of_the_page(server, model, here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text("utf-8")
    server.repo("org/name", {"model.safetensors": model / "model.safetensors"})
    server.repos["org/name"].branches["v2"] = server.repos["org/name"].branches["main"]
    names: dict[str, object] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert server.repos["org/mine"].private and str(names["url"]).startswith(f"{server.url}/org/mine/commit/")
    assert PMAVAE.from_pretrained("org/mine").weights_id == PMAVAE.from_pretrained("mine").weights_id


# Pushing.


def test_a_model_is_pushed_with_a_card_and_comes_back(server, model, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    mine = PMAVAE.from_pretrained(model)
    url = mine.push_to_hub("painter/mine", private=True, message="First")
    repo = server.repos["painter/mine"]
    commit, files = repo.at("main")
    assert url == f"{server.url}/painter/mine/commit/{commit}"
    assert repo.private and server.messages == ["First"]
    assert sorted(files) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
    card = files["README.md"].decode()
    assert card.startswith("---\n") and "library_name: pmavae" in card
    assert json.loads(files["config.json"])["id"] == "small-1"
    assert capfd.readouterr() == ("", "")
    back = PMAVAE.from_pretrained("painter/mine", revision=commit)
    assert back.weights_sha256 == mine.weights_sha256
    mine.push_to_hub("painter/mine", revision="next")
    assert repo.branches["next"] != commit == repo.branches["main"]


def test_only_the_model_of_a_folder_is_pushed(server, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    shutil.copy(model / "model.safetensors", tmp_path)
    for name in ("optimizer.pth", "config.json", "secret.txt"):
        (tmp_path / name).write_text("{}")
    push(tmp_path, "painter/mine")
    files = server.repos["painter/mine"].at("main")[1]
    assert sorted(files) == [".gitattributes", "config.json", "model.safetensors"]
    assert files["config.json"] == (model / "config.json").read_bytes()


def test_what_cannot_be_pushed(server, model, tmp_path, monkeypatch):
    def refused(folder=model, repo="painter/mine"):
        with pytest.raises(HubError) as caught:
            push(folder, repo)
        assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)
        return str(caught.value)

    assert "there is no token; set HF_TOKEN or run hf auth login" in refused()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "is no repository of the Hub: write it as org/name" in refused(repo="mine")
    assert "is no repository of the Hub" in refused(repo="painter/mine@main")
    assert "is no weights file of pmavae" in refused(tmp_path)
    assert server.requests == []
    for fault, words in (
        (Fault(status=403), "the token may not write to painter/mine"),
        (Fault(status=500), "out of order (status 500)"),
        (Fault(status=429, retry_after=5), "in 5 seconds"),
        (Fault(reset=True), "the connection broke off"),
    ):
        server.fault = fault
        message = refused()
        assert "model.safetensors to painter/mine was not pushed: " in message and words in message
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "without the network" in refused()
