"""docs/weights-file.md: its examples run, and its tables are those of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from small_weights import KINDS, write

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.files import header, tensors
from pmavae.files.header import CHECKSUM_KEY
from pmavae.pretrained import weights

TEXT = (Path(__file__).parents[2] / "docs/weights-file.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


def test_the_examples_read_check_and_write_a_file(here: Path) -> None:
    write("autoencoder", here / "model.safetensors")
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(example, names)
    assert len(EXAMPLES) == 3
    mine, model = PMAVAE.from_pretrained("mine.safetensors"), PMAVAE.from_pretrained("model.safetensors")
    assert mine.weights_id == "mine-1"
    for name, tensor in model.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor)
    (here / "model.safetensors").write_bytes((here / "model.safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(AssertionError):
        exec(EXAMPLES[1], names)
    with pytest.raises(WeightsError, match="its checksum does not match"):
        PMAVAE.from_pretrained("model.safetensors")


def test_the_tables_name_what_the_code_has() -> None:
    for number in (header.MAX_HEADER_BYTES, weights.MAX_BYTES):
        assert f"{number:,}".replace(",", " ") in TEXT
    for number in (header.MAX_NUMBER, header.MAX_SETTINGS):
        assert f" {number}" in TEXT
    assert f"# Weights files, architecture version {weights.ARCHITECTURE_VERSION}" in TEXT
    assert {CHECKSUM_KEY, "pmavae", "format"} == weights.METADATA_KEYS
    for key in (*weights.METADATA_KEYS, *tensors.DTYPES, *weights._TASK_CONFIGS):
        assert f"`{key}`" in TEXT
    for kind in KINDS.values():
        for field in fields(kind.make().config):
            assert f"`{field.name}`" in TEXT
