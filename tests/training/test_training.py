"""The training loop: resuming exactly, skipping what is not finite, painting, checkpoints on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_config import CONFIG

from pmavae import PMAVAE, PRESETS
from pmavae.errors import PMAVAEError
from pmavae.training.config import config_from_dict
from pmavae.training.dataset import Dataset, build_cache
from pmavae.training.distributed import Processes
from pmavae.training.evaluation import reconstruction_scores
from pmavae.training.objectives.base import Draws
from pmavae.training.objectives.reconstruction import Codec, fit_decoder, fit_encoder, moved
from pmavae.training.run_folder import CheckpointError, checkpoints, load_checkpoint, save_checkpoint
from pmavae.training.schedule import Clock
from pmavae.training.sources import find_pictures
from pmavae.training.trainer import Trainer, TrainingError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in EXAMPLES.glob("*.jpg"):
        picture = Image.open(path)
        picture.thumbnail((640, 640))
        picture.save(pictures / f"{path.stem}.png")
    build_cache(find_pictures([pictures]), folder / "pictures.u8")
    return folder / "pictures.u8"


class Edges(torch.nn.Module):
    """Stands in for the feature network: six maps of fixed random filters."""

    content_layers = (3, 5)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.filters = torch.randn(8, 3, 3, 3, generator=generator)

    def forward(self, picture):
        maps = torch.nn.functional.conv2d(picture, self.filters.to(picture.dtype)).relu()
        return [torch.nn.functional.avg_pool2d(maps, size) for size in (1, 1, 2, 2, 4, 4)]


def trainer(cache, steps=20, network=None, **settings):
    phases = [{"name": "only", "share": 1, "crop": 32, "batch": 4, "learning_rate": 1e-3}]
    config = config_from_dict(
        {"phases": phases, "precision": "fp32", "adversary": {"weight": 0}, "loss": {"network": "none"}}
        | settings
    )
    objective = Codec(config)
    objective.features = network
    objective.open(cache)
    torch.manual_seed(0)
    return Trainer(objective, PMAVAE(CONFIG), config, Clock(steps), Processes(torch.device("cpu")))


def stop_after(count):
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= count


# All that a run may do: several phases and objectives, micro-batches, an adversary, moved latents.
EVERYTHING = {
    "phases": [
        {"name": "a", "share": 0.4, "crop": 32, "batch": 4, "accumulate": 2},
        {"name": "b", "share": 0.3, "crop": 64, "batch": 2},
        {"name": "c", "share": 0.3, "crop": 32, "batch": 2, "learning_rate": 2e-3, "objective": "paint"},
    ],
    "adversary": {"start": 0.2, "channels": 4},
    "loss": {"network": "none", "equivariance": 0.5, "kl_warmup": 0.3},
    "precision": "bf16",
}


@pytest.mark.parametrize("halfway", [3, 10, 17])
def test_a_run_in_two_parts_is_the_same_run_bit_for_bit(cache, tmp_path, halfway):
    straight = trainer(cache, 20, Edges(), **EVERYTHING)
    reports = list(straight.run())
    assert [r.step for r in reports] == list(range(1, 21)) and reports[-1].skipped == 0
    assert {r.position.phase.name for r in reports} == {"a", "b", "c"}

    first = trainer(cache, 20, Edges(), **EVERYTHING)
    list(first.run(stop_after(halfway)))
    assert first.step == halfway
    save_checkpoint(tmp_path, first.state, first.numbers, "test", keep=1)
    second = trainer(cache, 20, Edges(), **EVERYTHING)
    second.numbers = load_checkpoint(checkpoints(tmp_path)[-1], second.state)
    list(second.run())

    expected, got = straight.state.tensors(), second.state.tensors()
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    averages = zip(straight.average.parameters(), second.average.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in averages)


def test_training_lowers_the_loss(cache):
    run = trainer(cache, 60, optimizer={"linear_rate": 1.0})
    losses = [float(report.values["l1"]) for report in run.run()]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_micro_batches_are_the_same_batch(cache):
    whole, parts = trainer(cache, 3), trainer(cache, 3)
    parts.config = config_from_dict(
        whole.config.to_dict() | {"phases": [{**whole.config.to_dict()["phases"][0], "accumulate": 4}]}
    )
    drawn = whole._draw(whole.config.phases[0], 0)[0].pictures
    pieces = [drawn.pictures for drawn in parts._draw(parts.config.phases[0], 0)]
    assert len(pieces) == 4 and (drawn == torch.cat([torch.from_numpy(p) for p in pieces]).numpy()).all()


def test_a_step_that_is_not_finite_is_skipped_and_many_end_the_run(cache):
    run = trainer(cache, 20, optimizer={"bad_steps": 3})
    with torch.no_grad():
        run.model.decoder.out[0].bias.fill_(float("nan"))
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    reports = []
    with pytest.raises(TrainingError, match=r"3 steps in a row up to step 3 .* lower learning rate"):
        for report in run.run():
            reports.append(report.skipped)
    assert reports == [1, 2]
    after = run.model.state_dict()
    assert all(torch.equal(before[k], after[k]) or not before[k].isfinite().all() for k in before)


def test_the_adversary_joins_late_and_learns(cache):
    run = trainer(cache, 20, adversary={"start": 0.5, "channels": 4, "learning_rate": 0.01})
    before = {k: v.clone() for k, v in run.adversary.state_dict().items() if k.endswith("original")}
    played = ["discriminator" in report.values for report in run.run()]
    assert played == [False] * 10 + [True] * 10
    assert any(not torch.equal(before[k], run.adversary.state_dict()[k]) for k in before)


def test_painting_changes_the_paint_and_nothing_of_the_codec(cache):
    phases = [{"name": "p", "share": 1, "crop": 48, "batch": 2, "learning_rate": 0.01, "objective": "paint"}]
    run = trainer(cache, 40, Edges(), phases=phases)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    losses = [float(report.values["loss"]) for report in run.run()]
    assert sum(losses[-10:]) < sum(losses[:10])
    changed = {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all("paint" in name for name in changed)


def test_every_process_draws_its_rows_of_the_same_noise():
    like = torch.empty(2, 3, 4)
    whole = Draws(1, rows=4, first=0, count=4, device=torch.device("cpu")).normal(torch.empty(4, 3, 4))
    parts = [Draws(1, rows=4, first=f, count=2, device=torch.device("cpu")).normal(like) for f in (0, 2)]
    assert torch.equal(whole, torch.cat(parts))


def test_latents_move_as_pixels_do():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(moved(moved(x, 1, False), 3, False), x)
    assert moved(x, 0, True).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_old_checkpoints_go_and_a_full_disk_leaves_them_alone(cache, tmp_path, monkeypatch):
    run = trainer(cache)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, run.state, run.numbers | {"step": step}, "test", keep=2)
    names = ["step-00000002", "step-00000003"]
    assert [path.name for path in checkpoints(tmp_path)] == names
    assert PMAVAE.from_pretrained(tmp_path / names[1]).weights_id == "test"

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pmavae.training.run_folder.save_file", full)
    with pytest.raises(CheckpointError, match=r"step-00000004 was not written \(No space left"):
        save_checkpoint(tmp_path, run.state, run.numbers | {"step": 4}, "test", keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    load_checkpoint(checkpoints(tmp_path)[-1], run.state)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(cache, tmp_path, name):
    run = trainer(cache)
    path = save_checkpoint(tmp_path, run.state, run.numbers, "test", keep=1)
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"step-00000000 cannot be continued from"):
        load_checkpoint(path, run.state)


def test_a_checkpoint_of_another_architecture_is_refused(cache, tmp_path):
    run = trainer(cache)
    path = save_checkpoint(tmp_path, run.state, run.numbers, "test", keep=1)
    other = trainer(cache, adversary={"channels": 4})
    with pytest.raises(CheckpointError, match="cannot be continued from"):
        load_checkpoint(path, other.state)


def test_a_linear_start_is_a_usable_codec_before_any_training(cache, tmp_path):
    """Tiny's latents from examples alone; the measured figure on the Kodak pictures is in docs/weights.md."""
    torch.manual_seed(0)
    model = PMAVAE(PRESETS["tiny"]).eval()
    pictures = torch.cat([Dataset(cache).batch(8, 128, seed=0, step=i) for i in range(6)])
    fit_encoder(model, pictures)
    few = fit_decoder(model, pictures[:16], iterations=2)
    many = fit_decoder(model, pictures[:16], iterations=15)
    assert many < few < pictures.var()
    Image.open(EXAMPLES / "content-ridge.jpg").resize((256, 192)).save(tmp_path / "ridge.png")
    (score,) = reconstruction_scores(model, tmp_path).values()
    assert score["psnr"] > 20


def test_posterior_means_of_a_linear_start_have_unit_variance(cache):
    model = PMAVAE(CONFIG).eval()
    pictures = torch.cat([Dataset(cache).batch(8, 64, seed=0, step=i) for i in range(8)])
    fit_encoder(model, pictures)
    with torch.no_grad():
        for latents in (
            model.encoder.linear_base(pictures - 0.5),
            model.encoder.linear_detail(pictures - 0.5),
        ):
            torch.testing.assert_close(
                latents.square().mean((0, 2, 3)), torch.ones(latents.shape[1]), atol=0.02, rtol=0
            )


def test_batches_must_divide_among_the_processes(cache):
    run = trainer(cache)
    run.processes.world = 3
    with pytest.raises(PMAVAEError, match="do not divide among 3 processes"):
        run._rows(run.config.phases[0])


def test_several_processes_take_fewer_micro_batches_each(cache):
    run = trainer(cache, phases=[{"name": "a", "share": 1, "crop": 32, "batch": 8, "accumulate": 4}])
    phase = run.config.phases[0]
    assert run._micro_batches(phase) == 4 and run._rows(phase) == (2, 2)
    run.processes.world = 2
    assert run._micro_batches(phase) == 2 and run._rows(phase) == (4, 2)
    parts = []
    for run.processes.rank in (0, 1):
        parts.append([drawn.pictures for drawn in run._draw(phase, 0)])
    run.processes.world, run.processes.rank = 1, 0
    whole = np.concatenate([drawn.pictures for drawn in run._draw(phase, 0)])
    assert (np.concatenate([parts[r][m] for m in range(2) for r in range(2)]) == whole).all()
