"""Models as ONNX files: what they compute, for which sizes, and what they say about themselves."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import picture
from PIL import Image
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.errors import ExportError
from pmavae.onnx.graphs import Graph, check, halved, largest_error, properties
from pmavae.onnx.scan import directional_scan as as_operators
from pmavae.scan import directional_scan, operator
from pmavae_cli.main import main

LOOPS = {"Loop", "Scan", "If"}


class Scan(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return directional_scan(a, b)


@pytest.fixture(scope="module")
def scan() -> onnx.ModelProto:
    """The scan alone, in float64."""
    example = torch.rand(4, 1, 6, 7, 3, dtype=torch.float64)
    size = {2: torch.export.Dim("h", min=1, max=9999), 3: torch.export.Dim("w", min=1, max=9999)}
    program = torch.onnx.export(
        Scan().eval(),
        (example, example.clone()),
        dynamo=True,
        verbose=False,
        optimize=False,
        opset_version=18,
        dynamic_shapes=(size, size),
        custom_translation_table={torch.ops.pmavae.directional_scan.default: as_operators},
    )
    return program.model_proto


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (8, 8), (23, 29), (33, 17)])
def test_the_scan_without_a_loop_is_the_scan(scan, size):
    torch.manual_seed(0)
    a = torch.rand(4, 1, *size, 3, dtype=torch.float64) ** 0.05
    a[torch.rand_like(a) < 0.05] = 0  # all is forgotten
    a[torch.rand_like(a) < 0.3] = 1  # nothing is
    a[torch.rand_like(a) < 0.05] = 1e-30
    b = torch.randn_like(a) * 10 ** torch.randint(-3, 4, a.shape).double()
    session = onnxruntime.InferenceSession(scan.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": a.numpy(), "b": b.numpy()})
    np.testing.assert_allclose(found, operator.scan_forward(a, b).numpy(), rtol=1e-6, atol=1e-6)
    assert not LOOPS & {node.op_type for node in scan.graph.node}


def test_decays_that_never_forget_do_not_overflow(scan):
    """Of 3,000 steps that keep all, and of as many that keep a millionth, whose logs add up to −41,000."""
    session = onnxruntime.InferenceSession(scan.SerializeToString(), providers=["CPUExecutionProvider"])
    b = np.ones((4, 1, 50, 60, 3))
    for decay, last in ((1.0, 3000.0), (1e-6, 1.000001)):
        (h,) = session.run(None, {"a": np.full_like(b, decay), "b": b})
        assert np.isfinite(h).all()
        np.testing.assert_allclose(h.max(), last, rtol=1e-9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pmavae export` made of a small model: the weights, both files and what was printed."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    model = PMAVAE(replace(CONFIG, paint_blocks=(0, 0, 0, 1)))
    with torch.no_grad():
        for parameter in model.parameters():  # blocks that start at zero would hide their errors
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder, "small-test")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["export", "--weights", str(folder), "-o", str(folder), "--json", "-q"]) == 0
    (folder / "rows.json").write_text(printed.getvalue())
    return folder


def graphs(folder: Path) -> list[Graph]:
    return [Graph(name, onnx.load(folder / f"{name}.onnx")) for name in ("encoder", "decoder")]


def test_files_compute_what_the_model_does_for_other_sizes(folder):
    model = PMAVAE.from_pretrained(folder)
    for graph in graphs(folder):
        assert largest_error(graph, model, [(16, 16), (16, 48), (144, 80)]) < 1e-3
        assert not LOOPS & set(graph.operators)


def test_rows_tell_of_the_files(folder):
    rows = [json.loads(line) for line in (folder / "rows.json").read_text().splitlines()]
    for row, graph in zip(rows, graphs(folder), strict=True):
        assert row["output"] == str(folder / f"{graph.name}.onnx")
        assert row["bytes"] == (folder / f"{graph.name}.onnx").stat().st_size
        assert row["operators"] == graph.operators and row["nodes"] == len(graph.model.graph.node)
        assert row["max_abs_error"] < 1e-3 and len(row["checked_sizes"]) == 2
        assert row["onnxruntime"] == onnxruntime.__version__
    model = PMAVAE.from_pretrained(folder)
    assert rows[0]["parameters"] >= 0.9 * sum(p.numel() for p in model.encoder.parameters())


def test_files_say_what_they_are(folder):
    for graph in graphs(folder):
        about = properties(graph.model)
        assert about["weights_id"] == "small-test" and about["preset"] == "test"
        data = (folder / "model.safetensors").read_bytes()
        assert about["weights_sha256"] == hashlib.sha256(data).hexdigest()
        assert about["architecture_version"] == "1" and "16" in about["padding"]
        assert json.loads(about["config"])["base_channels"] == CONFIG.base_channels
        assert str(Path(torch.__file__).parent.parent) not in str(graph.data)  # nothing of this machine
    encoder, decoder = graphs(folder)
    sides = [
        [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in decoder.model.graph.input
    ]
    assert sides[:2] == [[1, 4, "rows", "columns"], [1, 2, "2*rows", "2*columns"]]
    (given,) = encoder.model.graph.input
    assert [d.dim_param for d in given.type.tensor_type.shape.dim][2:] == ["16*rows", "16*columns"]


def test_the_program_in_the_docs_runs(folder, here):
    (here / "onnx").symlink_to(folder)
    pixels = np.asarray(picture((43, 37)))
    Image.fromarray(pixels).save("photo.jpg", "PNG")
    text = (Path(__file__).parents[2] / "docs/onnx.md").read_text("utf-8")
    (program,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    exec(program, {})
    model = PMAVAE.from_pretrained(folder)
    expected = model.decode_pixels(model.encode(pixels))
    found = np.asarray(Image.open("out.png"))
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1


def test_the_docs_name_every_property(folder):
    text = (Path(__file__).parents[2] / "docs/onnx.md").read_text("utf-8")
    for graph in graphs(folder):
        assert not [key for key in properties(graph.model) if f"`{key}`" not in text.replace("pmavae.", "")]


def test_half_keeps_the_weights_as_float16(folder):
    model = PMAVAE.from_pretrained(folder)  # float16 in their file, so that nothing is lost
    for graph in graphs(folder):
        half = halved(graph)
        tensors = {True: 0, False: 0}
        for tensor in half.model.graph.initializer:
            tensors[tensor.data_type == onnx.TensorProto.FLOAT16] += int(np.prod(tensor.dims))
        assert tensors[True] > 0.9 * graph.parameters
        assert len(graph.data) - len(half.data) > 1.8 * tensors[True] - 200 * len(
            half.model.graph.initializer
        )
        assert check(half, model) < 1e-3
        assert properties(half.model)["weights_dtype"] == "float16"


def test_a_file_that_computes_something_else_is_refused(folder):
    model = PMAVAE.from_pretrained(folder)
    with torch.no_grad():
        model.decoder.lapped_base.weight[0, 0, 0, 0] += 1
    with pytest.raises(ExportError, match=r"decoder of small-test differs by .* and is not written"):
        check(graphs(folder)[1], model)


def test_files_are_not_overwritten(folder, pmavae):
    before = (folder / "encoder.onnx").read_bytes()
    done = pmavae("export", "--weights", folder, "-o", folder)
    assert done.status == 2 and "encoder.onnx exists: use --overwrite" in done.err
    assert (folder / "encoder.onnx").read_bytes() == before


def test_nothing_is_written_where_a_check_fails(folder, here, pmavae, monkeypatch):
    encoder, decoder = graphs(folder)
    monkeypatch.setattr("pmavae.onnx.graphs.encoder_graph", lambda model: encoder)
    monkeypatch.setattr("pmavae.onnx.graphs.decoder_graph", lambda model, paint: decoder)
    monkeypatch.setattr("pmavae.onnx.graphs.largest_error", lambda *args: float("inf"))
    done = pmavae("export", "--weights", folder, "-o", "out")
    assert done.status == 1 and "differs by inf" in done.err and not (here / "out").exists()


def test_a_missing_package_is_one_sentence(here, pmavae, monkeypatch):
    monkeypatch.setattr(
        "pmavae_cli.commands.export.find_spec", lambda name: None if name == "onnxscript" else name
    )
    done = pmavae("export", "-o", "out")
    assert done.status == 2 and done.err.endswith("needs onnxscript: pip install 'pmavae[onnx]'\n")
