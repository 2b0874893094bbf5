"""The record of a run: means between two log lines, a CSV, TensorBoard."""

import csv
import importlib.util
import math
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from pmavae.training.trainer import StepReport


class Meter:
    """Gathers step reports without waiting for the device, and gives their means when asked."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.started = time.perf_counter()

    def add(self, report: StepReport) -> None:
        self.reports.append(report)

    def row(self) -> dict[str, float]:
        """Means since the last row, rates and counters; begins anew. There is at least one report."""
        seconds = time.perf_counter() - self.started
        last, count = self.reports[-1], len(self.reports)
        sums: dict[str, Tensor] = {}
        for report in self.reports:
            for name, value in report.values.items():
                sums[name] = sums[name] + value if name in sums else value
        means = {name: float(total) / count for name, total in sums.items()}
        if "mse" in means:
            means["psnr"] = -10 * math.log10(max(means.pop("mse"), 1e-12))
        row = {
            "step": float(last.step),
            "progress": last.position.progress,
            "phase": float(last.position.index),
            "learning_rate": last.position.learning_rate,
            **means,
            "images_per_second": sum(report.crops for report in self.reports) / seconds,
            "waiting": sum(report.waited for report in self.reports) / seconds,
            "skipped": float(last.skipped),
        }
        self.reports, self.started = [], time.perf_counter()
        return row


class Recorder(AbstractContextManager["Recorder"]):
    """Writes rows to `log.csv` and, where tensorboard is installed, to event files beside it.

    One of several processes `writes`; the others only keep silent.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.path, self.writes = folder / "log.csv", writes
        self.board: Any = None
        if writes and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def write(self, row: dict[str, float], group: str = "train") -> None:
        """One row of scalars; the CSV grows a column when a value comes up for the first time."""
        if not self.writes:
            return
        self._append({"group": group, **row})
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(f"{group}/{name}", value, int(row["step"]))

    def picture(self, grid: Tensor, step: int) -> None:
        """A preview (3, H, W) in [0, 1]."""
        if self.board is not None:
            self.board.add_image("preview", grid, step)

    def _append(self, row: dict[str, Any]) -> None:
        rows: list[dict[str, Any]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                names = list(reader.fieldnames or [])
                if set(row) - set(names):  # once for each objective
                    rows = list(reader)
        else:
            names = []
        new = [name for name in row if name not in names]
        with self.path.open("w" if new else "a", newline="") as file:
            writer = csv.DictWriter(file, names + new)
            if new:
                writer.writeheader()
                writer.writerows(rows)
            writer.writerow(row)
