"""Every bad input ends in one sentence that names it, with no output and no traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Command, picture
from safetensors.torch import load_file, save_file

from pmavae_cli.main import main

SOUND = ("sound.png", "sound.safetensors")


@pytest.fixture
def sound(here: Path, weights: str) -> Path:
    """sound.png and its latents, sound.safetensors."""
    picture().save("sound.png")
    assert main(["encode", "sound.png", "-q", "--weights", weights]) == 0
    return here


def missing(name: str) -> None:
    pass


def empty(name: str) -> None:
    Path(name).touch()


def text(name: str) -> None:
    Path(name).write_text("Dear diary,\ntoday I was a picture.\n")


def truncated(name: str) -> None:
    data = Path("sound.png").read_bytes()
    Path(name).write_bytes(data[: len(data) // 2])


def small(name: str) -> None:
    picture((48, 8)).save(name)


def folder(name: str) -> None:
    Path(name).mkdir()


def foreign(name: str) -> None:
    save_file({"weight": torch.zeros(3, 3)}, name)


def changed(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[str], None]:
    def make(name: str) -> None:
        from safetensors import safe_open

        with safe_open("sound.safetensors", "pt") as file:
            metadata = {k: v for k, v in file.metadata().items() if "crc" not in k}
        tensors = load_file("sound.safetensors")
        change(tensors)
        save_file(tensors, name, metadata)

    return make


def wrong_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["z_base"] = torch.zeros(24, 2, 3, dtype=torch.float16)


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["z_detail"][0, 0, 0] = float("nan")


CASES = {
    "missing.jpg": (missing, "does not exist"),
    "empty.png": (empty, "is empty"),
    "empty.safetensors": (empty, "is empty"),
    "text.jpg": (text, "is neither a picture"),
    "text.safetensors": (text, "is not a safetensors file"),
    "truncated.png": (truncated, "is damaged or truncated"),
    "small.png": (small, "is 48×8 px"),
    "folder.png": (folder, "has no pictures or latent files in it"),
    "foreign.safetensors": (foreign, "is a safetensors file but not a pmavae latent file"),
    "foreign.png": (foreign, "is a safetensors file but not a pmavae latent file"),
    "shape.safetensors": (changed(wrong_shape), "z_base has the shape (24, 2, 3)"),
    "nan.safetensors": (changed(not_a_number), "z_detail has values that are not finite"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("task", ["encode", "decode", "style-mix"])
def test_a_bad_input(pmavae: Command, sound: Path, weights: str, task: str, name: str) -> None:
    make, cause = CASES[name]
    make(name)
    before = sorted(sound.iterdir())
    style = ["sound.png"] if task == "style-mix" else []
    result = pmavae(task, name, *style, "-o", "out.png", "--weights", weights)
    assert (result.status, result.out) == (1, b"")
    assert result.err.startswith(f"pmavae: {name} ")
    assert result.err.count("\n") == 1
    assert cause in result.err
    assert sorted(sound.iterdir()) == before


@pytest.mark.parametrize("name", CASES)
def test_a_bad_style_fails_before_any_content_is_read(
    pmavae: Command, sound: Path, weights: str, name: str
) -> None:
    make, cause = CASES[name]
    make(name)
    empty("bad-content.png")
    result = pmavae("style-mix", "bad-content.png", "sound.png", name, "-o", "out/", "--weights", weights)
    assert (result.status, result.out) == (1, b"")
    assert result.err.startswith(f"pmavae: {name} ")
    assert result.err.count("\n") == 1
    assert cause in result.err
    assert not Path("out").exists()


@pytest.mark.parametrize("output", ["sound.png/out.png", "no-such-folder/out.png", "/proc/out.png"])
def test_an_output_that_cannot_be_written(pmavae: Command, sound: Path, weights: str, output: str) -> None:
    result = pmavae("decode", "sound.safetensors", "-o", output, "--weights", weights)
    # The superuser seems to have every permission until the file is written.
    found_late = output.startswith("/proc") and os.access("/proc", os.W_OK)
    assert (result.status, result.out) == (1 if found_late else 2, b"")
    assert f"{output} cannot be written: " in result.err
    assert result.err.count("\n") == 1


def test_weights_that_are_not_there(pmavae: Command, sound: Path) -> None:
    result = pmavae("decode", "sound.png", "-o", "out.png", "--weights", "nowhere")
    assert (result.status, result.out) == (1, b"")
    assert result.err.startswith("pmavae: there are no weights nowhere")
    assert not Path("out.png").exists()


def test_the_installed_command_says_the_same(installed: Command, sound: Path, weights: str) -> None:
    truncated("truncated.png")
    text("text.jpg")
    result = installed("decode", "truncated.png", "text.jpg", "gone.png", "-o", "out/", "--weights", weights)
    assert (result.status, result.out) == (1, b"")
    names = [line.split()[1] for line in result.err.splitlines()]
    assert names == ["gone.png", "truncated.png", "text.jpg"]
    assert not Path("out").exists()


def test_debug_shows_where_a_file_failed(pmavae: Command, sound: Path, weights: str) -> None:
    empty("empty.png")
    result = pmavae("decode", "empty.png", "-o", "out.png", "--debug", "--weights", weights)
    assert result.status == 1
    assert "Traceback" in result.err
    assert "ImageError: empty.png is empty" in result.err
