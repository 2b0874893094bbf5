"""`pmavae style-mix` step by step, from file to file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, on_a_terminal, picture
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(pmavae: Command, weights: str, here: Path) -> Command:
    """A command with the test weights, in a folder with two contents and two styles."""
    for name, seed in (("a", 0), ("b", 1), ("x", 2), ("y", 3)):
        picture(seed=seed).save(f"{name}.png")

    def run(*arguments: Any, status: int = 0) -> Any:
        result = pmavae(*arguments, "--weights", weights)
        assert result.status == status, result.err
        assert "Traceback" not in result.err
        return result

    return run


@pytest.fixture
def shipped(pmavae: Command, here: Path) -> Command:
    """A command with the shipped weights, in a folder with a photo and a painting of 160 px."""
    for name, source in (("photo", "content-ridge"), ("painting", "style-starry-night")):
        with Image.open(EXAMPLES / f"{source}.jpg") as image:
            image.thumbnail((160, 160))
            image.save(f"{name}.png")

    def run(*arguments: Any) -> Any:
        result = pmavae(*arguments)
        assert (result.status, result.err) == (0, "")
        return result

    return run


def data(name: str) -> bytes:
    return Path(name).read_bytes()


def pixels(name: str, mode: str = "RGB") -> Any:
    with Image.open(name) as image:
        return np.asarray(image.convert(mode)).astype(float)


def distances(name: str, style: str) -> tuple[float, float, float]:
    """How far a picture is from a style: by its patches, their strokes, and a network's features."""
    import torch

    from pmavae.autoencoder import to_tensor
    from pmavae.style_transfer.distances import gram, gram_distance, octaves, sliced_wasserstein
    from pmavae.style_transfer.features import FeatureNetwork

    network = FeatureNetwork.from_pretrained()
    made, wanted = (to_tensor(np.asarray(Image.open(path).convert("RGB"))) for path in (name, style))
    random = torch.Generator().manual_seed(1)
    whole, strokes = sliced_wasserstein(made, [(octaves(wanted), 1.0)], random)
    features = gram_distance(network(made), [gram(x) for x in network(wanted)])
    return float(whole), float(strokes), float(features)


def test_steps_come_nearer_to_the_style_than_painting_at_once(shipped: Command) -> None:
    for name, steps in (("0", ("--refine", "0")), ("4", ("--refine", "4")), ("30", ())):
        shipped("style-mix", "photo.png", "painting.png", *steps, "-o", f"{name}.png")
    of_0, of_4, of_30 = (distances(f"{name}.png", "painting.png") for name in ("0", "4", "30"))
    assert all(after < 0.7 * before for before, after in zip(of_0, of_30, strict=True))
    assert all(after < before for before, after in zip(of_4, of_30, strict=True))
    shipped("style-mix", "photo.png", "painting.png", "--refine", "30", "-o", "said.png")
    assert data("said.png") == data("30.png")


def test_the_seed_decides_the_bytes(run: Command) -> None:
    mix = ("style-mix", "a.png", "x.png", "--refine", "3")
    for name, seed in (("first", ()), ("again", ("--seed", "0")), ("other", ("--seed", "5"))):
        run(*mix, *seed, "-o", f"{name}.png")
    assert data("first.png") == data("again.png") != data("other.png")


def test_strength_0_is_the_reconstruction_and_takes_no_steps(run: Command) -> None:
    run("decode", "a.png", "-o", "plain.png")
    run("encode", "a.png", "-o", "a.safetensors")
    run("encode", "x.png", "--only", "style", "-o", "style.safetensors")
    mix = ("--strength", "0", "--refine", "3")
    for number, arguments in enumerate(
        (("a.png", "x.png"), ("a.safetensors", "x.png"), ("a.png", "style.safetensors"))
    ):
        assert run("style-mix", *arguments, *mix, "-o", f"{number}.png").err == ""
        assert data(f"{number}.png") == data("plain.png")
    run("style-mix", "a.png", "x.png", *mix, "-o", "0.safetensors")
    assert data("0.safetensors") == data("a.safetensors")
    # A little of the style is painted on the picture's own pixels, which the decoder has not seen.
    run("style-mix", "a.png", "x.png", "--strength", "0.001", "--refine", "1", "-o", "little.png")
    little, plain = (np.abs(pixels(f"{n}.png") - pixels("a.png")).mean() for n in ("little", "plain"))
    assert little < 0.4 * plain


@pytest.mark.parametrize("size", [(700, 90), (90, 1040), (641, 80), (2000, 16)])
def test_a_picture_of_more_px_than_strokes_keeps_its_size(run: Command, size: tuple[int, int]) -> None:
    image = picture(size)
    image.putalpha(picture(size, seed=1).convert("L"))
    image.save("large.png")
    run("style-mix", "large.png", "x.png", "--refine", "1", "-o", "out.png")
    with Image.open("out.png") as made:
        assert (made.size, made.mode) == (size, "RGBA")
        assert np.array_equal(np.asarray(made.getchannel("A")), np.asarray(image.getchannel("A")))
    assert np.abs(pixels("out.png") - pixels("large.png")).mean() > 3


def test_latents_are_those_of_what_was_painted(run: Command) -> None:
    mix = ("x.png", "--refine", "2")
    run("style-mix", "a.png", *mix, "-o", "direct.png")
    run("style-mix", "a.png", *mix, "-o", "direct.safetensors")
    run("encode", "direct.png", "-o", "encoded.safetensors")
    assert data("direct.safetensors") == data("encoded.safetensors")
    run("encode", "a.png", "-o", "a.safetensors")
    run("decode", "a.safetensors", "-o", "decoded.png")
    run("style-mix", "a.safetensors", *mix, "-o", "latents.png")
    run("style-mix", "decoded.png", *mix, "-o", "pixels.png")
    assert data("latents.png") == data("pixels.png") != data("direct.png")


def test_a_chain_comes_near_to_the_direct_call(shipped: Command) -> None:
    """Single strokes lie elsewhere, but what is seen from afar is the same."""
    shipped("style-mix", "photo.png", "painting.png", "-o", "direct.png")
    shipped("encode", "photo.png", "-o", "a.safetensors")
    shipped("style-mix", "a.safetensors", "painting.png", "-o", "c.safetensors")
    shipped("decode", "c.safetensors", "-o", "chained.png")
    assert data("chained.png") != data("direct.png")
    chained, direct, photo = (
        pixels(f"{name}.png")[:104].reshape(13, 8, 20, 8, 3).mean((1, 3))
        for name in ("chained", "direct", "photo")
    )
    assert np.abs(chained - direct).mean() < 0.3 * np.abs(photo - direct).mean()
    painted, plain = (distances(f"{name}.png", "painting.png") for name in ("chained", "photo"))
    assert all(after < 0.7 * before for before, after in zip(plain, painted, strict=True))


def test_latents_as_a_style_are_the_picture_that_they_decode_to(run: Command) -> None:
    run("encode", "x.png", "-o", "x.safetensors")
    run("decode", "x.safetensors", "-o", "decoded.png")
    for name in ("x.safetensors", "decoded.png", "x.png"):
        assert run("style-mix", "a.png", name, "--refine", "2", "-o", f"{name}.png").err == ""
    assert data("x.safetensors.png") == data("decoded.png.png") != data("x.png.png")


def test_the_scale_is_for_the_pictures_of_latents_too(run: Command) -> None:
    run("encode", "x.png", "-o", "x.safetensors")
    mix = ("style-mix", "a.png", "x.safetensors", "--refine", "2")
    run(*mix, "-o", "1.png")
    assert run(*mix, "--style-scale", "2", "-o", "2.png").err == ""
    assert data("1.png") != data("2.png")
    told = "pmavae: x.safetensors keeps the scale at which it was encoded: --style-scale is for pictures\n"
    assert run(*mix[:3], "--refine", "0", "--style-scale", "2", "-o", "0.png").err == told


def test_a_style_without_its_picture_is_painted_at_once_and_it_says_so_once(run: Command) -> None:
    run("encode", "x.png", "--only", "style", "-o", "s.safetensors")
    mix = ("style-mix", "a.png", "b.png", "y.png", "--style", "s.safetensors")
    note = "s is a style without its picture, so it is painted roughly, at once: give the picture or its "
    assert run(*mix, "-o", "out/").err == f"pmavae: {note}latents for strokes\n"
    assert run(*mix, "-o", "quiet/", "-q").err == ""
    assert run(*mix, "-o", "asked/", "--refine", "0").err == ""
    for name in ("a.png", "b.png"):
        assert data(f"out/{name}") == data(f"quiet/{name}") == data(f"asked/{name}")


def test_a_style_without_its_picture_takes_no_steps(run: Command) -> None:
    run("encode", "x.png", "--only", "style", "-o", "s.safetensors")
    before = sorted(Path().iterdir())
    reason = (
        "--refine needs pictures, and s is a style by itself: give the picture or its latents, or --refine 0"
    )
    result = run("style-mix", "a.png", "b.png", "s.safetensors", "--refine", "2", status=1)
    assert result.err == f"pmavae: a.png: {reason}\npmavae: b.png: {reason}\n"
    mixture = ("x.png", "--style", "s.safetensors")
    sheet = run("style-mix", "a.png", *mixture, "--refine", "2", "--grid", status=1)
    assert reason in sheet.err and sheet.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def place(sheet: str, row: int, column: int) -> Any:
    """A picture of 48×40 px on a sheet of such, counted from 1."""
    gap, label, width, height = 8, 28, 48, 40
    left, top = gap + column * (width + gap), gap + row * (height + label + gap) + label
    return pixels(sheet)[top : top + height, left : left + width]


def test_a_place_on_a_sheet_is_what_a_run_by_itself_makes(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In strokes where the style is a picture, and at once where it has none."""
    monkeypatch.setattr("pmavae_cli.plugins.style_mix.STEPS", 2)
    Path("palette").mkdir()
    run("encode", "x.png", "--only", "style", "-o", "palette/s.safetensors")
    Path("y.png").rename("palette/y.png")
    contents = ("a.safetensors", "b.safetensors")  # which are not resized
    for name in ("a", "b"):
        run("encode", f"{name}.png")
    result = run("style-mix", *contents, "palette", "--grid", "-o", "sheet.png")
    assert result.err.count("\n") == 1 and "s is a style without its picture" in result.err
    for row, style in ((1, "s.safetensors"), (2, "y.png")):
        for column, content in enumerate(contents, 1):
            run("style-mix", content, f"palette/{style}", "-o", "alone.png", "--overwrite", "-q")
            assert np.array_equal(place("sheet.png", row, column), pixels("alone.png"))
    strokes = ("palette/y.png", "--grid", "--refine", "2", "-o", "strokes.png")
    assert run("style-mix", *contents, *strokes).err == ""
    assert np.array_equal(place("strokes.png", 1, 2), place("sheet.png", 2, 2))
    run("style-mix", *contents, "palette/y.png", "--grid", "--refine", "0", "-o", "rough.png")
    assert not np.array_equal(place("strokes.png", 1, 2), place("rough.png", 1, 2))


def test_colours_and_detail_are_those_of_the_picture_itself(run: Command) -> None:
    noise = np.random.default_rng(0).normal(0, 12, (40, 48, 1))
    muted = 60 + 0.5 * np.asarray(picture()) + noise  # so that every luma has a colour of that chroma
    Image.fromarray(muted.round().astype(np.uint8)).save("muted.png")
    mix = ("style-mix", "muted.png", "x.png", "--refine", "3")
    for name, keep in (
        ("painted", ()),
        ("coloured", ("--preserve-color",)),
        ("detailed", ("--preserve-detail", "1")),
    ):
        run(*mix, *keep, "-o", f"{name}.png")

    def apart(name: str) -> float:
        difference = pixels(f"{name}.png", "YCbCr") - pixels("muted.png", "YCbCr")
        return float(np.abs(difference[..., 1:]).mean())

    assert apart("coloured") < 0.2 * apart("painted")

    def detail(name: str) -> Any:
        luma = pixels(f"{name}.png", "L")
        return (luma[1:] - luma[:-1]).ravel()

    lost, painted = (1 - np.corrcoef(detail(n), detail("muted"))[0, 1] for n in ("detailed", "painted"))
    assert lost < 0.5 * painted
    picture().convert("L").save("grey.png")
    run("style-mix", "grey.png", "x.png", "--preserve-color", "--refine", "2", "-o", "grey-kept.png")
    run("style-mix", "grey.png", "x.png", "--refine", "2", "-o", "grey-painted.png")
    with Image.open("grey-kept.png") as grey, Image.open("grey-painted.png") as painting:
        assert (grey.mode, painting.mode) == ("L", "RGB")


@pytest.mark.parametrize("steps", ["1001", "-1", "2.5", "many"])
def test_wrong_numbers_of_steps(run: Command, steps: str) -> None:
    before = sorted(Path().iterdir())
    assert "'--refine'" in run("style-mix", "a.png", "x.png", "--refine", steps, status=2).err
    assert sorted(Path().iterdir()) == before


def test_a_terminal_sees_the_loss(here: Path, weights: str) -> None:
    picture().save("a.png")
    mix = ("style-mix", "a.png", "a.png", "--refine", "5", "--weights", weights)
    _, shown = on_a_terminal(*mix, "-o", "b.png")
    assert b"a.png" in shown and b"100%" in shown
    assert re.search(rb"loss \d+\.\d{3}", shown)
    assert on_a_terminal(*mix, "-o", "c.png", "-q")[1] == b""
    assert data("b.png") == data("c.png")


def test_a_picture_that_is_painted_step_by_step_is_not_encoded(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pixels are all that counts, and those of a style, which is else encoded at a size of its own."""
    from pmavae import PMAVAE

    picture((64, 48)).save("large.png")
    encode, sizes = PMAVAE.encode, []

    def counting(model: PMAVAE, image: Any, *arguments: Any) -> Any:
        sizes.append(image.shape[:2])
        return encode(model, image, *arguments)

    monkeypatch.setattr(PMAVAE, "encode", counting)
    run("style-mix", "large.png", "x.png", "--refine", "2", "-o", "out.png")
    assert sizes == []
    run("style-mix", "large.png", "x.png", "--refine", "0", "-o", "rough.png")
    assert len(sizes) == 2
