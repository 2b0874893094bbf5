"""Folders with those below them, job arrays, and runs that end at the first failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command, picture
from test_cli_planning import TASKS, plan, touch

from pmavae_cli.options import RunOptions
from pmavae_cli.run.inputs import find_inputs
from pmavae_cli.run.plan import make_plan


def found(*arguments: str, output: str | None = None) -> list[str]:
    place = Path(output) if output else None
    inputs = find_inputs(arguments, lambda path: (), recursive=True, output=place)
    assert not inputs.failures
    return [source.name for source in inputs.sources]


def test_o_keeps_the_folders_and_without_it_outputs_are_beside_inputs(here: Path) -> None:
    touch("in/a.jpg", "in/x/a.jpg", "in/x/y z/b.png", "in/x/notes.txt")
    assert plan("decode", "in", recursive=True, output="out") == [
        ("in/a.jpg", "out/a.png"),
        ("in/x/a.jpg", "out/x/a.png"),
        ("in/x/y z/b.png", "out/x/y z/b.png"),
    ]
    assert plan("decode", "in", recursive=True)[1:] == [
        ("in/x/a.jpg", "in/x/a.decode.png"),
        ("in/x/y z/b.png", "in/x/y z/b.decode.png"),
    ]
    assert plan("decode", "in", output="out") == [("in/a.jpg", "out/a.png")]


def test_a_file_beside_a_folder_and_folders_in_a_glob(here: Path) -> None:
    touch("in/x/a.jpg", "in/y/b.jpg", "in/c.jpg", "d.jpg")
    assert plan("decode", "d.jpg", "in/x", recursive=True, output="out") == [
        ("d.jpg", "out/d.png"),
        ("in/x/a.jpg", "out/a.png"),
    ]
    # A glob stands for what the shell would make of it, and what two patterns find is found once.
    assert found("in/*") == sorted(found("in/c.jpg", "in/x", "in/y"))
    assert found("in/**") == ["in/c.jpg", "in/x/a.jpg", "in/y/b.jpg"]
    assert [o for _, o in plan("decode", "in/**", recursive=True, output="out")][1] == "out/x/a.png"


def test_hidden_folders_and_earlier_outputs_are_left_out(here: Path) -> None:
    touch(
        "in/.cache/a.jpg", "in/x/.b.jpg", "in/x/c.jpg", "in/x/c.decode.png", "in/out/x/c.png", "in/out/n.jpg"
    )
    assert plan("decode", "in", recursive=True, output="in/out", overwrite=True) == [
        ("in/x/c.decode.png", "in/out/x/c.decode.png"),
        ("in/x/c.jpg", "in/out/x/c.png"),
    ]
    assert [i for i, _ in plan("decode", "in/x", recursive=True, overwrite=True)] == ["in/x/c.jpg"]
    assert found("in/.cache") == ["in/.cache/a.jpg"]
    assert found("in/out", output="in/out") == ["in/out/n.jpg", "in/out/x/c.png"]


def test_links_to_folders_are_followed_once_and_never_round(here: Path) -> None:
    touch("in/x/a.jpg", "in/z/b.jpg", "other/c.jpg", "other/deep/d.jpg", "near.jpg")
    for link, target in {
        "in/x/self": ".",
        "in/x/up": "../..",
        "in/0x": "x",  # comes before the folder itself
        "in/there": "../other",
        "in/there2": "../other/deep",
        "other/back": "../in",
        "in/broken": "nowhere",
        "in/round": "round",
    }.items():
        Path(link).symlink_to(target)
    assert found("in") == ["in/there/c.jpg", "in/there/deep/d.jpg", "in/x/a.jpg", "in/z/b.jpg"]


def test_a_folder_below_that_cannot_be_read_is_named_and_the_rest_is_planned(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("in/a.jpg", "in/shut/b.jpg")
    list_folder = Path.iterdir

    def iterdir(folder: Path):  # type: ignore[no-untyped-def]
        if folder.name == "shut":
            raise PermissionError(13, "Permission denied")
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    made = make_plan(TASKS["decode"], 1, ["in"], [], RunOptions(recursive=True))
    assert [job.source.name for job in made.jobs] == ["in/a.jpg"]
    assert [(name, str(error).split(";")[0]) for name, error in made.failures] == [
        ("in/shut", "in/shut cannot be read: Permission denied")
    ]


def test_a_tree_in_shards_becomes_the_tree_and_a_second_run_does_nothing(
    pmavae: Command, here: Path, weights: str
) -> None:
    for i, name in enumerate(["in/a", "in/x/a", "in/x/-b c", "in/ü/n"]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        picture((32, 32), seed=i).save(f"{name}.png")
    Path("in/x/bad.png").write_bytes(b"no picture")
    command = ["decode", "in", "-r", "-o", "in/out", "--weights", weights, "--skip-existing"]
    results = [pmavae(*command, "--shard", f"{i}/3") for i in (1, 2, 3)]
    assert sorted(result.status for result in results) == [0, 0, 1]
    whole = {"in/out/a.png", "in/out/x/a.png", "in/out/x/-b c.png", "in/out/ü/n.png"}
    assert sorted(line for result in results for line in result.lines) == sorted(whole)
    assert {str(path) for path in Path("in/out").rglob("*") if path.is_file()} == whole
    again = pmavae(*command)
    assert (again.status, again.out) == (1, b"")
    assert again.err.count("\n") == 1 and again.err.startswith("pmavae: in/x/bad.png ")


def test_a_shard_without_inputs_says_so(pmavae: Command, here: Path) -> None:
    touch("a.jpg")
    result = pmavae("decode", "a.jpg", "--shard", "2/2")
    assert (result.status, result.out) == (0, b"")
    assert "shard 2/2 has no inputs" in result.err


def test_one_output_of_all_inputs_has_no_shards(pmavae: Command, here: Path) -> None:
    touch("a.jpg", "b.jpg")
    result = pmavae("style-mix", "a.jpg", "b.jpg", "--grid", "--shard", "1/2")
    assert (result.status, result.out) == (2, b"")
    assert "--shard parts the inputs" in result.err


@pytest.mark.parametrize("flags", [[], ["--fail-fast"]])
def test_fail_fast_ends_at_the_first_failure(
    pmavae: Command, here: Path, weights: str, flags: list[str]
) -> None:
    for name in ("a", "d"):
        picture((32, 32)).save(f"{name}.png")
    touch("b.png", "c.png")
    files = [f"{name}.png" for name in "abcd"]
    result = pmavae("decode", *files, "-o", "out/", "--json", "--weights", weights, *flags)
    assert result.status == 1
    states = [(row["input"], row["status"]) for row in map(json.loads, result.lines)]
    rest = [] if flags else [("c.png", "failed"), ("d.png", "written")]
    assert states == [("a.png", "written"), ("b.png", "failed"), *rest]
    assert len(list(Path("out").iterdir())) == (1 if flags else 2)


def test_fail_fast_ends_before_a_model_is_loaded_where_an_argument_is_missing(
    pmavae: Command, here: Path
) -> None:
    touch("a.png")
    result = pmavae("decode", "a.png", "gone.png", "gone2.png", "--fail-fast", "--weights", "never-loaded")
    assert (result.status, result.out) == (1, b"")
    assert result.err.count("\n") == 1
    assert result.err.startswith("pmavae: gone.png does not exist")


def test_fail_fast_ends_a_sheet(pmavae: Command, here: Path, weights: str) -> None:
    picture((32, 32)).save("a.png")
    touch("b.png", "c.png")
    command = ["style-mix", "--grid", "--refine", "0", "-o", "sheet.png", "--weights", weights, "--fail-fast"]
    contents = pmavae(*command, "b.png", "c.png", "a.png", "a.png")
    styles = pmavae(*command, "a.png", "b.png", "--style", "c.png", "--style", "a.png")
    for result, name in ((contents, "b.png"), (styles, "c.png")):
        assert (result.status, result.out) == (1, b"")
        assert result.err.count("\n") == 1
        assert result.err.startswith(f"pmavae: {name} ")
    assert not Path("sheet.png").exists()
