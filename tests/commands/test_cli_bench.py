"""`pmavae bench`: figures that follow from their rows, peers, and pictures that cannot be read."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from conftest import picture
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


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
    assert {"linear", "jpeg", "webp"} < codecs and any(name.startswith("tiny") for name in codecs)
    for codec in codecs:
        own = [row for row in scores if row["codec"] == codec]
        (mean,) = (row for row in own if row["picture"] == "mean")
        each = [row for row in own if row["picture"] != "mean"]
        assert [row["picture"] for row in each] == [str(pictures / "0.png"), str(pictures / "1.png")]
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
    (pictures / "._0.png").write_bytes(b"what a Mac leaves behind")
    done = pmavae("bench", pictures, "--peers", "none", "--perceptual", "none", "--latents")
    assert done.status == 1
    (message,) = done.err.splitlines()
    assert "2.jpg is not a picture" in message
    scores, latents = done.out.decode().split("\n\n")
    assert scores.count("tiny") == 3 and latents.count("z_") == 3


def test_an_equal_picture_has_no_decibels_in_json(pmavae, tmp_path):
    Image.new("RGB", (96, 80), (128, 128, 128)).save(tmp_path / "grey.png")
    done = pmavae("bench", tmp_path, "--json", "-q", "--peers", "jpeg", "--perceptual", "none")
    ours, jpeg = (json.loads(line, parse_constant=pytest.fail) for line in done.lines)
    assert ours["psnr"] > 60 and jpeg["psnr"] is None and jpeg["ssim"] == 1


def test_a_picture_that_a_peer_cannot_hold_is_named(pmavae, pictures):
    Image.new("RGB", (16_400, 64)).save(pictures / "wide.png")
    done = pmavae("bench", pictures, "--json", "--peers", "webp", "--perceptual", "none")
    assert done.status == 1 and "wide.png: WEBP cannot hold this picture" in done.err
    rows = [json.loads(line) for line in done.lines]
    scored = [
        (row["codec"], row["picture"]) for row in rows if row.get("picture") != "mean" and "codec" in row
    ]
    assert ("webp", str(pictures / "1.png")) in scored
    assert ("webp", str(pictures / "wide.png")) not in scored


def test_two_weights_of_one_id_are_two_rows(pmavae, pictures, weights, tmp_path):
    other = shutil.copytree(weights, tmp_path / "other")
    done = pmavae(
        "bench", pictures, "--weights", weights, "--weights", other, "--json", "-q", "--peers", "none",
        "--perceptual", "none",
    )  # fmt: skip
    names = [json.loads(line)["codec"] for line in done.lines]
    assert names == ["test-tiny", f"test-tiny ({other})"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["missing"], 1, "missing cannot be read"),
        (["empty"], 1, "empty has no pictures"),
        (["{pictures}", "--peers", "gif"], 2, "--peers gif"),
        (["{pictures}/0.png"], 1, "0.png cannot be read"),
        (["{pictures}", "--preset", "tiny", "--weights", "tiny"], 2, "not both"),
        (["{pictures}", "--save", "{pictures}/0.png"], 2, "0.png exists"),
        (["{pictures}", "--save", "nowhere/scores.json"], 2, "nowhere is not a folder"),
        (["{pictures}", "--weights", "nowhere.safetensors"], 1, "nowhere.safetensors"),
        (["{pictures}", "--perceptual", "resnet"], 1, "resnet"),
    ],
)
def test_bad_input_is_one_sentence(pmavae, here, pictures, arguments, status, words):
    (here / "empty").mkdir()
    options = [] if "--perceptual" in arguments else ["--perceptual", "none"]
    done = pmavae("bench", *(a.format(pictures=pictures) for a in arguments), *options)
    assert done.status == status and words in done.err and "Traceback" not in done.err


def test_several_folders_of_which_one_is_missing(pmavae, here, pictures):
    done = pmavae(
        "bench", pictures, "gone", "--limit", 1, "--json", "--save", "scores.json", "--peers", "linear",
        "--perceptual", "none", "--preset", "tiny",
    )  # fmt: skip
    assert done.status == 1 and "gone cannot be read" in done.err
    saved = json.loads((here / "scores.json").read_text())
    printed = [json.loads(line) for line in done.lines]
    assert saved["rows"] + saved["means"] == [row for row in printed if "codec" in row]
    assert [row["picture"] for row in saved["rows"]] == [str(pictures / "0.png")] * 2
    assert saved["latents"] == []


def test_the_linear_peer_is_worse_than_the_whole_model_on_a_photograph(pmavae, tmp_path):
    ridge = Image.open(EXAMPLES / "content-ridge.jpg").resize((256, 192))
    ridge.save(tmp_path / "ridge.png")
    done = pmavae("bench", tmp_path, "--peers", "linear", "--perceptual", "none", "--json", "-q")
    ours, linear = (json.loads(line) for line in done.lines)
    assert 20 < linear["psnr"] < ours["psnr"]
    assert linear["bits_per_pixel"] == 3.0 < ours["bits_per_pixel"]


def test_a_peer_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As diffusers beside a torchvision that was built for another torch."""
    import huggingface_hub

    from pmavae_cli.commands.bench.baselines import BASELINES

    class Broken(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("operator torchvision::nms does not exist")

    broken = Broken("diffusers")
    broken.__spec__ = ModuleSpec("diffusers", None)
    broken.__path__ = []
    monkeypatch.setitem(sys.modules, "diffusers", broken)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "a file")
    assert "cannot be imported" in (BASELINES["taesd"].missing() or "")
