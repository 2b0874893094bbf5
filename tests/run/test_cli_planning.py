"""Which file becomes which, and what is refused before anything is touched."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from conftest import Command, picture

from pmavae_cli.options import RunOptions
from pmavae_cli.plugin_manager import load_plugins
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.jobs import Refused
from pmavae_cli.run.plan import make_plan

TASKS = load_plugins().tasks


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def plan(
    task: str, *inputs: str, count: int = 1, others: tuple[str, ...] = (), **options: object
) -> list[tuple[str, str]]:
    """(input, output) of every output, in their order."""
    sources = [Source(name, Path(name)) for name in others]
    made = make_plan(TASKS[task], count, inputs, sources, RunOptions(**options))  # type: ignore[arg-type]
    assert not made.failures
    return [(job.source.name, output.name) for job in made.jobs for output in job.outputs]


def test_without_o_the_output_is_beside_the_input(here: Path) -> None:
    touch("in/photo.jpg", "in/z.safetensors")
    assert plan("decode", "in/photo.jpg") == [("in/photo.jpg", "in/photo.decode.png")]
    assert plan("encode", "in/photo.jpg") == [("in/photo.jpg", "in/photo.safetensors")]
    assert plan("decode", "in/z.safetensors", format="jpg") == [("in/z.safetensors", "in/z.decode.jpg")]
    assert plan("decode", "in/photo.jpg", format="safetensors")[0][1] == "in/photo.decode.safetensors"


def test_an_output_is_a_file_or_a_folder(here: Path) -> None:
    touch("a.jpg", "b.jpg")
    Path("there").mkdir()
    assert plan("decode", "a.jpg", output="x.webp") == [("a.jpg", "x.webp")]
    assert plan("decode", "a.jpg", output="there") == [("a.jpg", "there/a.png")]
    assert plan("decode", "a.jpg", output="new/") == [("a.jpg", "new/a.png")]
    assert plan("decode", "a.jpg", "b.jpg", output="new") == [("a.jpg", "new/a.png"), ("b.jpg", "new/b.png")]
    assert plan("encode", "a.jpg", output="new/") == [("a.jpg", "new/a.safetensors")]
    assert plan("decode", "a.jpg", output="x", format="bmp") == [("a.jpg", "x")]
    with pytest.raises(Refused, match=r"x\.png cannot hold 2 outputs"):
        plan("decode", "a.jpg", "b.jpg", output="x.png")


def test_several_results_are_numbered(here: Path) -> None:
    touch("a.jpg")
    assert [o for _, o in plan("decode", "a.jpg", count=2)] == ["a.decode-1.png", "a.decode-2.png"]
    assert [o for _, o in plan("decode", "a.jpg", count=2, output="x.png")] == ["x-1.png", "x-2.png"]
    with pytest.raises(click.UsageError, match="one output only"):
        plan("decode", "a.jpg", count=2, output="-")


def test_folders_and_globs_come_in_natural_order(here: Path) -> None:
    touch("f/p10.png", "f/p9.JPG", "f/notes.txt", "f/.hidden.png", "f/z.safetensors", "f/deeper/p1.png")
    assert [i for i, _ in plan("decode", "f", output="out")] == ["f/p9.JPG", "f/p10.png", "f/z.safetensors"]
    assert [i for i, _ in plan("decode", "f/p*", output="out")] == ["f/p9.JPG", "f/p10.png"]
    assert [i for i, _ in plan("decode", "f/**/p1*.png", output="out")] == ["f/deeper/p1.png", "f/p10.png"]


def test_a_folder_of_one_picture_still_goes_to_a_folder(here: Path) -> None:
    touch("f/a.jpg")
    assert plan("decode", "f", output="out") == [("f/a.jpg", "out/a.png")]


def test_a_file_whose_name_is_a_pattern_is_a_file(here: Path) -> None:
    touch("[1].jpg", "1.jpg")
    assert plan("decode", "[1].jpg") == [("[1].jpg", "[1].decode.png")]


def test_results_of_an_earlier_run_in_a_folder_are_no_inputs(here: Path) -> None:
    touch("f/a.jpg", "f/a.decode.png", "f/a.safetensors")
    assert plan("encode", "f", overwrite=True) == [
        ("f/a.decode.png", "f/a.decode.safetensors"),
        ("f/a.jpg", "f/a.safetensors"),
    ]
    Path("f/a.safetensors").unlink()
    assert plan("decode", "f", overwrite=True) == [("f/a.jpg", "f/a.decode.png")]


def test_two_inputs_with_one_output_are_refused(here: Path) -> None:
    touch("a.jpg", "a.png", "sub/a.jpg")
    for pair in (("a.jpg", "a.png"), ("a.jpg", "sub/a.jpg"), ("a.jpg", "a.jpg")):
        with pytest.raises(Refused, match=r"would both become out/a\.png"):
            plan("decode", *pair, output="out", overwrite=True)


def test_an_output_never_replaces_an_input(here: Path) -> None:
    touch("a.png", "style.png")
    Path("link.png").symlink_to("a.png")
    os.link("a.png", "hard.png")
    for output in ("a.png", "./a.png", "link.png", "hard.png", "."):
        with pytest.raises(Refused, match=r"would replace the input a\.png"):
            plan("decode", "a.png", output=output, overwrite=True)
    touch("w.safetensors")
    with pytest.raises(Refused, match=r"would replace the input w\.safetensors"):
        plan("encode", "a.png", output="w.safetensors", weights="w.safetensors", overwrite=True)
    with pytest.raises(Refused, match=r"would replace the input style\.png"):
        plan("style-mix", "a.png", others=("style.png",), output="style.png", overwrite=True)


def test_an_existing_output_is_refused_replaced_or_kept(here: Path) -> None:
    touch("a.jpg", "b.jpg", "out/a.png")
    with pytest.raises(Refused, match=r"out/a\.png exists: use --overwrite"):
        plan("decode", "a.jpg", "b.jpg", output="out")
    assert len(plan("decode", "a.jpg", "b.jpg", output="out", overwrite=True)) == 2
    made = make_plan(TASKS["decode"], 1, ["a.jpg", "b.jpg"], [], RunOptions(output="out", skip_existing=True))
    assert [job.outputs[0].exists for job in made.jobs] == [True, False]


def test_a_device_can_be_written_to(here: Path) -> None:
    touch("a.jpg")
    assert plan("decode", "a.jpg", output=os.devnull, format="png") == [("a.jpg", os.devnull)]


def test_an_output_has_to_say_its_format_once(here: Path) -> None:
    touch("a.jpg")
    with pytest.raises(click.UsageError, match="none of the suffixes"):
        plan("decode", "a.jpg", output="x.gif")
    with pytest.raises(click.UsageError, match="contradicts"):
        plan("decode", "a.jpg", output="x.png", format="jpg")
    assert plan("decode", "a.jpg", output="x.jpeg", format="jpg") == [("a.jpg", "x.jpeg")]


def test_stdin_goes_to_stdout_and_is_read_once(here: Path) -> None:
    touch("a.jpg")
    assert plan("decode", "-") == [("stdin", "-")]
    assert plan("decode", "-", output="out/") == [("stdin", "out/stdin.png")]
    with pytest.raises(click.UsageError, match="only once"):
        plan("decode", "-", "-", output="out/")
    with pytest.raises(click.UsageError, match="-o FOLDER"):
        plan("decode", "-", "a.jpg")
    with pytest.raises(click.UsageError, match="one output only"):
        plan("decode", "a.jpg", "a.jpg", output="-")
    with pytest.raises(click.UsageError, match="--json"):
        plan("decode", "-", json=True)


def test_a_folder_that_cannot_be_written_to_is_found_first(here: Path) -> None:
    touch("a.jpg", "file")
    for output in ("file/x.png", "file/deeper/", "missing/x.png"):
        with pytest.raises(Refused, match="cannot be written"):
            plan("decode", "a.jpg", output=output)


def test_what_cannot_be_found_is_named_and_the_rest_is_planned(here: Path) -> None:
    touch("a.jpg")
    Path("empty").mkdir()
    arguments = ["gone.jpg", "gone*.jpg", "empty", "", "a.jpg", "x" * 300]
    made = make_plan(TASKS["decode"], 1, arguments, [], RunOptions(output="out"))
    assert [job.source.name for job in made.jobs] == ["a.jpg"]
    assert [name for name, _ in made.failures] == ["gone.jpg", "gone*.jpg", "empty", "", "x" * 300]


@pytest.mark.parametrize("extra", [["-o", "b.png"], ["-o", "a.png", "--overwrite"], ["-o", "-", "--json"]])
def test_a_refusal_touches_nothing(pmavae: Command, here: Path, extra: list[str]) -> None:
    picture().save("a.png")
    picture(seed=1).save("b.png")
    before = {path: path.read_bytes() for path in here.iterdir()}
    result = pmavae("decode", "a.png", *extra, "--weights", "never-loaded")
    assert (result.status, result.out) == (2, b"")
    assert "never-loaded" not in result.err
    assert {path: path.read_bytes() for path in here.iterdir()} == before
