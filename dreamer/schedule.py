"""How learning rates rise and fall over a run."""

from __future__ import annotations

from dataclasses import dataclass

from dreamer.types import check_range


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The schedule that multiplies every learning rate.

    Attributes:
        warmup_updates: Updates of linear rise from 0.
        decay_from: Share of the run after which rates fall linearly.
        final_rate: Share of the rate that is left at the end of the run.
    """

    warmup_updates: int
    decay_from: float
    final_rate: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("warmup_updates", self.warmup_updates, 0, 10**9)
        check_range("decay_from", self.decay_from, 0.0, 1.0)
        check_range("final_rate", self.final_rate, 0.0, 1.0)

    def share(self, update: int, progress: float) -> float:
        """Multiplier in [0, 1] before update number `update` at `progress` in [0, 1] of the run."""
        rise = min(1.0, update / self.warmup_updates) if self.warmup_updates else 1.0
        past = max(0.0, progress - self.decay_from) / max(1e-9, 1.0 - self.decay_from)
        return rise * (1.0 - min(1.0, past) * (1.0 - self.final_rate))
