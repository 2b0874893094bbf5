"""The built-in tasks, from file to file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image, ImageCms
from PIL.ExifTags import Base

from pmavae_cli.api import Task
from pmavae_cli.plugin_manager import Registry, load_plugins

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def run(pmavae: Command, weights: str, here: Path) -> Command:
    """A command with the test weights, in an empty folder."""

    def run(*arguments: Any, stdin: bytes = b"", status: int = 0) -> Any:
        result = pmavae(*arguments, "--weights", weights, stdin=stdin)
        assert result.status == status, result.err
        assert "Traceback" not in result.err
        return result

    return run


def rich_picture(mode: str = "RGBA") -> None:
    """photo.png with everything that a picture can come with."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif[Base.Copyright] = "(c) somebody"
    image = picture().convert("L" if "L" in mode else "RGB")
    if "A" in mode:
        image.putalpha(picture(seed=2).convert("L"))
    image.save("photo.png", exif=exif, icc_profile=SRGB)


def test_chaining_gives_the_same_bytes_as_the_direct_call(installed: Command, here: Path) -> None:
    """With the shipped weights: in untrained ones most branches are zero and hide rounding."""
    rich_picture()
    picture((150, 133), seed=1).save("style.jpg")

    def run(*arguments: str) -> None:
        result = installed(*arguments)
        assert (result.status, result.err) == (0, "")
        assert result.lines == [arguments[-1]]

    options = ("--strength", "0.7", "--refine", "0")
    run("style-mix", "photo.png", "style.jpg", *options, "-o", "direct.png")
    run("encode", "photo.png", "-o", "a.safetensors")
    run("encode", "style.jpg", "--only", "style", "-o", "b.safetensors")
    run("style-mix", "a.safetensors", "b.safetensors", *options, "-o", "c.safetensors")
    run("decode", "c.safetensors", "-o", "chained.png")
    assert Path("direct.png").read_bytes() == Path("chained.png").read_bytes()
    assert Path("direct.png").read_bytes() != Path("photo.png").read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_detour_through_latents_changes_nothing(run: Command, dtype: str) -> None:
    picture().save("a.png")
    run("decode", "a.png", "-o", "direct.png", "--dtype", dtype)
    run("encode", "a.png", "--dtype", dtype)
    run("decode", "a.safetensors", "-o", "detour.png", "--dtype", dtype)
    assert Path("direct.png").read_bytes() == Path("detour.png").read_bytes()
    values = 24 * 3 * 3 + 6 * 6 * 6 + 96
    size = values * (2 if dtype == "float16" else 4)
    assert size < Path("a.safetensors").stat().st_size < size + 2000


def test_strength_0_is_the_reconstruction_and_1_is_not(run: Command) -> None:
    picture().save("a.png")
    picture(seed=1).save("b.png")
    run("decode", "a.png", "-o", "r.png")
    run("style-mix", "a.png", "b.png", "--strength", "0", "-o", "0.png")
    run("style-mix", "a.png", "b.png", "-o", "1.png")
    assert Path("0.png").read_bytes() == Path("r.png").read_bytes() != Path("1.png").read_bytes()


def test_every_content_gets_the_style(run: Command) -> None:
    for name in ("a", "b", "style"):
        picture(seed=ord(name[0])).save(f"{name}.png")
    result = run("style-mix", "a.png", "b.png", "style.png", "--refine", "3", "-o", "out/")
    assert result.lines == ["out/a.png", "out/b.png"]
    run("style-mix", "b.png", "style.png", "--refine", "3", "-o", "alone.png")
    assert Path("alone.png").read_bytes() == Path("out/b.png").read_bytes()


def test_streams(run: Command) -> None:
    picture().save("a.png")
    data = Path("a.png").read_bytes()
    run("decode", "a.png", "-o", "a.webp")
    assert run("decode", "-", "--format", "webp", stdin=data).out == Path("a.webp").read_bytes()
    latents = run("encode", "a.png", "-o", "-").out
    assert run("decode", "-", "--format", "webp", stdin=latents).out == Path("a.webp").read_bytes()
    assert run("decode", "-", "-o", "x.png", stdin=data).lines == ["x.png"]


@pytest.mark.parametrize("through_latents", [False, True])
def test_a_picture_keeps_what_it_came_with(run: Command, through_latents: bool) -> None:
    rich_picture()
    source = "photo.png"
    if through_latents:
        run("encode", source)
        source = "photo.safetensors"
    run("decode", source, "-o", "out.png")
    with Image.open("out.png") as out:
        assert out.size == (40, 48)
        assert out.info["icc_profile"] == SRGB
        assert dict(out.getexif()) == {Base.Copyright: "(c) somebody"}
        alpha = picture(seed=2).convert("L").transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(np.asarray(out.getchannel("A")), np.asarray(alpha))
    result = run("decode", source, "-o", "out.jpg")
    assert result.err == "pmavae: out.jpg: jpg cannot hold its transparency, which is left out\n"
    assert run("decode", source, "-o", "quiet.jpg", "-q").err == ""


def test_grey_stays_grey_until_it_is_repainted(run: Command) -> None:
    rich_picture("LA")
    picture(seed=1).save("style.png")
    run("decode", "photo.png", "-o", "same.png")
    run("style-mix", "photo.png", "style.png", "--refine", "0", "-o", "painted.png")
    run("style-mix", "photo.png", "style.png", "--refine", "0", "-o", "painted.safetensors")
    run("decode", "painted.safetensors", "-o", "later.png")
    with Image.open("same.png") as same, Image.open("painted.png") as painted:
        assert (same.mode, painted.mode) == ("LA", "RGBA")
    assert Path("painted.png").read_bytes() == Path("later.png").read_bytes()


def test_a_batch_does_all_it_can_and_tells_the_rest(run: Command) -> None:
    Path("in").mkdir()
    for number in (1, 2, 10):
        picture(seed=number).save(f"in/p{number}.png")
    Path("in/p3.png").write_bytes(Path("in/p2.png").read_bytes()[:300])
    Path("in/p4.jpg").write_text("no picture")
    result = run("decode", "in", "gone.png", "-o", "out", status=1)
    assert result.lines == ["out/p1.png", "out/p2.png", "out/p10.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["p1.png", "p10.png", "p2.png"]
    errors = result.err.splitlines()
    assert [line.split()[1] for line in errors] == ["gone.png", "in/p3.png", "in/p4.jpg"]
    again = run("decode", "in", "-o", "out", "--skip-existing", status=1)
    assert again.lines == []
    assert again.err.splitlines() == errors[1:]


def test_skipping_everything_loads_nothing(pmavae: Command, here: Path) -> None:
    picture().save("a.png")
    picture().save("a.decode.png")
    before = Path("a.decode.png").stat().st_mtime_ns
    result = pmavae("decode", "a.png", "--skip-existing", "--weights", "no-such-weights")
    assert (result.status, result.out, result.err) == (0, b"", "")
    assert Path("a.decode.png").stat().st_mtime_ns == before


def test_overwrite_replaces(run: Command) -> None:
    picture().save("a.png")
    Path("out.png").write_text("old")
    run("decode", "a.png", "-o", "out.png", "--overwrite")
    with Image.open("out.png") as out:
        assert out.size == (48, 40)


def test_an_output_has_the_permissions_of_any_new_file(run: Command) -> None:
    picture().save("a.png")
    before = os.umask(0o027)
    try:
        run("decode", "a.png", "-o", "out.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("out.png").stat().st_mode) == 0o640


def test_json_has_one_row_an_input(run: Command) -> None:
    for name in ("a", "b"):
        picture().save(f"{name}.png")
    Path("out").mkdir()
    Path("out/b.png").touch()
    result = run("decode", "a.png", "b.png", "c.png", "-o", "out", "--json", "--skip-existing", status=1)
    rows = {row["input"]: row for row in map(json.loads, result.lines)}
    assert rows["a.png"].pop("seconds") > 0
    size = {"width": 48, "height": 40}
    paths = {"input": "a.png", "output": "out/a.png"}
    assert rows["a.png"] == {**paths, **size, "task": "decode", "status": "written"}
    assert rows["b.png"]["status"] == "skipped"
    assert rows["c.png"]["status"] == "failed"
    assert rows["c.png"]["error"].startswith("c.png does not exist")


def test_names_of_any_bytes(run: Command) -> None:
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x8e\xa8.png")
    picture().save("plain.png")
    Path("plain.png").rename(name)
    result = run("decode", name, "-o", "out/")
    assert result.out == b"out/caf\xe9 \xf0\x9f\x8e\xa8.png\n"
    picture().save("-v.png")
    assert run("decode", "-o", "v.png", "--", "-v.png", status=2).out == b""  # options end at --
    Path("two\nlines.png").write_text("no picture")
    assert run("decode", "two\nlines.png", status=1).err.count("\n") == 1


def test_other_weights_than_those_of_a_latent_file_are_refused(run: Command, pmavae: Command) -> None:
    import torch

    from pmavae import PMAVAE, PRESETS

    picture().save("a.png")
    run("encode", "a.png")
    torch.manual_seed(1)
    PMAVAE(PRESETS["tiny"]).save_pretrained("other", "other-tiny")
    result = pmavae("decode", "a.safetensors", "--weights", "other")
    assert result.status == 1
    assert "test-tiny" in result.err
    assert "other-tiny" in result.err
    assert not Path("a.decode.png").exists()


def test_a_preset_that_contradicts_the_weights_is_refused(run: Command) -> None:
    picture().save("a.png")
    result = run("decode", "a.png", "--preset", "small", status=1)
    assert "has weights of preset tiny, not small" in result.err


class Vary(Task):
    name = "vary"
    help = "Two pictures with noise, to test the rest of the task API."

    def count(self, **options: Any) -> int:
        return 2

    def transform(self, latents, context):  # type: ignore[no-untyped-def]
        import torch

        context.log(f"seed {context.seed}")
        other = context.load("other.png")
        noise = torch.randn(latents.z_base.shape, generator=context.generator)
        return [latents.replace(z_base=latents.z_base + noise), latents.replace(z_style=other.z_style)]


class Broken(Task):
    name = "broken"
    help = "Returns what no picture has."
    result: Any = None

    def transform(self, latents, context):  # type: ignore[no-untyped-def]
        return self.result(latents)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = load_plugins()
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    return registry


def test_a_task_may_return_several_pictures_and_use_the_seed(run: Command, registry: Registry) -> None:
    registry.tasks["vary"] = Vary()
    for name in ("a", "b", "other"):
        picture().save(f"{name}.png")
    result = run("vary", "a.png", "b.png", "-o", "out", "--seed", "7")
    assert result.lines == ["out/a-1.png", "out/a-2.png", "out/b-1.png", "out/b-2.png"]
    assert result.err.splitlines() == ["pmavae: seed 7"] * 2
    # b is a copy of a: what came before an input in the batch has no part in its result
    assert Path("out/a-1.png").read_bytes() == Path("out/b-1.png").read_bytes()
    run("vary", "a.png", "-o", "x.png", "--seed", "8")
    assert Path("x-1.png").read_bytes() != Path("out/a-1.png").read_bytes()


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda z: [z, z], "returned 2 results instead of 1"),
        (lambda z: [None], "returned NoneType instead of Latents"),
        (lambda z: z.replace(z_base=z.z_base[:, :3]), "returned z_base of shape"),
        (lambda z: z.replace(z_base=z.z_base * float("nan")), "not finite"),
        (lambda z: z.replace(z_base=z.z_base * 0 + 1e6), "not finite; try --dtype float32"),
    ],
)
def test_what_a_task_returns_is_checked(run: Command, registry: Registry, result: Any, message: str) -> None:
    task = Broken()
    task.result = result
    registry.tasks["broken"] = task
    picture().save("a.png")
    ended = run("broken", "a.png", "-o", "out.png", status=1)
    assert ended.err.startswith("pmavae: a.png: ")
    assert message in ended.err
    assert not Path("out.png").exists()
