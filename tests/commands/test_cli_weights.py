"""`pmavae weights`: what there is, and whether it is sound."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from pmavae.pretrained.hub import Fetched, HubReference
from pmavae.pretrained.manifest import Shelf, WeightsIndex, released_weights
from pmavae_cli.commands.weights.command import weights as weights_group
from pmavae_cli.commands.weights.listing import all_weights, short_scores, show, verify

DOCS = Path(__file__).parents[2] / "docs"
INDEX = released_weights()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache with nothing in it, for commands in this process."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_list_tells_all_of_the_shipped_weights(pmavae: Command, empty_cache: Path) -> None:
    result = pmavae("weights", "list", "--json")
    rows = [json.loads(line) for line in result.lines]
    assert [row["id"] for row in rows] == [entry.id for entry in INDEX.entries]
    for row, entry in zip(rows, INDEX.entries, strict=True):
        path = INDEX.path(entry)
        assert row["state"] == "shipped" and Path(row["path"]) == path
        assert row["bytes"] == path.stat().st_size
        for name in ("preset", "task", "licence", "scores", "sha256", "parameters"):
            assert row[name] == getattr(entry, name), name
    table = pmavae("weights", "list").lines
    assert table[0].split() == ["id", "preset", "task", "size", "licence", "scores", "sha256", "state"]
    assert len(table) == 1 + len(rows)
    assert all(
        row["sha256"][:8] in line and row["id"] in line for row, line in zip(rows, table[1:], strict=True)
    )


def an_index(folder: Path, **changes: Any) -> WeightsIndex:
    """An index of one entry whose file is nowhere, and which is at org/restorer."""
    entry = replace(INDEX.entries[0], id="far-1", file="far-1.safetensors", repo="org/restorer", **changes)
    return WeightsIndex((Shelf(folder, "plugin far", (entry,)),))


def test_list_tells_what_is_remote_cached_or_missing(tmp_path: Path, restorer: Path) -> None:
    data = (restorer / "model.safetensors").read_bytes()
    sha256, commit = hashlib.sha256(data).hexdigest(), "a" * 40
    blob = tmp_path / sha256
    blob.write_bytes(data)
    (link := tmp_path / "model.safetensors").symlink_to(blob)
    here = Fetched(link, HubReference("org/restorer", commit, None), commit)
    index = an_index(tmp_path, sha256=sha256, revision=commit)
    (row,) = all_weights(index, [])
    assert (row.state, row.bytes, row.origin) == ("remote", None, "plugin far")
    assert row.cells()[3] == "~2.5 MB"
    (row,) = all_weights(index, [here])
    assert (row.state, row.path, row.bytes) == ("cached", str(link), len(data))
    # What no manifest knows is told by its own header.
    (_, row) = all_weights(WeightsIndex(an_index(tmp_path, revision="b" * 40).shelves), [here])
    assert (row.id, row.state) == (f"org/restorer@{commit}", "cached")
    assert (row.task, row.preset, row.sha256) == ("denoise", "test", sha256)
    entry = replace(INDEX.entries[0], file="gone.safetensors")
    (row,) = all_weights(WeightsIndex((Shelf(tmp_path, "x", (entry,)),)), [])
    assert row.state == "missing"


def test_a_terminal_gets_all_of_every_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows = all_weights(INDEX, [])
    show([*rows, replace(rows[0], id="[red]odd[/]")])
    shown = capsys.readouterr().out
    for row in rows:
        assert row.id in shown and (row.sha256 or "")[:8] in shown
    assert "[red]odd[/]" in shown


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({}, "-"),
        ({"psnr": 30.117}, "psnr 30.117"),
        ({"a": None}, "-"),
        ({"a": 1, "b": 2, "c": None}, "a 1 +2"),
    ],
)
def test_scores_in_short(scores: dict[str, Any], told: str) -> None:
    assert short_scores(scores) == told


def test_path_finds_ids_presets_files_and_folders(pmavae: Command, weights: str, empty_cache: Path) -> None:
    folder = INDEX.shelves[0].folder
    for arguments, file in (
        (["tiny"], folder / "tiny-2.safetensors"),
        (["tiny", "--task", "denoise"], folder / "denoise-tiny-1.safetensors"),
        (["upscale-tiny-1"], folder / "upscale-tiny-1.safetensors"),
        ([weights], Path(weights) / "model.safetensors"),
    ):
        result = pmavae("weights", "path", *arguments)
        assert (result.status, result.lines) == (0, [str(file)])
    for missing in ("no-such", "org/name", f"org/name@{'a' * 40}", "org/name@v1:x/y.safetensors"):
        result = pmavae("weights", "path", missing)
        assert (result.status, result.out) == (1, b"") and missing in result.err
        assert len(result.err.splitlines()) == 1


def test_fetch_leaves_what_is_here_where_it_is(pmavae: Command, weights: str) -> None:
    result = pmavae("weights", "fetch", "tiny")
    assert result.lines == [str(INDEX.shelves[0].folder / "tiny-2.safetensors")]
    assert "here already" in result.err
    result = pmavae("weights", "fetch", weights, "-q")
    assert (result.lines, result.err) == ([f"{weights}/model.safetensors"], "")


def test_a_changed_shipped_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    entry = INDEX.entries[0]
    (tmp_path / entry.file).write_bytes(b"other")
    index = WeightsIndex((Shelf(tmp_path, "plugin far", (entry,)),))
    _, told = verify(*all_weights(index, []))
    assert told and entry.id in told and "damaged" in told and told.endswith("install plugin far again")
    (tmp_path / entry.file).unlink()
    gone = (None, f"{entry.id} is gone; install plugin far again")
    assert verify(*all_weights(index, [])) == gone


def test_every_option_of_weights_is_documented() -> None:
    text = (DOCS / "hub.md").read_text()
    for name, command in weights_group.commands.items():
        assert f"`{name} " in text or f"`{name}`" in text
        for param in command.params:
            for flag in (flag for flag in param.opts if flag.startswith("-")):
                assert f"`{flag}`" in text, (name, flag)
