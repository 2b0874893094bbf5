"""`pmavae denoise` and `pmavae upscale`, from file to file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, on_a_terminal, picture
from PIL import Image
from PIL.ExifTags import Base

from pmavae_cli.api import Task
from pmavae_cli.plugin_manager import load_plugins

TASKS = ("denoise", "upscale")


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders with weights of small networks whose every layer does something."""
    from small_restorers import network

    folder = tmp_path_factory.mktemp("networks")
    for task in TASKS:
        network(task).save_pretrained(folder / task, f"test-{task}")
    return {task: str(folder / task) for task in TASKS}


@pytest.fixture
def run(pmavae: Command, networks: dict[str, str], here: Path) -> Command:
    """A task with the test weights, in an empty folder."""

    def run(task: str, *arguments: Any, stdin: bytes = b"", status: int = 0) -> Any:
        result = pmavae(task, *arguments, "--weights", networks[task], stdin=stdin)
        assert result.status == status, result.err
        assert "Traceback" not in result.err
        return result

    return run


def noisy(sigma: float, size: tuple[int, int] = (200, 160)) -> Image.Image:
    pixels = np.asarray(picture(size)).astype(float)
    values = pixels + np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def test_a_picture_keeps_what_it_came_with_at_every_size(run: Command) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif[Base.Copyright] = "(c) somebody"
    image = picture((48, 40))
    image.putalpha(picture((48, 40), seed=2).convert("L"))
    image.save("photo.png", exif=exif)
    run("denoise", "photo.png")
    run("upscale", "photo.png", "-o", "two.png")
    run("upscale", "photo.png", "--scale", "4", "-o", "four.tif")
    for name, size in (("photo.denoise.png", (40, 48)), ("two.png", (80, 96)), ("four.tif", (160, 192))):
        with Image.open(name) as made:
            assert made.size == size and made.mode == "RGBA"
            assert made.getexif()[Base.Copyright] == "(c) somebody"
            assert made.getexif().get(Base.Orientation, 1) == 1
            alpha = np.asarray(made.getchannel("A").resize((40, 48), Image.Resampling.BOX)).astype(int)
    expected = np.asarray(image.getchannel("A").transpose(Image.Transpose.ROTATE_270))
    assert np.abs(alpha - expected).mean() < 4


@pytest.mark.parametrize("task", TASKS)
def test_grey_stays_grey(run: Command, task: str) -> None:
    picture().convert("L").save("grey.png")
    run(task, "grey.png", "-o", "out.png")
    with Image.open("out.png") as made:
        assert made.mode == "L"


def test_json_tells_the_new_size(run: Command) -> None:
    picture((48, 40)).save("a.png")
    (row,) = map(json.loads, run("upscale", "a.png", "--scale", "4", "--json").lines)
    assert (row["width"], row["height"], row["task"]) == (192, 160, "upscale")


def test_latents_are_decoded_first_and_it_says_so_once(
    run: Command, pmavae: Command, networks: dict[str, str]
) -> None:
    for seed, name in enumerate("ab"):
        picture((64, 48), seed).save(f"{name}.png")
        assert pmavae("encode", f"{name}.png").status == 0
    result = run("denoise", "a.safetensors", "b.safetensors", "-o", "out/", "--strength", "0")
    assert [line for line in result.err.splitlines() if "latents" in line] == [
        "pmavae: a.safetensors holds latents and no pixels: denoise starts from what they decode to, "
        "and can be no truer"
    ]
    assert pmavae("decode", "a.safetensors", "-o", "decoded.png").status == 0
    with Image.open("out/a.png") as made, Image.open("decoded.png") as decoded:
        assert np.array_equal(made, decoded)


def test_latents_are_written_where_the_suffix_says_so(run: Command, pmavae: Command) -> None:
    picture((64, 48)).save("a.png")
    run("upscale", "a.png", "-o", "large.safetensors")
    run("upscale", "a.png", "-o", "large.png")
    pmavae("encode", "large.png", "-o", "again.safetensors")
    assert Path("large.safetensors").read_bytes() == Path("again.safetensors").read_bytes()
    assert run("upscale", "large.safetensors", "-o", "larger.png").status == 0
    with Image.open("larger.png") as made:
        assert made.size == (256, 192)


def test_strength_zero_leaves_every_pixel(run: Command) -> None:
    noisy(25).save("a.png")
    run("denoise", "a.png", "--strength", "0", "-o", "same.png")
    run("denoise", "a.png", "-o", "other.png")
    with Image.open("a.png") as a, Image.open("same.png") as same, Image.open("other.png") as other:
        assert np.array_equal(a, same) and not np.array_equal(a, other)


def test_it_tells_what_it_found_under_v(run: Command) -> None:
    noisy(25).save("noisy.png")
    picture((200, 160)).save("file.jpg", quality=30)
    assert "noisy.png: noise of σ 2" in run("denoise", "noisy.png", "-v").err
    assert "JPEG of quality 30" in run("denoise", "file.jpg", "-v").err
    assert "σ" not in run("denoise", "noisy.png", "-o", "quiet.png").err
    text = run("denoise", "file.jpg", "-v", "--mode", "noise", "--overwrite").err
    assert "no trace of JPEG" in text
    text = run("denoise", "noisy.png", "-v", "--mode", "jpeg", "--overwrite").err
    assert "no noise, JPEG of quality 50" in text
    text = run("denoise", "noisy.png", "-v", "--sigma", "7", "--jpeg-quality", "33", "--overwrite").err
    assert "noise of σ 7.0, JPEG of quality 33" in text


def test_fidelity_and_strength_change_the_picture(run: Command) -> None:
    noisy(25).save("a.png")
    made = []
    for name, options in (
        ("plain", ()),
        ("gated", ("--fidelity", "0.3")),
        ("strong", ("--strength", "1.5")),
    ):
        run("denoise", "a.png", "-o", f"{name}.png", *options)
        made.append(Path(f"{name}.png").read_bytes())
    assert len(set(made)) == 3


def test_tiles_change_nothing(run: Command) -> None:
    noisy(20).save("a.png")
    for tile in ("off", "64", "auto"):
        run("denoise", "a.png", "-o", f"{tile}.png", "--tile", tile)
    arrays = [np.asarray(Image.open(f"{tile}.png")).astype(int) for tile in ("off", "64", "auto")]
    assert np.abs(arrays[0] - arrays[1]).max() <= 1
    assert np.array_equal(arrays[0], arrays[2])


def test_upscaling_as_is_takes_nothing_out(run: Command) -> None:
    noisy(20).save("a.png")
    run("upscale", "a.png", "-o", "clean.png")
    text = run("upscale", "a.png", "--as-is", "-o", "as-is.png", "-v").err
    assert "enlarged as it is" in text
    assert Path("clean.png").read_bytes() != Path("as-is.png").read_bytes()


def test_pipes(run: Command) -> None:
    stream = io.BytesIO()
    picture((40, 32)).save(stream, "PNG")
    result = run("upscale", "-", "-o", "-", "--format", "png", stdin=stream.getvalue())
    with Image.open(io.BytesIO(result.out)) as made:
        assert made.size == (80, 64)


def test_what_no_file_could_hold_is_refused_before_it_is_made(run: Command) -> None:
    Image.new("RGB", (4100, 16)).save("wide.png")
    result = run("upscale", "wide.png", "--scale", "4", "-o", "wide.webp", status=1)
    assert result.err == "pmavae: wide.png: 16400×64 px is too large for webp: choose another format\n"
    assert not Path("wide.webp").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upscale", "--scale", "3"], "'3' is not one of '2', '4'"),
        (["denoise", "--strength", "nan"], "nan"),
        (["denoise", "--strength", "-1"], "-1"),
        (["denoise", "--fidelity", "1.5"], "1.5"),
        (["denoise", "--tile", "63"], "'63' is not auto, off or a number from 64 on"),
        (["denoise", "--tile", "big"], "'big' is not auto"),
        (["denoise", "--jpeg-quality", "0"], "0"),
        (["denoise", "--mode", "grain"], "grain"),
    ],
)
def test_wrong_usage(pmavae: Command, here: Path, arguments: list[str], message: str) -> None:
    picture().save("a.png")
    result = pmavae(*arguments, "a.png")
    assert result.status == 2 and message in result.err
    assert [path.name for path in here.iterdir()] == ["a.png"]


def test_weights_of_another_task_are_refused(pmavae: Command, networks: dict[str, str], here: Path) -> None:
    picture().save("a.png")
    result = pmavae("denoise", "a.png", "--weights", networks["upscale"])
    assert result.status == 1
    assert "has weights of the task upscale, not denoise: use those that were made for it" in result.err
    result = pmavae("decode", "a.png", "--weights", networks["denoise"])
    assert result.status == 1 and "use them with pmavae denoise" in result.err
    assert [path.name for path in here.iterdir()] == ["a.png"]


@pytest.mark.parametrize("task", TASKS)
def test_a_bad_picture_does_not_end_a_batch(run: Command, task: str) -> None:
    Path("in").mkdir()
    picture().save("in/good.png")
    Path("in/bad.png").write_bytes(Path("in/good.png").read_bytes()[:200])
    result = run(task, "in", "-o", "out", status=1)
    assert result.lines == ["out/good.png"]
    assert result.err.startswith("pmavae: in/bad.png is damaged") and len(result.err.splitlines()) == 1


def test_the_smallest_picture_there_is(run: Command) -> None:
    picture((16, 17)).save("a.png")
    for task in TASKS:
        run(task, "a.png", "-o", f"{task}.png")
    with Image.open("upscale.png") as made:
        assert made.size == (32, 34)


def test_a_terminal_sees_how_far_it_is(networks: dict[str, str], here: Path) -> None:
    picture((200, 160)).save("a.png")
    out, shown = on_a_terminal(
        *("denoise", "a.png", "-o", "b.png", "--sigma", "10"),
        *("--tile", "64", "--weights", networks["denoise"]),
    )
    assert out == b"b.png\n"
    assert b"a.png" in shown and b"100%" in shown and b"0:00:0" in shown


class Halves(Task):
    """What a plugin may do with pixels: without weights of its own, and several pictures out of one."""

    name = "halves"
    help = "Cut a picture in two."
    input_kind = "pixels"
    result: Any = None

    def count(self, **options: Any) -> int:
        return 2

    def transform(self, pixels, context):  # type: ignore[no-untyped-def]
        middle = pixels.shape[1] // 2
        return self.result(pixels) if self.result else [pixels[:, :middle], pixels[:, middle:]]


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Halves:
    registry, task = load_plugins(), Halves()
    registry.tasks["halves"] = task
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    return task


def test_a_plugin_may_take_pixels(pmavae: Command, here: Path, halves: Halves) -> None:
    image = picture((64, 40))
    image.save("a.png")
    assert pmavae("halves", "a.png", "-o", "out.png").lines == ["out-1.png", "out-2.png"]
    with Image.open("out-1.png") as left, Image.open("out-2.png") as right:
        assert np.array_equal(np.hstack([left, right]), np.asarray(image))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda p: p, "returned 1 results instead of 2"),
        (lambda p: [p, None], "returned NoneType instead of pixels"),
        (lambda p: [p, p / 255], "returned float64 (40, 64, 3) instead of uint8 pixels"),
        (lambda p: [p, p[..., 0]], "returned uint8 (40, 64) instead of uint8 pixels"),
        (lambda p: [p, p[:8]], "returned uint8 (8, 64, 3) instead of uint8 pixels"),
    ],
)
def test_pixels_that_a_plugin_returns_are_checked(
    pmavae: Command, here: Path, halves: Halves, result: Any, message: str
) -> None:
    halves.result = result
    picture((64, 40)).save("a.png")
    ended = pmavae("halves", "a.png", "-o", "out.png")
    assert ended.status == 1 and message in ended.err
    assert [path.name for path in here.iterdir()] == ["a.png"]
