"""Learning curves are drawn from what runs wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks/curves.py"


def test_a_picture_of_two_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, offset in (("one", 0.0), ("two", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"phases": [{"batch": 8}]}))
        lines = ["group,step,images_per_second,psnr"]
        lines += [
            f"{g},{s},{r},{30 + offset}" for s in (100, 200) for g, r in (("train", 4), ("validation", ""))
        ]
        (tmp_path / name / "log.csv").write_text("\n".join(lines))
    command = [
        sys.executable,
        str(SCRIPT),
        str(tmp_path / "one"),
        str(tmp_path / "two"),
        "-o",
        str(tmp_path / "c.png"),
    ]
    subprocess.run(command, check=True)
    with Image.open(tmp_path / "c.png") as image:
        assert image.size[0] > 400 and len(image.convert("RGB").getcolors(1 << 24) or []) > 10
