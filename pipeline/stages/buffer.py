"""The replay buffer of a stage: filled from the collected episodes, or restored after an
interruption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.replay.buffer import SequenceReplayBuffer
from dreamer.replay.episodes import read_episodes
from dreamer.replay.rows import row_fields
from dreamer.types import EnvSpec
from dreamer.world_model.sizes import SIZES, latent_fields
from pipeline.params import Params


@dataclass(kw_only=True)
class Experience:
    """Spec of the environment, the buffer, and how many rows it was given at first."""

    spec: EnvSpec
    buffer: SequenceReplayBuffer
    collected_steps: int
    generation: int = -1

    def checkpoint(self) -> dict[str, Any]:
        """Describe the buffer for a checkpoint."""
        meta = self.buffer.checkpoint(sync=True)
        self.generation = meta["generation"]
        return {"meta": meta, "collected_steps": self.collected_steps}

    def discard(self) -> None:
        """Give up what only older checkpoints need; call once the last one is stored.

        The generation before the last stays, for the checkpoint that is kept as a fallback.
        """
        self.buffer.discard_before(self.generation - 1)


def load_experience(
    params: Params, episodes: Path, folder: Path, saved: Mapping[str, Any] | None
) -> Experience:
    """Open the buffer in `folder`: as `saved` says, or filled with the collected episodes.

    Args:
        params: Sections replay and world_model. episodes: The dataset.
        folder: Where the rings lie. saved: State of a checkpoint, or None.
    """
    spec, stored = read_episodes(episodes)
    runs = list(stored)
    rings = 1 + max(run.stream for run in runs)
    latents = latent_fields(SIZES[params.world_model.size])
    fields = row_fields(spec)
    if saved is not None:
        meta, steps = saved["buffer"]["meta"], saved["buffer"]["collected_steps"]
        buffer = SequenceReplayBuffer.restore(params.replay, fields, latents, rings, folder, meta)
        return Experience(spec=spec, buffer=buffer, collected_steps=steps)
    buffer = SequenceReplayBuffer(params.replay, fields, latents, rings, folder)
    for run in runs:
        buffer.extend(run.stream, run.rows)
    steps = sum(len(run.rows["reward"]) for run in runs)
    return Experience(spec=spec, buffer=buffer, collected_steps=steps)
