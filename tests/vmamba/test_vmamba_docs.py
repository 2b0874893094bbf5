"""docs/vmamba.md: its table is that of the code, and its example runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from pmavae.pretrained.weights import weightless
from pmavae.vmamba import VMAMBA, VMamba

TEXT = (Path(__file__).parents[2] / "docs/vmamba.md").read_text("utf-8")


@pytest.mark.parametrize("name", VMAMBA)
def test_the_table_has_every_variant(name: str) -> None:
    row = re.search(rf"^\| `{name}` \|(.*)\|$", TEXT, re.M)
    assert row
    config = VMAMBA[name]
    with weightless():
        model: nn.Module = VMamba(config)
    count = sum(p.numel() for p in model.parameters())
    facts = [
        f"{count:,}".replace(",", " "),
        str(config.channels[0]),
        ", ".join(map(str, config.depths)),
        f"{config.ssm_ratio:.0f}",
        str(config.d_state),
    ]
    assert [cell.strip() for cell in row[1].split("|")][1:] == facts


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(VMAMBA["vmamba-tiny"], channels=(8, 16, 32, 64), depths=(1, 1, 1, 1), classes=5)
    VMamba(config).save_pretrained(tmp_path).rename("vmamba.safetensors")
    names: dict[str, object] = {}
    example, own = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    exec(example, names)
    logits, maps = names["logits"], names["maps"]
    assert tuple(logits.shape) == (1, 5) and [m.shape[-1] for m in maps] == [56, 28, 14, 7]  # type: ignore[attr-defined]

    exec(own, names)
    fused, x, distance = names["fused"], names["x"], names["distance"]
    assert tuple(fused.shape) == (1, 64, 56, 56)  # type: ignore[attr-defined]
    other = x.flip(-1).requires_grad_()  # type: ignore[attr-defined]
    same, apart = (distance(x, y).item() for y in (x, other))  # type: ignore[operator]
    assert abs(same) < 1e-4 < 1e-2 < apart
    distance(x, other).sum().backward()  # type: ignore[operator]
    assert other.grad.abs().max() > 0
