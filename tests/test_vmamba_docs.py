"""docs/vmamba.md: its table is that of the code, and its example runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from pmavae.vmamba import VMAMBA, VMamba
from pmavae.weightless import weightless

TEXT = (Path(__file__).parent.parent / "docs/vmamba.md").read_text("utf-8")


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


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(VMAMBA["vmamba-tiny"], channels=(8, 16, 32, 64), depths=(1, 1, 1, 1), classes=5)
    VMamba(config).save_pretrained(tmp_path).rename("vmamba.safetensors")
    names: dict[str, object] = {}
    (example,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    exec(example, names)
    logits, maps = names["logits"], names["maps"]
    assert tuple(logits.shape) == (1, 5) and [m.shape[-1] for m in maps] == [56, 28, 14, 7]  # type: ignore[attr-defined]
