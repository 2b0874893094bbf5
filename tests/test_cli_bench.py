"""`pmavae bench`: figures that follow from their rows, peers, and pictures that cannot be read."""

from __future__ import annotations

import json
import statistics

import pytest
from conftest import picture


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        picture((96, 80), seed).save(folder / f"{seed}.png")
    return folder


def test_rows_and_means_agree(installed, pictures):
    done = installed("bench", pictures, "--json", "--latents", "--perceptual", "none", "--threads", 1)
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in done.lines]
    latents = {row["latent"]: row for row in rows if "latent" in row}
    scores = [row for row in rows if "codec" in row]
    codecs = {row["codec"] for row in scores}
    assert {"jpeg", "webp"} < codecs and any(name.startswith("tiny") for name in codecs)
    for codec in codecs:
        own = [row for row in scores if row["codec"] == codec]
        (mean,) = (row for row in own if row["picture"] == "mean")
        each = [row for row in own if row["picture"] != "mean"]
        assert [row["picture"] for row in each] == ["0.png", "1.png"]
        for column in ("psnr", "ssim", "bits_per_pixel"):
            assert mean[column] == pytest.approx(statistics.fmean(row[column] for row in each))
        assert mean["perceptual"] is None and 0 < mean["ssim"] <= 1
    assert latents["z_base"]["active"] == latents["z_base"]["channels"] == 24


def test_a_jpeg_gets_as_many_bytes_as_the_latents(pmavae, pictures):
    (ours, jpeg) = (
        json.loads(line)
        for line in pmavae("bench", pictures, "--json", "-q", "--peers", "jpeg", "--perceptual", "none").lines
    )
    assert jpeg["bits_per_pixel"] == pytest.approx(ours["bits_per_pixel"], rel=0.2)


def test_better_weights_score_better(pmavae, pictures, weights):
    done = pmavae(
        "bench", pictures, "--weights", "tiny", "--weights", weights, "--json", "-q", "--peers", "none",
        "--perceptual", "none",
    )  # fmt: skip
    trained, untrained = (json.loads(line) for line in done.lines)
    assert untrained["codec"] == "test-tiny" and trained["psnr"] > untrained["psnr"] + 2


def test_an_unreadable_picture_is_named_and_the_others_are_scored(pmavae, pictures):
    (pictures / "2.jpg").write_bytes(b"no picture")
    done = pmavae("bench", pictures, "--peers", "none", "--perceptual", "none")
    assert done.status == 1 and "2.jpg is not a picture" in done.err
    assert sum("tiny" in line for line in done.lines) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["missing"], 1, "missing cannot be read"),
        (["empty"], 1, "empty has no pictures"),
        (["{pictures}", "--peers", "gif"], 2, "--peers gif"),
        (["{pictures}", "--weights", "nowhere.safetensors"], 1, "nowhere.safetensors"),
        (["{pictures}", "--perceptual", "resnet"], 1, "resnet"),
    ],
)
def test_bad_input_is_one_sentence(pmavae, here, pictures, arguments, status, words):
    (here / "empty").mkdir()
    options = [] if "--perceptual" in arguments else ["--perceptual", "none"]
    done = pmavae("bench", *(a.format(pictures=pictures) for a in arguments), *options)
    assert done.status == status and words in done.err and "Traceback" not in done.err
