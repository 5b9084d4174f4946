"""Train the world model alone on stored episodes; resumable to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dreamer.exchange import make_batch, write_back
from dreamer.replay.buffer import SequenceReplayBuffer
from dreamer.schedule import OptimizerConfig
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import Metrics, check_range


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How long.

    Attributes:
        updates: World-model updates before any behaviour is learned.
    """

    updates: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("updates", self.updates, 0, 10**9)


@dataclass(kw_only=True)
class Pretraining:
    """Where pretraining stands.

    Attributes:
        trainer, buffer: What is trained, on what.
        config, schedule: How long, at which rates.
        updates: Updates done.
        history: One row of metrics per logged update.
    """

    trainer: DreamerV3Trainer
    buffer: SequenceReplayBuffer
    config: PretrainConfig
    schedule: OptimizerConfig
    updates: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def run(
        self,
        *,
        log_every: int,
        on_metrics: Callable[[int, dict[str, float]], None],
        after_update: Callable[[], None],
    ) -> None:
        """Train up to `config.updates`.

        Args:
            log_every: Updates between rows of metrics; the last update is always logged.
            on_metrics: Told the update number and the metrics.
            after_update: Called after every update; may checkpoint or raise to stop.
        """
        while self.updates < self.config.updates:
            metrics = self._update()
            if self.updates % log_every == 0 or self.updates == self.config.updates:
                row = self.trainer.read(metrics)
                self.history.append({"update": self.updates} | row)
                on_metrics(self.updates, row)
            after_update()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the buffer, which keeps itself."""
        return {
            "trainer": self.trainer.state_dict(),
            "updates": self.updates,
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.trainer.load_state_dict(state["trainer"])
        self.updates, self.history = state["updates"], state["history"]

    def _update(self) -> Metrics:
        sample = self.buffer.sample(self.trainer.noise.numpy("pretrain-replay", self.updates))
        # No decay: training goes on with this model at the full rate.
        share = self.schedule.share(self.updates, progress=0.0)
        batch = make_batch(self.trainer, sample)
        result = self.trainer.pretrain_step(batch, self.updates, share)
        write_back(self.buffer, sample, result)
        self.updates += 1
        return result.metrics
