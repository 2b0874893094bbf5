"""Styles on the command line: files, folders, weights, what is preserved, and the sheet of all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from conftest import Command, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pmavae import Style
from pmavae_cli.api import STYLE, Task, Weighted, WeightedPath
from pmavae_cli.options import RunOptions
from pmavae_cli.plugin_manager import load_plugins
from pmavae_cli.run.inputs import InputError, Source, style_inputs
from pmavae_cli.run.jobs import Refused
from pmavae_cli.run.plan import make_plan

TASKS = load_plugins().tasks
AT_ONCE = ("--refine", "0")  # the decoder paints; for painting step by step see test_cli_refine.py


@pytest.fixture
def run(pmavae: Command, weights: str, here: Path) -> Command:
    """A command with the test weights, in a folder with two contents and two styles."""
    for name, seed in (("a", 0), ("b", 1), ("x", 2), ("y", 3)):
        picture(seed=seed).save(f"{name}.png")

    def run(*arguments: Any, stdin: bytes = b"", status: int = 0) -> Any:
        result = pmavae(*arguments, "--weights", weights, stdin=stdin)
        assert result.status == status, result.err
        assert "Traceback" not in result.err
        return result

    return run


def pixels(path: str) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(names, st.floats(1e-6, 1e6))
def test_a_weight_follows_the_last_colon(name: str, weight: float) -> None:
    path = f"nowhere/{name}"
    assert STYLE.convert(f"{path}:{weight}", None, None) == WeightedPath(path, weight)
    if ":" not in name:
        assert STYLE.convert(path, None, None) == WeightedPath(path, 1.0)
        assert STYLE.convert(f"{path}:no weight", None, None) == WeightedPath(f"{path}:no weight", 1.0)


@given(st.floats().filter(lambda w: not 0 < w < math.inf))
def test_a_weight_is_finite_and_above_0(weight: float) -> None:
    with pytest.raises(click.BadParameter, match=r"no weight above 0 after its colon: write a\.png:2, say"):
        STYLE.convert(f"a.png:{weight}", None, None)


def test_a_file_with_a_colon_in_its_name_is_that_file(here: Path) -> None:
    Path("a:2").touch()
    Path("a").touch()
    assert STYLE.convert("a:2", None, None) == WeightedPath("a:2", 1.0)
    assert STYLE.convert("a:2:3", None, None) == WeightedPath("a:2", 3.0)
    assert STYLE.convert("a:3", None, None) == WeightedPath("a", 3.0)
    with pytest.raises(click.BadParameter, match="no weight above 0"):
        STYLE.convert("a:much", None, None)


def test_a_folder_shares_its_weight(here: Path) -> None:
    Path("palette").mkdir()
    for name in ("p10.png", "p9.jpg", "s.safetensors", "notes.txt"):
        Path("palette", name).touch()
    found = style_inputs(WeightedPath("palette", 6.0))
    assert [(source.stem, source.weight) for source in found] == [("p9", 2.0), ("p10", 2.0), ("s", 2.0)]
    assert style_inputs(WeightedPath("-", 2.0))[0].path is None
    for missing in ("gone.png", ""):
        with pytest.raises(InputError):
            style_inputs(WeightedPath(missing, 1.0))


def test_a_style_is_a_file(run: Command) -> None:
    """As a picture, a style file and a latent file of the picture at its size, it is one style."""
    assert run("encode", "x.png", "--only", "style").lines == ["x.style.safetensors"]
    assert Path("x.style.safetensors").stat().st_size < 1500
    picture((512, 427), 5).save("whole.png")
    run("encode", "whole.png")
    for number, style in enumerate(("x.png", "x.style.safetensors")):
        run("style-mix", "a.png", style, *AT_ONCE, "-o", f"{number}.png")
    assert Path("0.png").read_bytes() == Path("1.png").read_bytes()
    run("style-mix", "a.png", "whole.png", *AT_ONCE, "-o", "2.png")
    run("style-mix", "a.png", "whole.safetensors", *AT_ONCE, "-o", "3.png")
    assert Path("2.png").read_bytes() == Path("3.png").read_bytes() != Path("1.png").read_bytes()
    run("encode", "whole.safetensors", "--only", "style", "-o", "s.safetensors")
    run("style-mix", "a.png", "s.safetensors", *AT_ONCE, "-o", "4.png")
    assert Path("4.png").read_bytes() == Path("2.png").read_bytes()
    data = Path("x.style.safetensors").read_bytes()
    run("style-mix", "a.png", "-", *AT_ONCE, "-o", "5.png", stdin=data)
    assert Path("5.png").read_bytes() == Path("0.png").read_bytes()


def test_a_folder_of_styles_is_a_palette(run: Command) -> None:
    Path("paintings").mkdir()
    for name in ("x", "y"):
        Path(f"{name}.png").rename(f"paintings/{name}.png")
    result = run("encode", "paintings", "--only", "style", "-o", "palette/")
    assert result.lines == ["palette/x.safetensors", "palette/y.safetensors"]
    run("style-mix", "a.png", "palette", *AT_ONCE, "-o", "0.png")
    run("style-mix", "a.png", "paintings:7", *AT_ONCE, "-o", "1.png")
    mixture = ("palette/x.safetensors", "--style", "paintings/y.png")
    run("style-mix", "a.png", *mixture, *AT_ONCE, "-o", "2.png")
    assert len({Path(f"{i}.png").read_bytes() for i in range(3)}) == 1


def test_weights_are_relative(run: Command) -> None:
    from pmavae import PRESETS
    from pmavae.files.latent_file import read_latents_or_style

    mixtures = {
        "mixed": ("x.png", "--style", "y.png:3"),
        "same": ("x.png:0.5", "--style", "y.png:1", "--style", "y.png:0.5"),
        "x": ("x.png:9",),
        "y": ("y.png",),
    }
    styles = {}
    for name, mixture in mixtures.items():
        path = f"{name}.safetensors"
        run("style-mix", "a.png", *mixture, *AT_ONCE, "-o", path, "--dtype", "float32")
        styles[name] = read_latents_or_style(path, PRESETS.__getitem__)[0].z_style
    expected = 0.25 * styles["x"] + 0.75 * styles["y"]
    for name in ("mixed", "same"):
        assert (styles[name] - expected).abs().max() < 1e-5
    assert (styles["x"] - styles["y"]).abs().max() > 0.1


def test_the_scale_is_for_pictures(run: Command) -> None:
    run("encode", "x.png", "--only", "style", "--style-scale", "0.5", "-o", "s.safetensors")
    run("style-mix", "a.png", "s.safetensors", *AT_ONCE, "-o", "0.png")
    assert run("style-mix", "a.png", "x.png", "--style-scale", "0.5", *AT_ONCE, "-o", "1.png").err == ""
    assert Path("0.png").read_bytes() == Path("1.png").read_bytes()
    note = "s.safetensors keeps the scale at which it was encoded: --style-scale is for pictures"
    arguments = ("s.safetensors", "--style", "s.safetensors", "--style-scale", "1", *AT_ONCE)
    run("encode", "a.png", "-o", "a.safetensors")
    assert run("style-mix", "a.safetensors", *arguments, "-o", "2.png").err == f"pmavae: {note}\n"
    result = run("encode", "a.safetensors", "--only", "style", "--style-scale", "2", "-o", "t.safetensors")
    assert result.err.startswith("pmavae: a.safetensors keeps the scale")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("decode", "s.safetensors"), 1, "s.safetensors holds a style and no picture: give it to pmavae"),
        (("style-mix", "s.safetensors", "x.png"), 1, "s.safetensors holds a style and no picture"),
        (("encode", "s.safetensors", "--only", "style", "-o", "t.safetensors"), 1, "holds a style and no"),
        (("encode", "a.png", "--only", "style", "-o", "o.png"), 2, "o.png would be a png picture"),
        (("encode", "a.png", "--only", "style", "--format", "jpg"), 2, "cannot hold a style: name a"),
        (("encode", "a.png", "--style-scale", "2"), 2, "--style-scale is for --only style"),
        (("style-mix", "a.png", "gone.png"), 1, "gone.png does not exist: check its name and folder"),
        (("style-mix", "a.png", "x.png", "--style", "gone.png:2"), 1, "gone.png does not exist"),
        (("style-mix", "a.png", "x.png", "--style", "y.png:0"), 2, "'y.png:0' has no weight above 0"),
        (("style-mix", "a.png", "empty"), 1, "empty has no pictures or latent files in it"),
        (("style-mix", "a.png", "bad.png"), 1, "bad.png is neither a picture"),
        (("style-mix", "a.png", "x.png", "-o", "x.png", "--overwrite"), 2, "would replace the input x.png"),
        (("style-mix", "a.png", "x.png", "--style", "s.safetensors", "-o", "s.safetensors", "--overwrite"), 2,
         "would replace the input s.safetensors"),
        (("style-mix", "a.png", "-", "--style", "-"), 2, "can be read only once"),
        (("style-mix", "a.png", "x.png", "--style-scale", "5"), 2, "'--style-scale'"),
        (("style-mix", "a.png", "x.png", "--preserve-detail", "nan"), 2, "nan is no number"),
    ],
)  # fmt: skip
def test_refusals_name_the_file_and_the_remedy(
    run: Command, arguments: tuple[str, ...], status: int, message: str
) -> None:
    run("encode", "x.png", "--only", "style", "-o", "s.safetensors")
    Path("bad.png").write_text("no picture")
    Path("empty").mkdir()
    before = sorted(Path().iterdir())
    assert message in run(*arguments, status=status).err
    assert sorted(Path().iterdir()) == before


def chroma(values: Any) -> Any:
    red, green, blue = (values[..., channel] for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([(blue - luma) / 1.772, (red - luma) / 1.402], -1)


def test_colour_and_detail_are_preserved(pmavae: Command, here: Path) -> None:
    """With the shipped weights: in untrained ones there is no paint to leave out."""
    for name, seed in (("a", 0), ("x", 2)):
        picture((96, 80), seed).save(f"{name}.png")

    def run(*arguments: str) -> None:
        result = pmavae(*arguments)
        assert (result.status, result.err) == (0, "")

    run("decode", "a.png", "-o", "plain.png")
    run("style-mix", "a.png", "x.png", *AT_ONCE, "-o", "painted.png")
    run("style-mix", "a.png", "x.png", "--preserve-color", *AT_ONCE, "-o", "coloured.png")
    run("style-mix", "a.png", "x.png", "--preserve-detail", "1", *AT_ONCE, "-o", "detailed.png")
    plain, painted, coloured = (chroma(pixels(f"{n}.png")) for n in ("plain", "painted", "coloured"))
    # Where no colour has both luma and chroma, it is paler.
    assert np.abs(coloured - plain).mean() < 0.3 * np.abs(painted - plain).mean()
    assert np.median(np.abs(coloured - plain)) < 0.6
    assert Path("detailed.png").read_bytes() != Path("painted.png").read_bytes()
    both = ("--preserve-color", "--preserve-detail", "1")
    for keep in (both[:1], both[1:], both):
        run("style-mix", "a.png", "x.png", "--strength", "0", *keep, *AT_ONCE, "-o", "0.png", "--overwrite")
        assert Path("0.png").read_bytes() == Path("plain.png").read_bytes()
    run("style-mix", "a.png", "x.png", *both, *AT_ONCE, "-o", "c.safetensors")
    run("decode", "c.safetensors", "-o", "chained.png")
    run("style-mix", "a.png", "x.png", *both, *AT_ONCE, "-o", "direct.png")
    assert np.abs(pixels("chained.png") - pixels("direct.png")).mean() < 10


def test_a_grey_picture_that_keeps_its_colours_stays_grey(run: Command) -> None:
    picture().convert("L").save("grey.png")
    modes = {}
    for name, keep in (("colour", ["--preserve-color"]), ("detail", ["--preserve-detail", "1"])):
        run("style-mix", "grey.png", "x.png", *keep, *AT_ONCE, "-o", f"{name}.png")
        with Image.open(f"{name}.png") as image:
            modes[name] = image.mode
    assert modes == {"colour": "L", "detail": "RGB"}


def test_a_sheet_of_all_contents_in_all_styles(run: Command) -> None:
    Path("palette").mkdir()
    run("encode", "y.png", "--only", "style", "-o", "palette/y.safetensors")
    Path("x.png").rename("palette/x.png")
    assert run("style-mix", "a.png", "b.png", "palette", "--grid", *AT_ONCE).lines == ["style-mix.png"]
    sheet = pixels("style-mix.png")
    height, width = sheet.shape[:2]
    assert 3 * 384 < width < 3 * 384 + 60
    assert 3 * 320 < height < 3 * 320 + 150
    for row in range(3):
        for column in range(3):
            place = sheet[row * height // 3 : (row + 1) * height // 3, column * width // 3 :][:, : width // 3]
            label, cell = place[:20], place[120:-40, 60:-60]
            assert (label < 128).any() == ((row == 0) != (column == 0) and (row, column) != (2, 0))
            assert (cell.std() > 5) == (column > 0 or row > 0)
    # One place is what a run by itself makes of the content at that size.
    picture(seed=1).resize((384, 320), Image.Resampling.LANCZOS).save("b384.png")
    run("style-mix", "b384.png", "palette/x.png", *AT_ONCE, "-o", "one.png")
    one = pixels("one.png")
    left, top = 2 * (384 + 8) + 8, 8 + (320 + 28 + 8) + 28
    assert np.abs(sheet[top : top + 320, left : left + 384] - one).max() <= 2
    run("style-mix", ".", "palette", "--grid", "--preserve-color", *AT_ONCE, "--overwrite", "-v")
    again = run("style-mix", "a.png", "palette", "--grid", "--skip-existing", "--json")
    row = json.loads(again.out)
    assert row == {"inputs": ["a.png"], "output": "style-mix.png", "task": "style-mix", "status": "skipped"}


def test_a_sheet_leaves_out_what_is_bad(run: Command) -> None:
    Path("bad.png").write_text("no picture")
    result = run(
        "style-mix", "gone.png", "a.png", "bad.png", "bad.png", "--style", "gone.jpg", "--style", "x.png",
        "--grid", *AT_ONCE, "-o", "out/", "--json", status=1,
    )  # fmt: skip
    assert [line.split()[1] for line in result.err.splitlines()] == [
        "gone.jpg",
        "gone.png",
        "bad.png",
        "bad.png",
    ]
    row = json.loads(result.lines[-1])
    assert (row["inputs"], row["output"], row["status"]) == (
        ["a.png", "bad.png"],
        "out/style-mix.png",
        "written",
    )
    assert pixels("out/style-mix.png").shape[1] < 2 * 384 + 60
    nothing = run("style-mix", "a.png", "bad.png", "--grid", status=1)
    assert "none of the styles can be read" in nothing.err
    assert not Path("style-mix.png").exists()
    assert "none of the inputs can be read" in run("style-mix", "bad.png", "x.png", "--grid", status=1).err


def test_a_sheet_of_latent_files(run: Command) -> None:
    picture((700, 400)).save("large.png")
    run("encode", "large.png")
    run("style-mix", "large.safetensors", "large.safetensors", "--grid", *AT_ONCE, "-o", "sheet.jpg")
    assert 2 * 384 < pixels("sheet.jpg").shape[1] < 2 * 384 + 60


def test_where_a_sheet_goes(here: Path) -> None:
    for name in ("a.png", "b.png", "x.png"):
        Path(name).touch()

    def plan(*arguments: str, **options: Any) -> list[tuple[list[str], str]]:
        others = [Source("x.png", Path("x.png"))]
        made = make_plan(TASKS["style-mix"], 1, arguments, others, RunOptions(**options), many_to_one=True)
        return [([s.name for s in job.gathered], o.name) for job in made.jobs for o in job.outputs]

    both = ["a.png", "b.png"]
    assert plan("a.png", "b.png") == [(both, "style-mix.png")]
    assert plan("a.png", "b.png", format="jpg") == [(both, "style-mix.jpg")]
    assert plan("a.png", "b.png", output="new/") == [(both, "new/style-mix.png")]
    assert plan("a.png", "b.png", output="sheet.webp") == [(both, "sheet.webp")]
    assert plan("-", "b.png") == [(["stdin", "b.png"], "style-mix.png")]
    assert plan("gone.png") == []
    with pytest.raises(Refused, match=r"would replace the input x\.png"):
        plan("a.png", output="x.png", overwrite=True)
    with pytest.raises(click.UsageError, match="none of the suffixes"):
        plan("a.png", "b.png", output="sheet")
    Path("style-mix.png").touch()
    with pytest.raises(Refused, match=r"style-mix\.png exists: use --overwrite"):
        plan("a.png")
    assert plan(".", overwrite=True) == [([*both, "x.png"], "style-mix.png")]


class Blend(Task):
    name = "blend"
    help = "Many pictures as one."
    params = (click.Option(["--like"], type=STYLE),)
    seen: Any = None

    def side(self, **options: Any) -> int:
        return 64

    def many_to_one(self, **options: Any) -> bool:
        return True

    def transform(self, content, context, like):  # type: ignore[no-untyped-def]
        self.seen = content, like
        if self.input_kind == "pixels":
            return np.mean([named.content for named in content], axis=0).astype(np.uint8)
        return content[0].content.replace(z_style=like[0].style.z_style)


@pytest.mark.parametrize("takes", ["latents", "pixels"])
def test_a_plugin_may_gather(run: Command, monkeypatch: pytest.MonkeyPatch, takes: Any) -> None:
    registry = load_plugins()
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    task = registry.tasks["blend"] = Blend()
    monkeypatch.setattr(Blend, "input_kind", takes)
    picture((700, 500), 2).save("x.png")
    assert run("blend", "a.png", "b.png", "--like", "x.png:4").lines == ["blend.png"]
    contents, (like,) = task.seen
    assert [named.name for named in contents] == ["a", "b"]
    assert isinstance(like, Weighted)
    assert (like.name, like.weight, like.style.width) == ("x", 4.0, 512)
    assert like.picture.shape == (274, 384, 3)
    assert pixels("blend.png").shape == (53, 64, 3)
    if takes == "pixels":
        run("blend", "a.png", "-o", "alone.png")
        assert task.seen[1] == ()


class OldBlend(Task):
    """As version 1 of the API was first."""

    name = "old-blend"
    help = "Many pictures as one."
    takes = "pixels"

    def gathers(self, **options: Any) -> bool:
        return True

    def transform(self, content, context):  # type: ignore[no-untyped-def]
        return np.mean([named.content for named in content], axis=0).astype(np.uint8)


class OldStyle(Task):
    name = "old-style"
    help = "Styles."

    def makes_style(self, **options: Any) -> bool:
        return True

    def transform(self, content, context):  # type: ignore[no-untyped-def]
        return Style(content.z_style, content.width, content.height)


def test_plugins_that_define_the_names_of_before_go_on(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_plugins()
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    registry.tasks |= {"old-blend": OldBlend(), "old-style": OldStyle()}
    assert run("old-blend", "a.png", "b.png").lines == ["old-blend.png"]
    assert pixels("old-blend.png").shape == pixels("a.png").shape
    assert run("old-style", "a.png").lines == ["a.style.safetensors"]
    run("old-style", "a.png", "-o", "a.jpg", status=2)
    assert (Blend().takes, OldBlend().takes, OldBlend().input_kind) == ("latents", "pixels", "pixels")
    task = Blend()
    task.takes = "pixels"
    assert task.input_kind == "pixels" and Blend().input_kind == "latents"
    name, style, weight, picture = Weighted("a", lambda: Style(torch.zeros(1, 96, 1, 1), 8, 8), 2.0)
    assert (name, style.width, weight, picture) == ("a", 8, 2.0, None)


def test_styles_by_the_installed_command(installed: Command, here: Path) -> None:
    """With the shipped weights, from file to file."""
    for name, seed in (("a", 0), ("x", 2)):
        picture((96, 80), seed).save(f"{name}.png")
    mixture = ("x.safetensors:2", "--style", "a.png", "--preserve-color", *AT_ONCE)
    steps = (
        ("encode", "x.png", "--only", "style", "--style-scale", "0.25", "-o", "x.safetensors"),
        ("style-mix", "a.png", *mixture, "-o", "out.png"),
    )
    for step in steps:
        result = installed(*step)
        assert (result.status, result.err, result.lines) == (0, "", [step[-1]])
    assert pixels("out.png").shape == (80, 96, 3)
