"""benchmarks/vmamba_scaling.py: its exponents and its plot; docs/vmamba-scaling.md agrees with itself."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/vmamba-scaling.md").read_text("utf-8")


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import vmamba_scaling

    return vmamba_scaling


def points(linear: str, quadratic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for side in (224, 512, 1024):
        pixels = float(side**2)
        costs = {"wall": 1.0, "spread": 1.0}
        found.append(
            {"model": linear, "side": side, "processor": pixels / 1e5, "memory": 2**20 + pixels, **costs}
        )
        square = {"processor": pixels**2 / 1e11, "memory": pixels * 30}
        found.append({"model": quadratic, "side": side, **square, **costs})
    found.append({"model": quadratic, "side": 1536})  # where there was too little memory
    return found


def test_exponents_are_slopes(scaling: Any) -> None:
    measured = points("vmamba-t", "vit-s")
    for smallest in (0, 512):
        assert scaling.exponent(measured, "vmamba-t", "processor", smallest) == pytest.approx(1)
        assert scaling.exponent(measured, "vit-s", "processor", smallest) == pytest.approx(2)
    assert scaling.exponent(measured, "vmamba-t", "memory") < 0.9  # what does not grow counts too
    assert math.isnan(scaling.exponent(measured, "vit-s", "processor", 1024))


def test_table_and_plot(scaling: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = points("vmamba-t", "vit-s")
    scaling.print_table(measured)
    out = capsys.readouterr().out
    assert "| 1536² | ViT-S/16 | out of memory |" in out
    assert "| ViT-S/16 | 2.00 | 2.00 | 1.00 | 1.00 |" in out
    scaling.plot(measured, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        found = {colour for _, colour in image.convert("RGB").getcolors(10_000)}
    assert {scaling.MODELS["vmamba-t"][1], scaling.MODELS["vit-s"][1]} <= found


def test_the_exponents_in_the_documentation_are_those_of_its_figures(scaling: Any) -> None:
    names = {name: model for model, (name, _) in scaling.MODELS.items()}
    row = r"^\| ([0-9]+)² \| (.+?) \| ([0-9.]+) s \| [0-9.]+ s \| [0-9.]+ \| ([0-9]+) MiB \|$"
    measured = [
        {"model": names[name], "side": int(side), "processor": float(seconds), "memory": float(memory)}
        for side, name, seconds, memory in re.findall(row, TEXT, re.M)
    ]
    assert {p["side"] for p in measured} >= {224, 1536}
    for name, model in names.items():
        stated = re.search(
            rf"^\| {re.escape(name)} \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", TEXT, re.M
        )
        assert stated, name
        fits = [
            scaling.exponent(measured, model, what, s) for what in ("processor", "memory") for s in (0, 512)
        ]
        assert list(map(float, stated.groups())) == pytest.approx(fits, abs=0.03)
