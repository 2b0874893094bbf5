"""The record of a run: means, a CSV that gains columns, previews, and the estimate of memory."""

import csv

import pytest
import torch
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.training.config import config_from_dict
from pmavae.training.evaluation import GRID_SIDE
from pmavae.training.logging import Meter, Recorder
from pmavae.training.objectives.reconstruction import Codec
from pmavae.training.phases import Phase
from pmavae.training.schedule import Position
from pmavae.training.trainer import StepReport, bytes_per_pixel, phase_bytes

PHASE = Phase("a", 1, crop=32, batch=2)
CODEC = Codec(config_from_dict({"loss": {"network": "none"}}))


def report(step, **values):
    position = Position(step / 10, 0, PHASE, step / 10)
    tensors = {name: torch.tensor(value) for name, value in values.items()}
    return StepReport(step, position, crops=2, waited=0.0, skipped=1, values=tensors)


def test_a_row_is_the_mean_since_the_last_one():
    meter = Meter()
    meter.add(report(1, l1=1.0, mse=0.01))
    meter.add(report(2, l1=3.0, mse=0.03))
    row = meter.row()
    assert row["l1"] == 2.0 and row["psnr"] == pytest.approx(16.99, abs=0.01) and row["step"] == 2
    assert row["skipped"] == 1 and row["images_per_second"] > 0
    meter.add(report(3, l1=5.0))
    assert meter.row()["l1"] == 5.0


def test_the_csv_gains_columns_and_keeps_its_rows(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.write({"step": 1, "l1": 0.5})
        recorder.write({"step": 2, "gram": 0.7})
    with Recorder(tmp_path) as recorder:
        recorder.write({"step": 2, "psnr": 30.0}, "validation")
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["l1"] for row in rows] == ["0.5", "", ""]
    assert [row["gram"] for row in rows] == ["", "0.7", ""]
    assert rows[2]["group"] == "validation" and rows[2]["psnr"] == "30.0"


def test_tensorboard_gets_scalars_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Recorder(tmp_path) as recorder:
        recorder.write({"step": 7, "l1": 0.5})
        recorder.picture(torch.rand(3, 8, 8), 7)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("train/l1")
    assert (scalar.step, scalar.value) == (7, 0.5)
    assert len(events.Images("preview")) == 1


def test_a_process_that_does_not_write_leaves_no_file(tmp_path):
    with Recorder(tmp_path, writes=False) as recorder:
        recorder.write({"step": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_preview_shows_input_reconstruction_and_swap():
    torch.manual_seed(0)
    model = PMAVAE(CONFIG).eval()
    pictures = [torch.rand(1, 3, 48, 64), torch.rand(1, 3, 64, 32)]
    grid = CODEC.preview(model, pictures)
    assert grid.shape == (3, 2 * GRID_SIDE, 3 * GRID_SIDE) and grid.min() >= 0 and grid.max() <= 1
    scores = CODEC.scores(model, pictures)
    assert set(scores) == {"psnr", "ssim"} and -1 <= scores["ssim"] <= 1


def test_memory_grows_with_the_pixels_and_shrinks_with_micro_batches():
    model = PMAVAE(CONFIG)
    per_pixel = bytes_per_pixel(CODEC, model, None)
    assert 100 < per_pixel < 100_000
    small, large, parts = (
        phase_bytes(model, phase, per_pixel)
        for phase in (
            Phase("a", 1, crop=64, batch=4),
            Phase("b", 1, crop=128, batch=4),
            Phase("c", 1, crop=128, batch=4, accumulate=4),
        )
    )
    assert large == pytest.approx(4 * small, rel=0.2) and parts == pytest.approx(large / 4, rel=0.2)
