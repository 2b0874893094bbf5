"""The task blend, by the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pmavae_cli.main import main


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """a.png is dark, b.png bright, c.png of another size."""
    monkeypatch.chdir(tmp_path)
    ramp = np.mgrid[0:32, 0:48].sum(0)[..., None].repeat(3, -1)
    for name, values in (("a", ramp), ("b", 255 - ramp), ("c", ramp[:, :32])):
        Image.fromarray(values.astype(np.uint8)).save(f"{name}.png")


def blend(*arguments: str) -> NDArray[np.float64]:
    assert main(["blend", *arguments, "-o", "out.png", "--overwrite"]) == 0
    with Image.open("out.png") as image:
        return np.asarray(image.convert("RGB"), dtype=float)


def decoded(name: str) -> NDArray[np.float64]:
    assert main(["decode", name, "-o", "decoded.png", "--overwrite"]) == 0
    with Image.open("decoded.png") as image:
        return np.asarray(image.convert("RGB"), dtype=float)


def test_all_the_weight_on_one_picture_gives_that() -> None:
    assert np.abs(blend("a.png", "b.png", "--weights", "1,0") - decoded("a.png")).mean() < 1
    assert np.abs(blend("a.png", "b.png", "--weights", "0,3") - decoded("b.png")).mean() < 1


def test_a_blend_lies_between_and_goes_with_the_weights() -> None:
    a, b = decoded("a.png").mean(), decoded("b.png").mean()
    nearer_a, middle = blend("a.png", "b.png", "--weights", "3,1").mean(), blend("a.png", "b.png").mean()
    assert a < nearer_a < middle < b


def test_what_is_added_and_taken_away_again_leaves_nothing() -> None:
    assert np.abs(blend("a.png", "b.png", "b.png", "--weights", "1,-1,1") - decoded("a.png")).mean() < 1


def test_another_size_and_another_number_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blend", "a.png", "c.png"]) == 1
    error = capsys.readouterr().err
    assert "c.png is 32 × 32 px and a.png 48 × 32: make all pictures the same size" in error
    assert len(error.splitlines()) == 1
    assert main(["blend", "a.png", "b.png", "--weights", "1,2,3"]) == 1
    assert "--weights has 3 numbers for 2 pictures: give one for each" in capsys.readouterr().err
    assert not Path("blend.png").exists()


@pytest.mark.parametrize("text", ["", "1,x", "1,-1", "nan,1", "inf,1", "1,,2"])
def test_what_is_no_list_of_weights_is_refused(text: str) -> None:
    assert main(["blend", "a.png", "b.png", f"--weights={text}"]) == 2
