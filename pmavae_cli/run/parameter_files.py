"""The files that a task's parameters name: one more picture, a mask, styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pmavae.images.contact_sheet import CELL_SIDE
from pmavae.style_source import fit_side
from pmavae_cli.api import Weighted
from pmavae_cli.console import Console
from pmavae_cli.run.failures import Failures
from pmavae_cli.run.inputs import MaskSource, Source, StyleSource
from pmavae_cli.run.reader import Session

PICTURE_SIDE = 2048  # px of the longer side of a style's picture, at most


@dataclass
class ParameterFiles:
    """Reads them, once, before any input."""

    session: Session
    console: Console
    failures: Failures
    values: Mapping[str, Any]  # of the parameters, files as Sources
    gathers: bool  # whether a style that cannot be read is left out, not the end
    scale: float | None  # of styles, where one is asked for
    uses_pictures: bool  # beside the styles
    reported_fixed: bool = False

    def read(self) -> dict[str, Any]:
        """The values with the contents of the files."""
        return {name: self._read(value) for name, value in self.values.items()}

    def _read(self, value: Any) -> Any:
        if isinstance(value, MaskSource):
            return self.session.load_mask(value)
        if isinstance(value, Source):
            return self.session.load(value).latents
        if isinstance(value, tuple) and value and isinstance(value[0], StyleSource):
            return self._read_styles(value)
        if isinstance(value, tuple):
            return tuple(self._read(part) for part in value)
        return value

    def _read_styles(self, sources: Sequence[StyleSource]) -> tuple[Weighted, ...]:
        """The styles; where the task gathers, those that cannot be read have then been told."""
        if not self.gathers:
            return tuple(map(self._read_style, sources))
        found = []
        for source in sources:
            if self.failures.ended:
                break
            with self.failures.told(source.name):
                found.append(self._read_style(source))
        return tuple(found)

    def _read_style(self, source: StyleSource) -> Weighted:
        scale = 1.0 if self.scale is None else self.scale
        loaded = self.session.load_style(source, scale)
        picture = loaded.picture
        if loaded.fixed and (picture is None or not self.uses_pictures):
            self.report_fixed(source)
        if picture is not None:
            # Hundreds of styles have to fit in memory, and a sheet shows them no larger than a cell.
            largest = round(CELL_SIDE * max(1.0, scale)) if self.gathers else PICTURE_SIDE
            picture = fit_side(picture, min(largest, max(picture.shape[:2])))
        return Weighted(source.stem, loaded.style, source.weight, picture)

    def report_fixed(self, source: Source) -> None:
        """Say, once, that a scale is asked for which a file cannot have."""
        if self.scale is None or self.reported_fixed:
            return
        self.reported_fixed = True
        self.console.note(
            f"{source.name} keeps the scale at which it was encoded: --style-scale is for pictures"
        )
