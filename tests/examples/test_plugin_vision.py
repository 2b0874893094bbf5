"""examples/plugin-vision: each of its networks trained on made pictures, and used; its operators."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pmavae.errors import PMAVAEError, WeightsError
from pmavae.training.config import duration
from pmavae.vmamba import VMAMBA, VMamba
from pmavae_cli.commands.train import work
from pmavae_cli.main import main

PLUGIN = Path(__file__).parents[2] / "examples/plugin-vision"
NEEDED = ("torchvision", "timm", "segmentation_models_pytorch")
needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not there")
needs_all = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED), reason="the libraries of the plugin are not there"
)
SIDES = {"classify": 32, "segment": 64, "detect": 64}
PHASES = {  # steps, crops a step, learning rate
    "classify": (40, 16, 4e-3),
    "segment": (60, 8, 5e-3),
    "detect": (100, 4, 4e-3),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The plugin installed, with small networks; a folder, and what makes pictures with labels."""
    site = tmp_path_factory.mktemp("site")
    info = site / "pmavae_vision-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pmavae-vision\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[pmavae.plugins]\nvision = pmavae_vision\n")
    with pytest.MonkeyPatch.context() as patch:
        for folder in (site, PLUGIN / "src", PLUGIN / "tests"):
            patch.syspath_prepend(folder)
        import made_shapes
        from pmavae_vision import backbone, trainings

        small = backbone.small(VMAMBA["vmamba-tiny"], 16, (1, 1, 1, 1))
        patch.setitem(backbone.VARIANTS, "tiny", small)
        patch.setattr(trainings.ClassifyTraining, "side", SIDES["classify"])
        patch.setattr(trainings.SegmentTraining, "pyramid", 32)
        for name, value in {"pyramid": 32, "representation": 64, "side": 64, "samples": 32}.items():
            patch.setattr(trainings.DetectTraining, name, value)
        yield SimpleNamespace(folder=tmp_path_factory.mktemp("made"), shapes=made_shapes, small=small)


def make(made: SimpleNamespace, task: str, name: str, count: int, seed: int) -> Path:
    """Made data of a task in a folder of its own."""
    folder: Path = made.folder / f"{task}-{name}"
    maker = {"classify": "make_classes", "segment": "make_masks", "detect": "make_coco"}[task]
    getattr(made.shapes, maker)(folder, count, SIDES[task], seed)
    return folder


def train(task: str, data: Path, out: Path, *more: Any) -> int:
    """A short run on the CPU."""
    steps, batch, rate = PHASES[task]
    phase = {"crop": SIDES[task], "batch": batch, "learning_rate": rate}
    settings = [f"phases.0.{name}={value}" for name, value in phase.items()] + ["precision=fp32"]
    options = [text for setting in settings for text in ("--set", setting)]
    if "--steps" not in more:
        options += ["--steps", str(steps)]
    fixed = ["--device", "cpu", "--threads", "1", "--log-every", "10", "-q"]
    return main(
        ["train", "--task", task, "--data", str(data), "--out", str(out), *options, *fixed, *map(str, more)]
    )


def trained(made: SimpleNamespace, task: str) -> tuple[Path, list[dict[str, str]]]:
    """A run with other pictures to validate on, and its log."""
    count = 30 if task == "classify" else 40
    data, held = make(made, task, "data", count, 0), make(made, task, "held", 8, 1)
    out = made.folder / f"run-{task}"
    assert train(task, data, out, "--validate", held) == 0
    with (out / "log.csv").open() as file:
        return out, list(csv.DictReader(file))


def falls(rows: list[dict[str, str]]) -> bool:
    """Whether the last losses of training are well below the first."""
    losses = [float(row["loss"]) for row in rows if row["group"] == "train"]
    return losses[-1] < 0.7 * losses[0]


def test_a_classifier_learns_and_names_what_it_sees(
    made: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rows = trained(made, "classify")
    assert falls(rows)
    capsys.readouterr()
    held, right = made.folder / "classify-held", 0
    for kind in made.shapes.KINDS:
        assert main(["classify", str(held / kind), "--weights", str(out), "--json", "--top", "2"]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(found) == 8 and all(len(row["top"]) == 2 for row in found)
        right += sum(row["top"][0]["label"] == kind for row in found)
    assert right / 24 > 0.7  # by chance a third
    picture = str(held / "disc/1-0.png")
    assert main(["classify", picture, "--weights", str(out)]) == 0
    table = capsys.readouterr().out
    assert all(kind in table for kind in made.shapes.KINDS) and table.count("%") == 3
    # What goes on from these weights, and what does not fit.
    data = made.folder / "classify-data"
    assert train("classify", data, made.folder / "on", "--init-from", out, "--steps", "1") == 0


@needs_all
def test_a_segmenter_learns_and_paints_classes(
    made: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rows = trained(made, "segment")
    assert falls(rows)
    assert (out / "contact-sheet.png").stat().st_size > 1000
    capsys.readouterr()
    held, results = made.folder / "segment-held", made.folder / "classes"
    assert main(["segment", str(held / "images"), "--weights", str(out), "-o", str(results), "--json"]) == 0
    shares = [json.loads(line)["shares"] for line in capsys.readouterr().out.splitlines()]
    overlaps = []
    for path, share in zip(sorted(results.iterdir()), shares, strict=True):
        with Image.open(path) as image, Image.open(held / "masks" / path.name) as mask:
            assert image.mode == "P"
            found, wanted = np.array(image), np.array(mask)
        assert sum(share.values()) == pytest.approx(1, abs=1e-4)
        assert share["ground"] == pytest.approx((found == 0).mean(), abs=1e-5)
        overlaps += [
            ((found == k) & (wanted == k)).sum() / ((found == k) | (wanted == k)).sum()
            for k in np.unique(wanted)
            if k
        ]
    assert np.mean(overlaps) > 0.5
    picture = str(held / "images/1-0.png")
    over = made.folder / "over.png"
    command = ["segment", picture, "--weights", str(out), "-o", str(over), "--overlay"]
    assert main([*command, "0"]) == 0
    assert main([*command, "1"]) == 1
    assert f"{over} exists already: give --overwrite" in capsys.readouterr().err
    with Image.open(over) as image, Image.open(picture) as original:
        assert np.array_equal(np.array(image), np.array(original.convert("RGB")))


@needs_torchvision
def test_a_detector_learns_and_finds_objects(
    made: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    from pmavae_vision.coco import decode_mask

    out, rows = trained(made, "detect")
    assert falls(rows)
    capsys.readouterr()
    held = made.folder / "detect-held"
    assert main(["detect", str(held), "--weights", str(out), "--json"]) == 0
    found = {
        Path(row["input"]).name: row["objects"]
        for row in map(json.loads, capsys.readouterr().out.splitlines())
    }
    data = json.loads((held / "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    kinds = {category["id"]: category["name"] for category in data["categories"]}
    overlaps = []
    for row in data["annotations"]:
        wanted = decode_mask(row["segmentation"], 64, 64)
        masks = [
            decode_mask(thing["mask"], 64, 64)
            for thing in found[names[row["image_id"]]]
            if thing["label"] == kinds[row["category_id"]]
        ]
        overlaps.append(max([float((m & wanted).sum() / (m | wanted).sum()) for m in masks], default=0.0))
    assert np.mean(overlaps) > 0.5
    best = max(things[0]["score"] for things in found.values() if things)
    picture = str(held / "1-0.png")
    drawn, text = made.folder / "drawn.png", made.folder / "found.json"
    assert main(["detect", picture, "--weights", str(out), "-o", str(drawn)]) == 0
    with Image.open(drawn) as image, Image.open(picture) as original:
        assert image.size == original.size and np.any(np.array(image) != np.array(original))
    assert (
        main(["detect", picture, "--weights", str(out), "-o", str(text), "--max", "1", "--score", "0"]) == 0
    )
    row = json.loads(text.read_text())
    assert len(row["objects"]) == 1 and set(row["objects"][0]) == {"label", "score", "box", "mask"}
    capsys.readouterr()
    assert main(["detect", str(held), "--weights", str(out), "--score", "1", "--json"]) == 0
    assert best < 1 and not any(json.loads(line)["objects"] for line in capsys.readouterr().out.splitlines())


def test_a_released_classifier_is_given_its_labels(
    made: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = VMamba(replace(made.small, classes=7)).eval()
    model.save_pretrained(tmp_path / "released")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"name {i}" for i in range(7)))
    command = ["classify", str(tmp_path / "a.png"), "--weights", str(tmp_path / "released"), "--json"]
    assert main([*command, "--labels", str(labels)]) == 0
    top = json.loads(capsys.readouterr().out)["top"]
    # Shorter side 256 px, bicubic; 224 px in the middle; the mean and deviation of ImageNet.
    square = Image.fromarray(pixels).resize((256, 358), Image.Resampling.BICUBIC).crop((16, 67, 240, 291))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.from_numpy((np.array(square) / 255 - mean) / deviation).permute(2, 0, 1)[None].float()
    expected = model(x).softmax(1)[0].detach()
    assert [row["class"] for row in top] == expected.argsort(descending=True)[:5].tolist()
    assert top[0]["label"] == f"name {top[0]['class']}"
    assert [row["probability"] for row in top] == pytest.approx(
        expected.sort(descending=True)[0][:5], abs=1e-5
    )
    labels.write_text("too\nfew")
    assert main([*command, "--labels", str(labels)]) == 1
    assert "has 2 labels for 7 classes" in capsys.readouterr().err


def test_a_bad_picture_and_bad_weights_are_one_sentence(
    made: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    VMamba(replace(made.small, classes=2)).save_pretrained(tmp_path / "released")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 30)).save(tmp_path / "good.png")
    pictures = [str(tmp_path / name) for name in ("bad.png", "good.png", "missing.png")]
    assert main(["classify", *pictures, "--weights", str(tmp_path / "released"), "--json"]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["input"] for line in captured.out.splitlines()] == [pictures[1]]
    first, second = captured.err.splitlines()
    assert "bad.png is not a picture" in first and "missing.png cannot be read: No such file" in second
    for task in ("classify", "segment", "detect"):
        assert main([task, pictures[1]]) == 2
        assert f"{task} comes with no weights" in capsys.readouterr().err
    for task in ("segment", "detect"):
        assert main([task, pictures[1], "--weights", str(tmp_path / "released")]) == 1
        assert f"has weights of the task vmamba, not {task}" in capsys.readouterr().err


def test_no_output_replaces_another_or_its_input(made: SimpleNamespace, tmp_path: Path) -> None:
    from pmavae_vision.pictures import Outputs, output_path

    first, second = tmp_path / "a.jpg", tmp_path / "a.png"
    for path in (first, second):
        path.write_bytes(b"")
    outputs, folder = Outputs(overwrite=True), tmp_path / "out"
    place = output_path(first, "segment", folder, True, ".png")
    outputs.claim(place, first)
    outputs.write(place, b"x")
    outputs.claim(place, first)
    with pytest.raises(PMAVAEError, match=r"is the output of .*a\.jpg already, not of .*a\.png"):
        outputs.claim(output_path(second, "segment", folder, True, ".png"), second)
    with pytest.raises(PMAVAEError, match="over its own input"):
        outputs.claim(output_path(second, "segment", tmp_path, True, ".png"), second)
    with pytest.raises(PMAVAEError, match="exists already"):
        Outputs(overwrite=False).claim(place, first)
    assert output_path(first, "detect", None, False, ".png") == tmp_path / "a.detect.png"


def test_a_missing_library_is_named_with_its_remedy(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmavae_vision import torchvision_operators

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_operators, "find_spec", lambda name: None)
    with pytest.raises(PMAVAEError, match="pip install torchvision"):
        torchvision_operators.import_torchvision()


@needs_torchvision
def test_missing_upernet_is_named_with_its_remedy(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmavae_vision import trainings

    training = trainings.SegmentTraining()
    settings = {**training.network_settings("tiny"), "labels_0": ["a", "b"]}
    for name in [name for name in sys.modules if name.startswith("segmentation_models_pytorch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(PMAVAEError, match="pip install segmentation-models-pytorch timm"):
        training.build_network(settings)


@pytest.mark.parametrize("task", ["classify", "segment", "detect"])
def test_a_row_follows_from_its_number_alone(made: SimpleNamespace, task: str) -> None:
    from pmavae_vision import trainings

    data = make(made, task, "few", 12, 5)
    training = {
        "classify": trainings.ClassifyTraining,
        "segment": trainings.SegmentTraining,
        "detect": trainings.DetectTraining,
    }[task]()
    examples = training.open_examples([data], None)
    assert examples.held_out == (3 if task == "classify" else 1)
    whole, labels = examples.draw(48, seed=1, step=2, first=0, count=4)
    part, own = examples.draw(48, seed=1, step=2, first=2, count=2)
    assert whole.shape == (4, 48, 48, 3) and np.array_equal(whole[2:], part)
    assert str(labels[2:]) == str(own)
    other, _ = examples.draw(48, seed=1, step=3, first=0, count=4)
    assert not np.array_equal(whole, other)


def test_a_dry_run_tells_and_a_stopped_run_goes_on_exactly(
    made: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(made, "classify", "short", 10, 3)
    assert train("classify", data, made.folder / "dry", "--dry-run") == 0
    assert "27 to train on, 3 to validate on" in capsys.readouterr().out
    assert train("classify", data, made.folder / "whole", "--steps", "4") == 0
    # A session that has no time at all ends after one step.
    monkeypatch.setattr(work, "duration", lambda text: 0.0 if text == "1s" else duration(text))
    for _ in range(4):
        assert train("classify", data, made.folder / "parts", "--steps", "4", "--pause-after", "1s") == 0
    saved = {path.name for path in (made.folder / "parts/checkpoints").iterdir()}
    assert "step-00000004" in saved and len(saved) > 1
    whole, parts = (load_file(made.folder / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_network_starts_from_a_backbone(made: SimpleNamespace, tmp_path: Path) -> None:
    from pmavae_vision.backbone import fill

    source = VMamba(replace(made.small, classes=9))
    source.save_pretrained(tmp_path)
    target = VMamba(replace(made.small, classes=3))
    head = target.classifier.head.weight.clone()
    fill(target, tmp_path / "model.safetensors", "training classify")
    block = "layers.2.blocks.0.op.x_proj_weight"
    assert torch.equal(target.state_dict()[block], source.state_dict()[block])
    assert torch.equal(target.classifier.head.weight, head)
    with pytest.raises(WeightsError, match="another shape than this training detect"):
        fill(
            VMamba(replace(made.small, depths=(1, 1, 2, 1))),
            tmp_path / "model.safetensors",
            "training detect",
        )


def test_a_training_starts_from_a_released_backbone(
    made: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make(made, "classify", "start", 10, 4)
    VMamba(replace(made.small, classes=9)).save_pretrained(tmp_path / "fits")
    VMamba(replace(made.small, depths=(1, 2, 1, 1))).save_pretrained(tmp_path / "other")
    out = tmp_path / "run"
    assert train("classify", data, out, "--init-from", tmp_path / "fits", "--dry-run") == 0
    facts = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["starts", "from", str(tmp_path / "fits")] in facts
    assert train("classify", data, out, "--init-from", tmp_path / "other") == 1
    assert "has a VMamba of another shape than this training classify" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("task", ["classify", "segment", "detect"])
def test_data_of_another_kind_are_refused_in_a_sentence(
    made: SimpleNamespace, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert train(task, tmp_path, tmp_path / "run") == 1
    reason = {
        "classify": "has folders of 0 classes: a class is a folder in it",
        "segment": "labels.txt cannot be read",
        "detect": "cannot be read as annotations of COCO (No such file",
    }[task]
    err = capsys.readouterr().err
    assert reason in err and len(err.splitlines()) == 1


def test_every_option_is_in_the_documentation(made: SimpleNamespace) -> None:
    import pmavae_vision

    text = (PLUGIN.parent.parent / "docs/vision.md").read_text()
    commands = {command.name: command for command in pmavae_vision.register_commands()}
    for name in ("classify", "detect", "segment"):
        assert f"pmavae {name} INPUT" in text
        for param in commands[name].params:
            if isinstance(param, click.Option):
                assert any(f"`{name}" in text for name in param.opts), param.opts


def test_run_lengths_of_coco_are_read(made: SimpleNamespace) -> None:
    from pmavae_vision.coco import decode_mask
    from pmavae_vision.detector import Detection

    mask = np.random.default_rng(0).random((9, 13)) < 0.4
    for whole in (mask, np.ones((3, 2), bool), np.zeros((3, 2), bool)):
        row = Detection(0, 0.5, (0, 0, 1, 1), whole).row(["a"])
        assert np.array_equal(decode_mask(row["mask"], *whole.shape), whole)
        packed = {**row["mask"], "counts": compressed(row["mask"]["counts"])}
        assert np.array_equal(decode_mask(packed, *whole.shape), whole)
    with pytest.raises(ValueError, match="size"):
        decode_mask({"size": [2, 2], "counts": [1, 2]}, 2, 2)


def compressed(counts: list[int]) -> str:
    """As COCO packs run lengths: differences to the last but one, five bits a character, lowest first."""
    text = ""
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr((group | (32 if more else 0)) + 48)
    return text


def slow_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Every pair compared, from the definition."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for j in kept:
            width = max(0, min(boxes[i][2], boxes[j][2]) - max(boxes[i][0], boxes[j][0]))
            height = max(0, min(boxes[i][3], boxes[j][3]) - max(boxes[i][1], boxes[j][1]))
            areas = [(boxes[k][2] - boxes[k][0]) * (boxes[k][3] - boxes[k][1]) for k in (i, j)]
            if width * height / (sum(areas) - width * height) > threshold:
                break
        else:
            kept.append(i)
    return kept


def test_boxes_that_overlap_are_left_out(made: SimpleNamespace) -> None:
    from pmavae_vision.torchvision_operators import nms

    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 40, (80, 2))], 1).astype(np.float32)
    scores = random.random(80).astype(np.float32)
    for threshold in (0.1, 0.5, 0.9):
        found = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).tolist()
        assert found == slow_nms(boxes, scores, threshold)
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)


@needs_torchvision
def test_regions_are_pooled_as_torchvision_pools_them(made: SimpleNamespace) -> None:
    from pmavae_vision.torchvision_operators import import_torchvision, roi_align

    import_torchvision()
    # What torchvision itself has in plain torch, to be compiled; here as it is.
    reference = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 13, 17, requires_grad=True)
    corners = torch.rand(9, 2) * 30
    rois = torch.cat([torch.randint(2, (9, 1)).float(), corners, corners + 1 + torch.rand(9, 2) * 20], 1)
    for ratio in (2, 0):
        for aligned in (False, True):
            found = roi_align(maps, rois, 0.25, 3, 4, ratio, aligned)
            wanted = reference(maps, rois, 0.25, 3, 4, ratio, aligned)
            assert torch.allclose(found, wanted, atol=1e-5)
            weights = torch.randn_like(found)
            gradients = [torch.autograd.grad((y * weights).sum(), maps)[0] for y in (found, wanted)]
            assert torch.allclose(*gradients, atol=1e-5)
    outside = torch.tensor(
        [[0.0, 200, 200, 220, 220]]
    )  # of the map, where torchvision's kernel counts nothing
    assert not roi_align(maps, outside, 0.25, 3, 4, 2, False).any()
    assert roi_align(maps, rois[:0], 0.25, 3, 4, 2, False).shape == (0, 5, 3, 4)


def test_help_needs_no_torch(made: SimpleNamespace) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pmavae_vision as p; p.register_trainings(); "
        "p.register_commands(); print(sorted({'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, PLUGIN / "src"], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
