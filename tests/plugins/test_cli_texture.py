"""`pmavae texture-vary`, from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image

from pmavae_cli.plugins.texture_vary import TextureVary


@pytest.fixture(scope="module")
def prior_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small prior of the released tiny's latents whose every layer does something."""
    from small_priors import prior

    from pmavae import PMAVAE

    folder = tmp_path_factory.mktemp("prior")
    prior(PMAVAE.from_pretrained("tiny")).save_pretrained(folder, "test-prior")
    return str(folder)


@pytest.fixture
def run(pmavae: Command, prior_folder: str, here: Path) -> Command:
    """The task with the test prior, on a.png, which is all texture."""
    noise = np.random.default_rng(0).normal(128, 40, (96, 128, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save("a.png")

    def run(*arguments: Any, status: int = 0) -> Any:
        result = pmavae("texture-vary", *arguments, "--weights", prior_folder)
        assert result.status == status, result.err
        assert "Traceback" not in result.err
        return result

    return run


def data(name: str) -> bytes:
    return Path(name).read_bytes()


def pixels(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_variants_are_numbered_and_the_same_whatever_their_number(run: Command) -> None:
    assert run("a.png", "--count", "3").lines == [f"a.texture-vary-{i}.png" for i in (1, 2, 3)]
    run("a.png", "--count", "2", "-o", "two.png")
    run("a.png", "-o", "one.png")
    run("a.png", "-o", "other.png", "--seed", "5")
    three = [data(f"a.texture-vary-{i}.png") for i in (1, 2, 3)]
    assert [data("two-1.png"), data("two-2.png")] == three[:2] and data("one.png") == three[0]
    assert len({*three, data("other.png")}) == 4


def test_amount_0_is_the_reconstruction(run: Command, pmavae: Command) -> None:
    run("a.png", "--amount", "0", "-o", "0.png")
    run("a.png", "--amount", "1", "-o", "1.png")
    pmavae("decode", "a.png", "-o", "r.png")
    assert data("0.png") == data("r.png") != data("1.png")


def test_it_chains_through_latent_files(run: Command, pmavae: Command) -> None:
    run("a.png", "-o", "direct.png", "--count", "2")
    pmavae("encode", "a.png")
    run("a.safetensors", "-o", "varied.safetensors", "--count", "2")
    pmavae("decode", "varied-2.safetensors", "-o", "chained.png")
    assert data("direct-2.png") == data("chained.png")


def test_a_region_varies_and_the_rest_is_the_reconstruction(run: Command, pmavae: Command) -> None:
    pmavae("decode", "a.png", "-o", "r.png")
    for name, size in (("mask.png", (128, 96)), ("half.png", (64, 48))):
        mask = Image.new("L", size)
        mask.paste(255, (size[0] * 3 // 4, 0, *size))
        mask.save(name)
        run("a.png", "--region", name, "--amount", "1", "-o", "out.png", "--overwrite")
        change = np.abs(pixels("out.png") - pixels("r.png"))
        assert change[:, 96:].mean() > 20 * change[:, :56].mean()
    Image.new("L", (128, 96)).save("black.png")
    run("a.png", "--region", "black.png", "-o", "kept.png")
    assert data("kept.png") == data("r.png")
    Image.new("LA", (128, 96), (255, 0)).save("clear.png")
    run("a.png", "--region", "clear.png", "-o", "clear-kept.png")
    assert data("clear-kept.png") == data("r.png")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("wide.png", "a.png: the mask has 128×48 px and the picture 128×96"),
        ("missing.png", "missing.png"),
        ("broken.png", "broken.png is neither a picture"),
        ("latents.safetensors", "is a latent file: a mask has to be a picture"),
        (".", ". is a folder: --region must be one picture"),
    ],
)
def test_a_bad_mask_is_one_sentence(run: Command, pmavae: Command, mask: str, message: str) -> None:
    Image.new("L", (128, 48), 255).save("wide.png")
    Path("broken.png").write_bytes(b"no picture at all")
    pmavae("encode", "a.png", "-o", "latents.safetensors")
    result = run("a.png", "--region", mask, "-o", "out.png", status=1)
    assert message in result.err and result.err.count("\n") == 1
    assert not Path("out.png").exists()


def test_a_mask_is_not_overwritten(run: Command) -> None:
    Image.new("L", (128, 96), 255).save("mask.png")
    before = data("mask.png")
    result = run("a.png", "--region", "mask.png", "-o", "mask.png", "--overwrite", status=2)
    assert "mask.png" in result.err and data("mask.png") == before


def test_latents_of_another_encoder_are_refused(pmavae: Command, here: Path, tmp_path: Path) -> None:
    from small_priors import codec, prior

    prior(codec()).save_pretrained(tmp_path / "foreign", "foreign-prior")
    picture().save("a.png")
    result = pmavae("texture-vary", "a.png", "--weights", tmp_path / "foreign")
    assert result.status == 1 and result.err.count("\n") == 1
    assert "foreign-prior" in result.err and "tiny" in result.err


def test_a_preset_without_a_prior_says_which_has_one(pmavae: Command, here: Path) -> None:
    picture().save("a.png")
    result = pmavae("texture-vary", "a.png", "--preset", "small")
    assert result.status == 1 and result.err.count("\n") == 1
    assert "preset small has no weights for texture-vary" in result.err and "--preset tiny" in result.err


@pytest.mark.parametrize("wrong", [("--amount", "1.2"), ("--amount", "nan"), ("--count", "0")])
def test_wrong_usage(run: Command, wrong: tuple[str, str]) -> None:
    run("a.png", *wrong, status=2)


def test_the_task_declares_what_it_does() -> None:
    task = TextureVary()
    assert task.count(variants=7) == 7 and task.input_kind == "latents" and task.weights == "texture-vary"
