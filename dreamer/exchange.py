"""Between the buffer and the device: samples become batches, fresh latents go back."""

from __future__ import annotations

import torch

from dreamer.replay.buffer import SequenceReplayBuffer
from dreamer.replay.sampling import Sample
from dreamer.trainer import DreamerV3Trainer, Result
from dreamer.types import Batch

MARKS = ("action", "prev_action", "reward", "is_first", "is_last", "is_terminal")


def make_batch(trainer: DreamerV3Trainer, sample: Sample) -> Batch:
    """Move a replay sample to the trainer's device; its packed latents become the initial state."""
    device = trainer.device
    marks = {name: torch.from_numpy(getattr(sample, name)).to(device) for name in MARKS}
    latents = {key: torch.from_numpy(value).to(device) for key, value in sample.latents.items()}
    obs = {key: torch.from_numpy(value).to(device) for key, value in sample.obs.items()}
    return Batch(obs=obs, state=trainer.model.rssm.unpack(latents), **marks)


def write_back(buffer: SequenceReplayBuffer, sample: Sample, result: Result) -> None:
    """Refresh the stored latents of a sample's rows."""
    fresh = {key: value.cpu().numpy() for key, value in result.latents.items()}
    buffer.write_back(sample.rows, fresh)
