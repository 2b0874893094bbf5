"""One session of `pmavae train`: from the options to a finished, paused or interrupted run."""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from types import FrameType, SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae.inference import offload
from pmavae.pretrained.network import Pretrained
from pmavae.pretrained.weights import save_folder
from pmavae.training.config import TrainConfig, duration
from pmavae.training.dataset import decoded, open_or_build
from pmavae.training.distributed import Processes, join_processes
from pmavae.training.evaluation import middle, save_grid, validation_pictures
from pmavae.training.logging import Meter, Recorder
from pmavae.training.objectives import objective_for
from pmavae.training.objectives.base import Objective
from pmavae.training.optimizers import choose_precision
from pmavae.training.plugin import Example, Examples, Training
from pmavae.training.run_folder import (
    RunFolder,
    load_checkpoint,
    resolve_config,
    save_checkpoint,
    usable_phases,
)
from pmavae.training.schedule import Clock
from pmavae.training.sources import PictureEntry, Refusal, find_pictures
from pmavae.training.trainer import Trainer, bytes_per_pixel, phase_bytes
from pmavae_cli.console import Console, print_table
from pmavae_cli.plugin_manager import Registry
from pmavae_cli.progress import TrainingDisplay, find_weights, span
from pmavae_cli.run.models import choose_device

VALIDATION_COUNT = 8
HELD_OUT_SHARE = 0.1  # of the pictures, at most
TITLES = {"psnr": "PSNR in dB", "ssim": "SSIM", "velocity": "error of the velocity"}

TrainingOptions = SimpleNamespace  # the values of the command's options, by their names there


class Interrupt:
    """Ctrl-C as a request: the first lets the step end and the run be saved, the second leaves at once."""

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> Self:
        self._before = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number
        # Straight to the terminal: a handler may have come in the middle of another line.
        os.write(2, b"\npmavae: ending after this step; Ctrl-C again leaves at once\n")


def run_training(options: TrainingOptions, console: Console, registry: Registry) -> int:
    """Train; returns the exit status: 0, or 130 (143) after Ctrl-C (SIGTERM)."""
    offload.keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    pause_after = duration(options.pause_after) if options.pause_after else float("inf")
    save_every = duration(options.save_every)
    processes = join_processes(choose_device(options.device))
    if processes.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # crops of a phase all have one size
        torch.set_float32_matmul_precision("high")
    folder, config, resume_from = _resolve(options, processes, registry.trainings)
    plan = registry.trainings.get(config.task)
    # What can be wrong at once comes before the pictures, which take minutes to decode.
    started = _with_files(config, registry, console, fresh=resume_from is None)
    examples = plan.open_examples(list(map(Path, config.data)), options.validate) if plan else None
    objective = objective_for(started, registry.weights, plan, examples)
    torch.manual_seed(config.seed)
    fresh = resume_from is None
    model = objective.started(started.init_from) if fresh and config.init_from else objective.new()
    data = prepare_data(config, options, folder, processes, console, examples)
    config, reasons = usable_phases(config, objective, data.largest_crop)
    for reason in reasons:
        if processes.is_main:
            console.note(reason)
    session = _Session(options, config, folder, resume_from, processes, console, objective, data)
    if options.dry_run:
        if processes.is_main:
            session.print_plan(model)
        return 0
    with Interrupt() as interrupt:
        return session.run(model, interrupt, pause_after, save_every)


def _with_files(config: TrainConfig, registry: Registry, console: Console, fresh: bool) -> TrainConfig:
    """The configuration with files in the place of weights that are on the Hub; the run keeps their names."""
    index = registry.weights
    if config.init_from and fresh:
        found = find_weights(config.init_from, config.task, index, console)
        config = replace(config, init_from=str(found.path))
    if config.texture.codec:
        found = find_weights(config.texture.codec, "base", index, console)
        config = replace(config, texture=replace(config.texture, codec=str(found.path)))
    return config


def _from_anywhere(network: str | None) -> str | None:
    """The perceptual network with the path of its weights, where it has one, as a resumed run can use it."""
    name, separator, weights = (network or "").partition("=")
    return f"{name}={Path(weights).absolute()}" if separator and Path(weights).exists() else network


def _resolve(
    options: TrainingOptions, processes: Processes, trainings: Mapping[str, Training]
) -> tuple[RunFolder, TrainConfig, Path | None]:
    flags = {
        "task": options.task,
        "preset": options.preset,
        "data": [str(Path(source).absolute()) for source in options.data],
        "steps": options.steps,
        "time_limit": options.time_limit,
        "init_from": options.init_from,
        "seed": options.seed,
        "network": _from_anywhere(options.perceptual),
    }
    branch = None
    if options.branch_from and (branch := RunFolder(options.branch_from).resume_point()) is None:
        raise PMAVAEError(f"{options.branch_from} has no checkpoint to branch from: give the folder of a run")

    def resolve(folder: RunFolder, resumed: bool) -> TrainConfig:
        return resolve_config(
            folder,
            resumed=resumed,
            branched_from=branch,
            file=options.config,
            flags=flags,
            settings=list(options.settings),
            on_cpu=processes.device.type == "cpu",
            trainings=trainings,
        )

    folder = RunFolder(options.out or Path("runs") / _kind(resolve(RunFolder(Path()), False)))
    resume_from = folder.resume_point()
    if resume_from is not None and options.resume == "never":
        raise PMAVAEError(f"{folder.path} has a run already: choose another --out, or --resume auto")
    config = resolve(folder, resume_from is not None)
    if not config.data:
        raise PMAVAEError("there is nothing to train on: give pictures with --data DIR_OR_TAR")
    return folder, config, resume_from or branch


def _kind(config: TrainConfig) -> str:
    """What a run and its weights are called by what is trained."""
    return config.preset if config.task == "base" else f"{config.task}-{config.preset}"


@dataclass(frozen=True)
class TrainingData:
    """What a session trains and validates on."""

    count: int  # pictures to train on
    held_out: int  # pictures that are held out to validate on
    validation: Callable[[], Sequence[Tensor | Example]]  # these; the same in every session
    largest_crop: int = sys.maxsize  # px, of the largest square in a picture; a plugin scales its own
    cache: Path = Path()  # the decoded pictures; none where a plugin reads its own
    refused: Sequence[Refusal] = ()


def prepare_data(
    config: TrainConfig,
    options: TrainingOptions,
    folder: RunFolder,
    processes: Processes,
    console: Console,
    examples: Examples | None = None,
) -> TrainingData:
    """Find the pictures, name the refused ones, and fill the cache unless this is a dry run.

    Some pictures are held out, the same ones every time. Where a plugin reads its own, `examples`, these are
    the data.
    """
    if examples is not None:
        return TrainingData(examples.count, examples.held_out, examples.validation)
    found = find_pictures([Path(source) for source in config.data], options.classes)
    held_out: list[PictureEntry] = []
    if options.validate is None:
        count = min(VALIDATION_COUNT, int(len(found.found) * HELD_OUT_SHARE))
        held_out = sorted(found.found, key=_lot)[:count]
    trained = replace(found, found=[entry for entry in found.found if entry not in held_out])
    cache: Path = options.cache or folder.cache

    def progress(done: int, total: int) -> None:
        if done % 500 == 0 or done == total:
            console.note(f"decoded {done} of {total} pictures")

    if not options.dry_run:
        if processes.is_main:
            for refusal in found.refused:
                console.note(refusal.reason)
            cache.parent.mkdir(parents=True, exist_ok=True)
            for refusal in open_or_build(trained, cache, progress):
                console.note(refusal.reason)
        processes.wait()
    validation: Callable[[], Sequence[Tensor]] = partial(
        _middles, held_out or trained.found[:VALIDATION_COUNT]
    )
    if options.validate is not None:
        validation = partial(validation_pictures, options.validate, VALIDATION_COUNT)
    return TrainingData(
        len(trained.found), len(held_out), validation, trained.largest_crop, cache, found.refused
    )


def _lot(entry: PictureEntry) -> str:
    """Where a picture stands when some are drawn: as by chance, but by its name alone."""
    return hashlib.blake2b(PurePath(entry.name).name.encode()).hexdigest()


def _middles(entries: list[PictureEntry]) -> list[Tensor]:
    """The middles of pictures, (1, 3, H, W)."""
    pictures = [middle(pixels) for _, pixels in decoded(entries) if not isinstance(pixels, Refusal)]
    if not pictures:
        raise PMAVAEError("no picture to validate on can be decoded: give some with --validate FOLDER")
    return pictures


@dataclass
class _Session:
    options: TrainingOptions
    config: TrainConfig
    folder: RunFolder
    resume_from: Path | None
    processes: Processes
    console: Console
    objective: Objective[Any, Any]
    data: TrainingData

    def run(self, model: Pretrained, interrupt: Interrupt, pause_after: float, save_every: float) -> int:
        """Train until the end, a pause or an interrupt; returns the exit status."""
        self.began = time.monotonic()
        self.objective.open(self.data.cache)
        trainer = self._trainer(model)
        speaks = self.processes.is_main
        self.validation = self.data.validation() if speaks else []
        if speaks:
            self.folder.save_config(self.config)
            self.folder.previews.mkdir(exist_ok=True)
        saved = time.monotonic()
        meter, first = Meter(), trainer.step
        progress = trainer.clock.progress(trainer.step)
        if progress >= 1:
            self.console.note(f"{self.folder.path} is at its end: more --steps or --time-limit go on")
        with (
            Recorder(self.folder.path, writes=speaks) as recorder,
            TrainingDisplay(self.console, speaks, progress) as display,
        ):
            if self.resume_from is not None:
                display.say(f"continuing {self.resume_from}")

            def stop() -> bool:
                return bool(interrupt.signal) or time.monotonic() - self.began >= pause_after

            for report in trainer.run(stop):
                meter.add(report)
                row = None
                if report.step % self.options.log_every == 0:
                    row = meter.row()
                    recorder.write(row)
                display.advance(report.position.progress, report.position.phase.name, row)
                if speaks and time.monotonic() - saved >= save_every:
                    self._save(trainer, recorder, display)
                    saved = time.monotonic()
            if meter.reports:
                recorder.write(meter.row())
            if speaks:
                if trainer.step > first:
                    self._save(trainer, recorder, display)
                self._export(trainer, display)
        if interrupt.signal:
            self.console.note(f"interrupted and saved: the same command continues {self.folder.path}")
            return 128 + interrupt.signal
        return 0

    def print_plan(self, model: Pretrained) -> None:
        """The phases with their lengths and memory, the pictures, where the run starts; on stdout."""
        config = self.config
        model = model.to(self.processes.device)
        precision = choose_precision(config, self.processes)
        kind = str(precision).removeprefix("torch.") if precision else "float32"
        start = self.resume_from or config.init_from or self.objective.begins_with
        parameters = sum(parameter.numel() for parameter in model.parameters())
        facts = [
            ["run", str(self.folder.path)],
            ["task", config.task],
            ["preset", f"{config.preset}, {parameters / 1e6:.2f} M parameters"],
            ["starts from", str(start)],
            ["length", f"{config.steps} steps" if config.steps else config.time_limit],
            ["device", f"{self.processes.device}, {kind}, {self.processes.world} process(es)"],
            ["perceptual network", config.loss.network if self.objective.features is not None else "none"],
            ["pictures", f"{self.data.count} to train on, {self.data.held_out} to validate on"],
            *(["refused", refusal.reason] for refusal in self.data.refused),
        ]
        print_table(facts)
        per_pixel = bytes_per_pixel(self.objective, model, precision)
        total = sum(phase.share for phase in config.phases)
        rows = [["phase", "objective", "length", "crop", "batch", "learning rate", "memory"]]
        for phase in config.phases:
            share = phase.share / total
            length = f"{share * config.steps:.0f} steps"
            if not config.steps:
                length = span(share * duration(config.time_limit))
            parts = f" in {phase.accumulate}" if phase.accumulate > 1 else ""
            rate = f"{phase.learning_rate:g} to {phase.final_rate:g}"
            memory = phase_bytes(model, phase, per_pixel, self.processes.world) / 2**30
            row = [phase.name, phase.objective, length, f"{phase.crop} px", f"{phase.batch}{parts}", rate]
            rows.append([*row, f"about {memory:.1f} GiB"])
        print_table(rows)

    def _trainer(self, model: Pretrained) -> Trainer:
        config, resume_from = self.config, self.resume_from
        if not config.init_from and resume_from is None:
            self.objective.fit(model)
        clock = Clock(config.steps, duration(config.time_limit))
        trainer = Trainer(self.objective, model, config, clock, self.processes)
        self.elapsed = 0.0  # s, in the sessions before this one
        if resume_from is not None:
            trainer.numbers = numbers = load_checkpoint(resume_from, trainer.state)
            if resume_from.parent != self.folder.checkpoints:  # it branches off another run
                trainer.first_step = trainer.step
            else:
                self.elapsed = float(numbers["elapsed"])
        clock.begin(trainer.first_step, self.elapsed)
        self.processes.share([*trainer.model.state_dict().values(), *trainer.average.state_dict().values()])
        return trainer

    def _save(self, trainer: Trainer, recorder: Recorder, display: TrainingDisplay) -> None:
        numbers = trainer.numbers | {"elapsed": self.elapsed + time.monotonic() - self.began}
        path = save_checkpoint(
            self.folder.checkpoints, trainer.state, numbers, self._weights_id(trainer), self.options.keep
        )
        scores = self.objective.scores(trainer.average, self.validation)
        recorder.write({"step": float(trainer.step), **scores}, "validation")
        grid = self.objective.preview(trainer.average, self.validation)
        if grid is not None:
            save_grid(grid, self.folder.previews / f"{path.name}.png")
            recorder.picture(grid, trainer.step)
        told = ", ".join(f"{TITLES.get(name, name)} {value:.4g}" for name, value in scores.items())
        display.say(f"saved {path}: {told} on validation")

    def _export(self, trainer: Trainer, display: TrainingDisplay) -> None:
        # Not save_pretrained: the run's config.json is that of the training.
        average = trainer.average
        path = save_folder(self.folder.path, average.state_dict(), average.config, self._weights_id(trainer))
        grid = self.objective.preview(trainer.average, self.validation)
        pictures = ""
        if grid is not None:
            sheet = self.folder.path / "contact-sheet.png"
            save_grid(grid, sheet)
            pictures = f", pictures {sheet}"
        display.say(f"weights {path}{pictures}")

    def _weights_id(self, trainer: Trainer) -> str:
        return f"{_kind(self.config)}-{self.folder.path.name[:60]}-{trainer.step}"
