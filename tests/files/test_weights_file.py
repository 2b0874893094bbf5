"""Weights files and the manifest: what is saved is loaded, what is not ours is refused by name."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_config import CONFIG

from pmavae.errors import WeightsError
from pmavae.pretrained import manifest
from pmavae.pretrained.manifest import Shelf, WeightsEntry, WeightsIndex, read_manifest, weights_folder
from pmavae.pretrained.resolve import Found, resolve
from pmavae.pretrained.weights import load_weights, save_weights

STATE = {"a.weight": torch.tensor([[0.5, -1.25]]), "a.bias": torch.tensor([3.0]), "scale": torch.tensor(2.0)}
ROW = {
    "id": "test-1",
    "file": "test-1.safetensors",
    "preset": "test",
    "task": "base",
    "sha256": "0" * 64,
    "parameters": 4,
    "licence": "MIT",
    "data": "none",
    "recipe": {"steps": 0},
    "scores": {"kodak_psnr": 28.7},
    "repo": None,
    "revision": None,
    "repo_file": None,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A weights folder with one released file, in place of the real one."""
    save_weights(tmp_path / ROW["file"], STATE, CONFIG, "test-1")
    digest = hashlib.sha256((tmp_path / ROW["file"]).read_bytes()).hexdigest()
    write_manifest(tmp_path, [ROW | {"sha256": digest}])
    monkeypatch.setattr(manifest, "weights_folder", lambda: tmp_path)
    return tmp_path


def write_manifest(folder, rows, version=1):
    path = folder / "manifest.json"
    path.write_text(json.dumps({"version": version, "weights": rows}), "utf-8")
    return path


def save_raw(path, tensors=STATE, **changes):
    header = {"format": "weights", "architecture": 1, "config": CONFIG.to_dict(), "id": "test-1"} | changes
    save_file(tensors, path, {"pmavae": json.dumps(header)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_round_trip(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    save_weights(path, STATE, CONFIG, "test-1", dtype)
    loaded = load_weights(path)
    assert (loaded.config, loaded.id) == (CONFIG, "test-1")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.state.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(loaded.state[name], tensor) and loaded.state[name].dtype == torch.float32


def test_the_same_weights_give_the_same_bytes(tmp_path):
    save_weights(tmp_path / "a", STATE, CONFIG, "test-1")
    save_weights(tmp_path / "b", dict(reversed(STATE.items())), CONFIG, "test-1")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": 2}, "is of architecture version 2, this pmavae has 1"),
        ({"architecture": None}, "is of architecture version None, this pmavae has 1"),
        ({"format": "latent"}, "not a pmavae weights file (its format is 'latent')"),
        ({"id": ""}, "its header is not valid"),
        ({"more": 1}, "its header is not valid"),
        ({"config": []}, "its configuration is not valid"),
        ({"config": {}}, "a configuration that does not fit this pmavae"),
        ({"config": CONFIG.to_dict() | {"heads": 4}}, "unknown configuration fields: heads"),
        ({"config": CONFIG.to_dict() | {"base_channels": 10**9}}, "has base_channels = 1000000000"),
        ({"config": CONFIG.to_dict() | {"base_channels": "4"}}, "has base_channels = '4'"),
        ({"config": CONFIG.to_dict() | {"encoder_blocks": [1, 1, 1]}}, "has encoder_blocks = [1, 1, 1]"),
        ({"config": CONFIG.to_dict() | {"encoder_mlp_ratio": 1e9}}, "has encoder_mlp_ratio = 1000000000.0"),
        ({"config": CONFIG.to_dict() | {"style_channels": 12}}, "style_channels=12 cannot hold"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, changes, message):
    save_raw(tmp_path / "w.safetensors", **changes)
    with pytest.raises(WeightsError) as caught:
        load_weights(tmp_path / "w.safetensors")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "w.safetensors"))


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_raw(path, {"a": torch.tensor([1.0, torch.nan])})
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged: 'a' has values that are not finite"):
        load_weights(path)
    path.unlink()
    with pytest.raises(WeightsError, match=r"w\.safetensors was not written: a has values .* in float16"):
        save_weights(path, {"a": torch.tensor([1e6])}, CONFIG, "test-1")
    assert not path.exists()


def test_an_id_that_could_not_be_read_back_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="is no id"):
        save_weights(tmp_path / "w.safetensors", STATE, CONFIG, "two\nlines")


def test_foreign_truncated_and_missing_files_are_refused(tmp_path, folder):
    path = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match=r"w\.safetensors cannot be read: No such file"):
        load_weights(path)
    save_file(STATE, path)
    with pytest.raises(WeightsError, match="is a safetensors file but not a pmavae weights file"):
        load_weights(path)
    path.write_bytes((folder / ROW["file"]).read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"w\.safetensors is truncated"):
        load_weights(path)
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_weights(path)


def test_a_changed_file_is_refused(folder):
    found = resolve("test")
    path, entry = found.path, found.entry
    assert load_weights(path, entry).id == "test-1"
    save_weights(path, STATE | {"a.bias": torch.tensor([4.0])}, CONFIG, "test-1")
    with pytest.raises(WeightsError, match=r"test-1\.safetensors is damaged or was changed"):
        load_weights(path, entry)


def test_names_resolve_to_files(folder, tmp_path_factory):
    released = folder / ROW["file"]
    other = tmp_path_factory.mktemp("other")
    save_weights(other / "model.safetensors", STATE, CONFIG, "mine")
    for name in ("test", "test-1"):
        found = resolve(name)
        assert found.path == released and found.entry is not None and found.entry.id == "test-1"
    assert resolve(other) == Found(other / "model.safetensors")
    assert resolve(str(other / "model.safetensors")) == Found(other / "model.safetensors")
    assert resolve(found) is found


def test_unknown_names_list_the_known_ones(folder):
    with pytest.raises(WeightsError, match=r"no weights huge: .* the released weights \(test, test-1\)"):
        resolve("huge")
    write_manifest(folder, [])
    with pytest.raises(WeightsError, match=r"the released weights \(none\)"):
        resolve("test")


def test_a_released_file_that_is_gone_is_named(folder):
    (folder / ROW["file"]).unlink()
    with pytest.raises(WeightsError, match=r"the weights test-1 are not at .*: install pmavae again"):
        resolve("test")


def test_only_base_weights_stand_for_a_preset(folder):
    index = WeightsIndex((Shelf.load(write_manifest(folder, [ROW | {"task": "denoise"}]), "pmavae"),))
    assert index.find("test") is None
    assert index.find("test-1") == WeightsEntry(**ROW | {"task": "denoise"})
    assert index.names() == ["test-1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 63}, "entry 2: sha256 is not valid"),
        ({"file": "../w.safetensors"}, "entry 2: file is not valid"),
        ({"parameters": 0}, "entry 2: parameters is not valid"),
        ({"scores": []}, "entry 2: scores is not valid"),
        ({"repo": 1}, "entry 2: repo is not valid"),
        ({"license": "MIT"}, "entry 2: missing or unknown fields: license"),
        ({"id": "test-0"}, "lists test-0 more than once"),
    ],
)
def test_a_wrong_manifest_row_is_named(tmp_path, change, message):
    path = write_manifest(tmp_path, [ROW | {"id": "test-0"}, ROW | change])
    with pytest.raises(WeightsError, match=r"manifest\.json") as caught:
        read_manifest(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a weights manifest"),
        ('{"version": 1}', "is not a weights manifest"),
        ('{"version": 2, "weights": []}', "is of version 2, this pmavae reads 1"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, text, message):
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        read_manifest(path)
    path.unlink()
    with pytest.raises(WeightsError, match=r"manifest\.json cannot be read"):
        read_manifest(path)


def test_the_row_in_these_tests_has_every_field():
    assert list(ROW) == [f.name for f in dataclasses.fields(WeightsEntry)]


def test_the_shipped_manifest_and_its_files_agree():
    folder = weights_folder()
    manifest = read_manifest(folder / "manifest.json")
    for entry in manifest:
        loaded = load_weights(folder / entry.file, entry)
        assert (loaded.id, loaded.config.preset) == (entry.id, entry.preset)
        assert sum(t.numel() for t in loaded.state.values()) == entry.parameters
    assert {p.name for p in Path(folder).glob("*.safetensors")} == {entry.file for entry in manifest}
