"""What a run is told to do: settings, phases, rates."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmavae.training.config import ConfigError, TrainConfig, change, config_from_dict, duration, read_config
from pmavae.training.objectives import CLASSES
from pmavae.training.objectives.reconstruction import Codec
from pmavae.training.perceptual import PerceptualNetwork
from pmavae.training.phases import DEFAULT_PHASES, OBJECTIVES, Phase
from pmavae.training.run_folder import RunFolder, resolve_config, usable_phases
from pmavae.training.schedule import Clock, position


def resolve(folder, **options):
    arguments = {"resumed": False, "file": None, "flags": {}, "settings": [], "on_cpu": True}
    return resolve_config(RunFolder(folder), **(arguments | options))


def test_a_configuration_survives_json():
    config = TrainConfig(preset="small", steps=7, data=("a", "b"))
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"stepz": 3}, "unknown setting stepz"),
        ({"loss": {"klx": 3}}, "unknown setting loss.klx"),
        ({"loss": 3}, "loss is not a table"),
        ({"steps": "many"}, "steps = 'many'"),
        ({"steps": True}, "steps = True"),
        ({"loss": {"kl": float("nan")}}, "loss.kl = nan"),
        ({"preset": "huge"}, "preset 'huge' is none of tiny"),
        ({"precision": "fp8"}, "precision = 'fp8' is not 'auto' or"),
        ({"phases": []}, "at least one phase"),
        ({"phases": [{"name": "a", "share": 1, "batch": 2}]}, "phases.0.crop is missing"),
        ({"phases": [{"name": "a", "share": 1, "batch": 2, "crop": 40}]}, "crop 40 is not a multiple of 16"),
        (
            {"phases": [{"name": "a", "share": 1, "batch": 3, "crop": 48, "accumulate": 2}]},
            "a batch of 3 does not divide into 2",
        ),
        ({"time_limit": "soon"}, "'soon' is no length of time"),
    ],
)
def test_what_cannot_be_is_named(data, words):
    with pytest.raises(ConfigError, match=words):
        config_from_dict(data)


def test_settings_reach_every_field():
    data = TrainConfig().to_dict()
    for setting in ("loss.kl=1e-5", "phases.1.batch=24", "precision=fp32", "shares.photo=0.9"):
        change(data, setting)
    config = config_from_dict(data)
    assert (config.loss.kl, config.phases[1].batch, config.precision) == (1e-5, 24, "fp32")
    assert config.shares["photo"] == 0.9
    for wrong in ("loss.kl", "phases.9.batch=1", "phases.x.batch=1", "seed.x=1"):
        with pytest.raises(ConfigError, match="--set"):
            change(data, wrong)


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("1h30m", 5400), ("90m", 5400), ("45s", 45)])
def test_lengths_of_time(text, seconds):
    assert duration(text) == seconds


def test_flags_override_the_file_and_the_file_the_run(tmp_path):
    RunFolder(tmp_path).save_config(TrainConfig(steps=10, seed=1, time_limit="1h"))
    file = tmp_path / "more.toml"
    file.write_text("seed = 2\nsteps = 20\n[loss]\nkl = 0.5\n")
    config = resolve(
        tmp_path,
        resumed=True,
        file=file,
        flags={"steps": 30, "preset": None, "network": "none"},
        settings=["loss.edge=0.7"],
    )
    assert (config.steps, config.seed, config.time_limit) == (30, 2, "1h")
    assert (config.loss.kl, config.loss.edge, config.loss.network) == (0.5, 0.7, "none")


def test_a_time_limit_replaces_the_steps_of_a_file(tmp_path):
    file = tmp_path / "steps.json"
    file.write_text('{"steps": 50}')
    assert resolve(tmp_path, file=file, flags={"time_limit": "5m"}).steps == 0


def test_a_run_keeps_its_preset(tmp_path):
    RunFolder(tmp_path).save_config(TrainConfig(preset="small"))
    with pytest.raises(ConfigError, match="run of task base, preset small, not of task base, preset tiny"):
        resolve(tmp_path, resumed=True, flags={"preset": "tiny"})


def test_a_cpu_and_a_gpu_have_their_own_phases(tmp_path):
    on_cpu, on_gpu = resolve(tmp_path), resolve(tmp_path, on_cpu=False)
    assert on_gpu.phases == DEFAULT_PHASES and on_cpu.phases != DEFAULT_PHASES
    assert max(p.crop for p in on_cpu.phases) < max(p.crop for p in on_gpu.phases)


@pytest.mark.parametrize("name", ["broken.toml", "broken.json", "missing.toml"])
def test_a_file_that_cannot_be_used_is_named(tmp_path, name):
    if name.startswith("broken"):
        (tmp_path / name).write_text("{ not = [ either")
    with pytest.raises(ConfigError, match=name):
        read_config(tmp_path / name)


def test_every_task_has_phases_and_an_objective():
    assert CLASSES.keys() == OBJECTIVES.keys()


def test_phases_that_no_picture_serves_are_left_out():
    without = config_from_dict({"loss": {"network": "none"}})
    objective = Codec(without)
    assert all(p.objective == "codec" for p in usable_phases(without, objective, 2000)[0].phases)
    objective.features = PerceptualNetwork()
    config, reasons = usable_phases(TrainConfig(), objective, 600)
    assert [p.name for p in config.phases] == ["structure", "texture", "detail", "paint"]
    assert len(reasons) == 1 and "full-hd" in reasons[0]
    with pytest.raises(ConfigError, match="larger pictures"):
        usable_phases(TrainConfig(), objective, 100)


PHASES = (
    Phase("a", 1, crop=32, batch=1, learning_rate=2.0, final_rate=1.0, warmup=0.1),
    Phase("b", 3, crop=64, batch=1, learning_rate=1.0, final_rate=0.0, warmup=0.0),
)


@given(st.floats(0, 1))
def test_every_progress_has_a_phase_and_a_rate_within_its_bounds(progress):
    here = position(PHASES, progress)
    assert here.phase is PHASES[here.index] and 0 <= here.within <= 1
    assert 0 <= here.learning_rate <= here.phase.learning_rate
    assert here.index == (1 if progress >= 0.25 - 1e-9 else 0)


def test_the_rate_rises_then_falls_to_the_final_rate():
    rates = [position(PHASES, p / 1000).learning_rate for p in range(1001)]
    assert rates[0] == 0 and rates[12] < rates[24] <= 2
    assert rates[249] == pytest.approx(1.0, abs=0.01) and rates[1000] == pytest.approx(0, abs=1e-6)


@given(st.integers(1, 5000), st.integers(1, 9), st.integers(1, 9))
def test_steps_are_shared_out_as_the_phases_say(steps, one, two):
    phases = (Phase("a", one, crop=32, batch=1), Phase("b", two, crop=32, batch=1))
    clock = Clock(steps)
    counts = [position(phases, clock.progress(step)).index for step in range(steps)]
    assert counts == sorted(counts)
    assert abs(counts.count(0) - steps * one / (one + two)) <= 1


def test_time_goes_on_where_earlier_sessions_left_it():
    clock = Clock(limit=1000.0)
    clock.begin(0, elapsed=500.0)
    assert 0.5 <= clock.progress(0) < 0.51
