"""The commands, with networks that have learnt nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_shapes import KINDS, make_classes, make_masks
from pmavae_vision.backbone import backbone_settings, label_settings, small
from pmavae_vision.classifier import build_classifier
from pmavae_vision.segmenter import build_segmenter

from pmavae.network_configs import NetworkConfig
from pmavae.pretrained.network import TaskNetwork
from pmavae.vmamba import VMAMBA
from pmavae_cli.main import main

SMALL = backbone_settings(small(VMAMBA["vmamba-tiny"], 8, (1, 1, 1, 1)))


def test_classify_tells_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**SMALL, "side": 64, **label_settings(KINDS)}
    config = NetworkConfig("tiny", "classify", settings)
    TaskNetwork(build_classifier(settings), config).save_pretrained(tmp_path)
    make_classes(tmp_path / "data", 3, 64, 0)
    assert main(["classify", str(tmp_path / "data/disc"), "--weights", str(tmp_path), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert sum(found["probability"] for found in row["top"]) == pytest.approx(1, abs=1e-5)


def test_segment_writes_beside_a_picture(tmp_path: Path) -> None:
    settings = {**SMALL, "pyramid": 8, **label_settings(("ground", *KINDS))}
    config = NetworkConfig("tiny", "segment", settings)
    TaskNetwork(build_segmenter(settings), config).save_pretrained(tmp_path)
    make_masks(tmp_path / "data", 1, 64, 0)
    picture = tmp_path / "data/images/0-0.png"
    assert main(["segment", str(picture), "--weights", str(tmp_path)]) == 0
    assert picture.with_name("0-0.segment.png").is_file()
