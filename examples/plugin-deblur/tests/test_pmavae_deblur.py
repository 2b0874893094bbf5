"""The task deblur, its command and its training, by the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pmavae_cli.main import main


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A picture, and blurred.png in the current folder."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[0:96, 0:128]
    waves = [128 + 60 * np.sign(np.sin(x / 9 + c)) + 40 * np.cos(y / 7 + c) for c in range(3)]
    sharp = Image.fromarray(np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8))
    sharp.filter(ImageFilter.GaussianBlur(1)).save("blurred.png")
    return np.asarray(sharp, np.float32)


def error(path: str, original: np.ndarray) -> float:
    with Image.open(path) as image:
        return float(np.square(np.asarray(image, np.float32) - original).mean())


def test_a_blurred_picture_comes_nearer_to_what_it_was(original: np.ndarray) -> None:
    assert main(["deblur", "blurred.png", "-o", "out.png"]) == 0
    assert main(["deblur", "blurred.png", "--strength", "0", "-o", "same.png"]) == 0
    assert error("out.png", original) < 0.8 * error("blurred.png", original)
    assert error("same.png", original) == error("blurred.png", original)


def test_the_command_tells_how_sharp(original: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deblur", "blurred.png", "-o", "out.png"]) == 0
    capsys.readouterr()
    assert main(["sharpness", "blurred.png", "out.png"]) == 0
    before, after = (float(line.split("\t")[1]) for line in capsys.readouterr().out.splitlines())
    assert after > before
