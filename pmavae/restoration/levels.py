"""How a picture is damaged. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

MOST_NOISE, WORST_JPEG = 55.0, 10  # what the networks have met


@dataclass(frozen=True)
class Levels:
    """How a picture is damaged."""

    noise: float = 0.0  # standard deviation in 8-bit units, RMS over the channels
    jpeg: int | None = None  # IJG quality, 1–100; None: no trace of JPEG

    @property
    def none(self) -> bool:
        """Whether there is nothing to take out."""
        return self.noise == 0 and self.jpeg in (None, 100)

    def times(self, strength: float) -> Levels:
        """So much more, or less, of both kinds of damage."""
        jpeg = None if self.jpeg is None else round(100 - strength * (100 - self.jpeg))
        return Levels(strength * self.noise, jpeg if jpeg is None else max(1, jpeg))

    def within(self, noise: float = MOST_NOISE, jpeg: int = WORST_JPEG) -> Levels:
        """These levels, or the worst that a network has met."""
        return Levels(min(self.noise, noise), None if self.jpeg is None else max(self.jpeg, jpeg))

    def told(self) -> str:
        """In words."""
        noise = f"noise of σ {self.noise:.1f}" if self.noise else "no noise"
        return f"{noise}, " + ("no trace of JPEG" if self.jpeg is None else f"JPEG of quality {self.jpeg}")
