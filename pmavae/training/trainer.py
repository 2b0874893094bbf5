"""The training loop: draw crops ahead, make what the objective asks of them, step, average."""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pmavae.errors import PMAVAEError
from pmavae.pretrained.network import Pretrained
from pmavae.training.config import TrainConfig
from pmavae.training.distributed import Processes
from pmavae.training.losses import PatchDiscriminator, balance, discriminator_loss, generator_loss
from pmavae.training.objectives.base import Draws, Objective, Outcome, draws_of_one
from pmavae.training.optimizers import choose_precision, make_optimizers
from pmavae.training.phases import Phase
from pmavae.training.run_folder import TrainingState
from pmavae.training.schedule import Clock, Position, position


class TrainingError(PMAVAEError):
    """A run that cannot go on."""


@dataclass
class StepReport:
    """What one step did."""

    step: int  # steps done, this one included
    position: Position  # of the schedule, before the step
    crops: int  # of all processes
    waited: float  # seconds that the step waited for its crops
    skipped: int  # non-finite steps so far
    values: dict[str, Tensor] = field(default_factory=dict)  # scalars, still on the device


class Trainer:
    """Trains `model` in place; `average` is the copy to validate and export.

    The crops, the noise and the learning rate of a step follow from the configuration's seed, the step
    and the clock alone, so a run that is stopped and continued makes the same weights.
    """

    def __init__(
        self,
        objective: Objective[Any, Any],
        model: Pretrained,
        config: TrainConfig,
        clock: Clock,
        processes: Processes,
    ) -> None:
        self.objective, self.config = objective, config
        self.clock, self.processes = clock, processes
        device = processes.device
        model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.model = model
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        objective.to(device)
        self.precision = choose_precision(config, processes)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision is torch.float16)
        optimizers = make_optimizers(model, config)
        self.optimizers = list(optimizers.values())  # of the model
        modules: dict[str, nn.Module] = {}
        self.adversary: PatchDiscriminator | None = None
        if config.adversary.weight and objective.has_adversary:
            self.adversary = PatchDiscriminator(config.adversary.channels).to(device)
            modules["adversary"] = self.adversary
            optimizers["adversary_optimizer"] = torch.optim.AdamW(
                self.adversary.parameters(), lr=config.adversary.learning_rate, betas=(0.5, 0.99)
            )
        self.state = TrainingState(model, self.average, modules, optimizers)
        self.step = 0  # of this run and the one that it branched off
        self.first_step = 0  # of this run
        self.trained: str = config.phases[0].objective  # what the last step trained
        self.skipped = self.bad_in_a_row = 0
        if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
            for part in objective.parts(model):
                part.compile()

    @property
    def numbers(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the tensors."""
        return {
            "step": self.step,
            "first_step": self.first_step,
            "objective": self.trained,
            "skipped": self.skipped,
            "scaler": self.scaler.state_dict(),
        }

    @numbers.setter
    def numbers(self, numbers: dict[str, Any]) -> None:
        self.step, self.trained = int(numbers["step"]), str(numbers["objective"])
        self.first_step = int(numbers.get("first_step", 0))
        self.skipped = int(numbers["skipped"])
        if numbers["scaler"]:
            self.scaler.load_state_dict(numbers["scaler"])

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[StepReport]:
        """Train until the clock is at its end, or all processes know that one of them has to stop.

        Raises TrainingError when steps stay non-finite or memory runs out.
        """
        # All processes have to be in one phase, and draw crops for it one step ahead: they agree on the
        # progress two steps before it counts.
        progress = torch.tensor([self.clock.progress(self.step + i) for i in range(2)], dtype=torch.float64)
        coming: list[float] = self.processes.mean(progress.to(self.processes.device)).tolist()
        pending: Future[list[Any]] | None = None
        with ThreadPoolExecutor(1, "crops") as ahead:
            while coming[0] < 1:
                here = position(self.config.phases, coming.pop(0))
                began = time.perf_counter()
                batch = pending.result() if pending else self._draw(here.phase, self.step)
                waited = time.perf_counter() - began
                next_phase = position(self.config.phases, coming[0]).phase
                pending = ahead.submit(self._draw, next_phase, self.step + 1) if coming[0] < 1 else None
                try:
                    values, agreed = self._step(
                        here, batch, [self.clock.progress(self.step + 2), float(stop())]
                    )
                except torch.OutOfMemoryError:
                    raise TrainingError(
                        f"out of memory in phase {here.phase.name}: {here.phase.batch} crops of "
                        f"{here.phase.crop} px in {here.phase.accumulate} micro-batches; double them with "
                        f"--set phases.{here.index}.accumulate={2 * here.phase.accumulate}"
                    ) from None
                coming.append(agreed[0])
                yield StepReport(self.step, here, here.phase.batch, waited, self.skipped, values)
                if agreed[1] > 0:
                    break

    def _micro_batches(self, phase: Phase) -> int:
        """How many a process takes one after the other: several processes need fewer for the same memory."""
        return phase.accumulate // math.gcd(phase.accumulate, self.processes.world)

    def _rows(self, phase: Phase) -> tuple[int, int]:
        """Rows of a micro-batch over all processes, and in this one."""
        per_micro = phase.batch // self._micro_batches(phase)
        if per_micro % self.processes.world:
            raise TrainingError(
                f"phase {phase.name}: micro-batches of {per_micro} crops do not divide among "
                f"{self.processes.world} processes; change its batch with --set"
            )
        return per_micro, per_micro // self.processes.world

    def _draw(self, phase: Phase, step: int) -> list[Any]:
        rows, count = self._rows(phase)
        own = self.processes.rank * count
        return [
            self.objective.draw(phase, step=step, first=micro * rows + own, count=count)
            for micro in range(self._micro_batches(phase))
        ]

    def _step(
        self, here: Position, batch: list[Any], numbers: list[float]
    ) -> tuple[dict[str, Tensor], list[float]]:
        """One optimizer step; a non-finite gradient is counted and skipped.

        Returns the values for the log and the means of `numbers` over all processes.
        """
        self._enter(here.phase)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group in groups:
            group["lr"] = here.learning_rate * group["scale"]
        layer = self.objective.judged_layer(self.model, here.phase)
        joined = here.progress >= self.config.adversary.start
        adversary = self.adversary if joined and layer is not None else None
        trained = [p for group in groups for p in group["params"] if p.requires_grad]
        judged = list(adversary.parameters()) if adversary else []
        for optimizer in self.state.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

        total, values = torch.zeros((), device=self.processes.device), dict[str, Tensor]()
        for micro, drawn in enumerate(batch):
            outcome = self._outcome(here, micro, drawn)
            loss = outcome.loss
            if adversary is not None and layer is not None:
                loss = loss + self._adversarial(adversary, outcome, layer)
            self.scaler.scale(loss / len(batch)).backward()
            if adversary is not None:
                judgement = discriminator_loss(adversary, outcome.target, outcome.output.float())
                (judgement / len(batch)).backward()
                outcome.parts["discriminator"] = judgement.detach()
            total += loss.detach() / len(batch)
            for name, value in outcome.parts.items():
                values[name] = values.get(name, 0.0) + value / len(batch)

        average, *numbers = self.processes.average_gradients([*trained, *judged], [float(total), *numbers])
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        # One call for all parameters, which torch chooses by itself on a GPU only.
        together = True if self.processes.device.type == "cpu" else None
        norm = nn.utils.clip_grad_norm_(trained, self.config.optimizer.clip, foreach=together)
        # Either alone can hide the other: sign(nan) is 0.
        finite = math.isfinite(average) and bool(torch.isfinite(norm))
        self._update(finite, adversary is not None)
        return values | {"loss": torch.tensor(average), "grad_norm": norm.detach()}, numbers

    def _enter(self, phase: Phase) -> None:
        """What changes with the objective."""
        if phase.objective != self.trained:
            self.model.load_state_dict(self.average.state_dict())  # what is exported is what goes on
            self.trained = phase.objective
        self.objective.choose(self.model, phase)

    def _outcome(self, here: Position, micro: int, drawn: Any) -> Outcome:
        device, rank = self.processes.device, self.processes.rank
        rows, count = self._rows(here.phase)
        text = f"{self.config.seed} {self.step} {micro}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())
        draws = Draws(seed, rows=rows, first=rank * count, count=count, device=device)
        if self.objective.draws_noise:
            torch.manual_seed(seed + rank)  # the grain of the paint
        with torch.autocast(device.type, dtype=self.precision, enabled=self.precision is not None):
            return self.objective.loss(self.model, drawn, draws, here.progress)

    def _adversarial(self, adversary: PatchDiscriminator, outcome: Outcome, layer: Tensor) -> Tensor:
        """λ times the balanced loss that the discriminator gives the decoder, whose last layer it is."""
        adversary.requires_grad_(False)
        score = generator_loss(adversary, outcome.output.float())
        times = balance(outcome.loss, score, layer)
        adversary.requires_grad_(True)
        outcome.parts |= {"adversarial": score.detach(), "balance": times}
        return self.config.adversary.weight * times * score

    def _update(self, finite: bool, with_adversary: bool) -> None:
        self.step += 1
        if not finite:
            self.skipped += 1
            self.bad_in_a_row += 1
            if self.scaler.is_enabled():
                self.scaler.update()
            if self.bad_in_a_row >= self.config.optimizer.bad_steps:
                raise TrainingError(
                    f"{self.bad_in_a_row} steps in a row up to step {self.step} had no finite gradient; "
                    "continue from the last checkpoint with a lower learning rate "
                    "(--set phases.N.learning_rate=…) or with --set precision=fp32"
                )
            return
        self.bad_in_a_row = 0
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        if with_adversary:
            self.state.optimizers["adversary_optimizer"].step()
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average forgets faster, or it would still show the start.
        decay = min(self.config.optimizer.average_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        for kept, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)


PROBES = 64, 128  # px of the crops that are measured: what grows between them grows with the pixels
COPIES = 5  # of the weights in float32: themselves, gradient, Adam's two moments, average
PEAK = 1.4  # the peak over the saved activations: 1.28 to 1.39, measured for tiny and small on a CPU


def bytes_per_pixel(
    objective: Objective[Any, Any], model: Pretrained, precision: torch.dtype | None
) -> float:
    """Bytes that autograd keeps for each pixel of a crop, in this autocast."""
    device = model.device
    objective.to(device)
    model.train()

    def saved(side: int) -> int:
        seen: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        autocast = torch.autocast(device.type, dtype=precision, enabled=precision is not None)
        with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            objective.probe(model, side, draws_of_one(device))
        return sum(seen.values())

    small, large = map(saved, PROBES)
    return (large - small) / (PROBES[1] ** 2 - PROBES[0] ** 2)


def phase_bytes(model: Pretrained, phase: Phase, per_pixel: float, processes: int = 1) -> int:
    """The estimated peak of one process in a phase, in bytes, with the `bytes_per_pixel` of its model."""
    crops = max(1, phase.batch // phase.accumulate // processes)
    weights = sum(p.numel() for p in model.parameters())
    return int(COPIES * 4 * weights + PEAK * per_pixel * crops * phase.crop**2)
