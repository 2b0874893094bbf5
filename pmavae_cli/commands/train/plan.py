"""What `pmavae train --dry-run` tells."""

from __future__ import annotations

from pathlib import Path

from pmavae import PMAVAE
from pmavae.training.config import TrainConfig, duration
from pmavae.training.distributed import Processes
from pmavae.training.memory import activation_bytes, phase_bytes
from pmavae.training.objectives.models import Model
from pmavae.training.optimization import choose_precision
from pmavae.training.perceptual import PerceptualNetwork
from pmavae.training.run_folder import RunFolder
from pmavae_cli.commands.train.data import LabelledData, TrainingData
from pmavae_cli.console import print_table
from pmavae_cli.progress import span


def print_plan(
    config: TrainConfig,
    data: TrainingData | LabelledData,
    folder: RunFolder,
    resume_from: Path | None,
    network: PerceptualNetwork | None,
    processes: Processes,
    model: Model,
    codec: PMAVAE | None,
) -> None:
    """The phases with their lengths and memory, the pictures, where the run starts; on stdout."""
    model = model.to(processes.device)
    precision = choose_precision(config, processes)
    kind = str(precision).removeprefix("torch.") if precision else "float32"
    start = resume_from or config.init_from or ("the linear start" if config.task == "base" else "nothing")
    length = f"{config.steps} steps" if config.steps else config.time_limit
    facts: list[list[str]] = [
        ["run", str(folder.path)],
        ["task", config.task],
        ["preset", f"{config.preset}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"],
        ["starts from", str(start)],
        ["length", length],
        ["device", f"{processes.device}, {kind}, {processes.world} process(es)"],
        ["perceptual network", config.loss.network if network is not None else "none"],
        [
            "pictures",
            f"{data.count} to train on, {data.held_out_count} to validate on",
        ],
        *(["refused", refusal.reason] for refusal in data.refused),
    ]
    print_table(facts)
    examples = data.examples if isinstance(data, LabelledData) else None
    per_pixel = activation_bytes(model, config, network, precision, codec, examples)
    total = sum(phase.share for phase in config.phases)
    rows = [["phase", "objective", "length", "crop", "batch", "learning rate", "memory"]]
    for phase in config.phases:
        share = phase.share / total
        rows.append(
            [
                phase.name,
                phase.objective,
                f"{share * config.steps:.0f} steps"
                if config.steps
                else span(share * duration(config.time_limit)),
                f"{phase.crop} px",
                f"{phase.batch}" + (f" in {phase.accumulate}" if phase.accumulate > 1 else ""),
                f"{phase.learning_rate:g} to {phase.final_rate:g}",
                f"about {phase_bytes(model, phase, per_pixel, processes.world) / 2**30:.1f} GiB",
            ]
        )
    print_table(rows)
