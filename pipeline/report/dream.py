"""What the model makes of a recorded episode: reconstructed from what came, and imagined ahead."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer.nn.noise import Noise
from dreamer.types import PRESENT, DataError
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.recording import Recording

SAMPLES = 8  # imagined futures
REWARD = "reward"


class Dream(NamedTuple):
    """A window of W rows at the beginning of an episode, and what the model made of it.

    Attributes:
        truth: key -> (W, *), the recorded observations, and `reward` (W,).
        reconstructed: key -> (W, *): decoded from the posterior of a model that saw all rows.
        imagined: key -> (SAMPLES, W, *): decoded from the posterior in the first `context` rows,
            which the model saw, and from the open-loop prior in the others.
        there: key -> (W,) whether it was observed, of keys that may be missing.
        context: Rows seen.
    """

    truth: dict[str, np.ndarray]
    reconstructed: dict[str, np.ndarray]
    imagined: dict[str, np.ndarray]
    there: dict[str, np.ndarray]
    context: int

    @property
    def steps(self) -> int:
        """Length W."""
        return len(self.truth[REWARD])

    def missing(self, key: str) -> np.ndarray:
        """(W,) whether nothing was observed."""
        return ~self.there[key] if key in self.there else np.zeros(self.steps, np.bool_)


@torch.no_grad()
def dream(
    model: MultimodalWorldModel, recording: Recording, noise: Noise, context: int, horizon: int
) -> Dream:
    """Filter the first rows of a recording, then imagine the others from its actions alone.

    Args:
        model: On the device of `noise`. recording: Of its environment.
        context, horizon: Rows seen and rows imagined; both shrink with a short episode.

    Raises:
        DataError: The recording has fewer than two rows.
    """
    if len(recording) < 2:
        raise DataError(f"recording: found {len(recording)} rows; allowed: at least 2")
    steps = min(len(recording), context + horizon)
    context = min(context, steps // 2)
    ahead = _decode(model, _imagine(model, recording, noise, context, steps))
    whole = _decode(model, _filter(model, recording, noise, "picture/reconstructed", steps, 1))
    rows = {key: recording.obs[key] for key in recording.spec.obs if key in ahead}
    truth = {key: row[:steps] for key, row in (rows | {REWARD: recording.reward}).items()}
    flags = {key: PRESENT + key for key in truth if PRESENT + key in recording.obs}
    return Dream(
        truth,
        {key: whole[key][:, 0].cpu().numpy() for key in truth},
        {key: ahead[key].transpose(0, 1).cpu().numpy() for key in truth},
        {key: recording.obs[flag][:steps, 0].astype(np.bool_) for key, flag in flags.items()},
        context,
    )


def spread_out(first: int, last: int, count: int) -> list[int]:
    """At most `count` different integers from `first` to `last`, both among them."""
    return sorted({round(x) for x in np.linspace(first, last, min(count, last - first + 1))})


def _decode(model: MultimodalWorldModel, feat: Tensor) -> dict[str, Tensor]:
    """Features (..., F) -> observations and reward."""
    return model.decode(feat) | {REWARD: model.reward(feat).mean()}


def _taken(recording: Recording, noise: Noise, steps: int) -> Tensor:
    """(steps, A): row t is the action that led to row t of the recording."""
    taken = torch.from_numpy(recording.action[: steps - 1]).to(noise.device)
    zero = taken.new_zeros(1, recording.action.shape[1])
    return torch.cat([zero, taken])


def _filter(
    model: MultimodalWorldModel,
    recording: Recording,
    noise: Noise,
    stream: str,
    steps: int,
    samples: int,
) -> Tensor:
    """(steps, samples, F) of the posterior, which sees every one of the rows."""
    rssm, device = model.rssm, noise.device
    obs = {key: torch.from_numpy(recording.obs[key][:steps]).to(device) for key in model.spec.obs}
    is_first = torch.from_numpy(recording.is_first[:steps]).to(device)
    seen = rssm.observe(
        model.encode(obs)[:, None].expand(-1, samples, -1),
        _taken(recording, noise, steps)[:, None].expand(-1, samples, -1),
        is_first[:, None].expand(-1, samples),
        rssm.initial(samples),
        noise.uniform(stream, 0, (steps, samples, rssm.size.groups)),
    )
    return torch.cat([seen.deter, seen.stoch], -1)


def _imagine(
    model: MultimodalWorldModel, recording: Recording, noise: Noise, context: int, steps: int
) -> Tensor:
    """(steps, SAMPLES, F): the posterior of the context, then the prior, step by step."""
    rssm = model.rssm
    feats = list(_filter(model, recording, noise, "picture/seen", context, SAMPLES))
    deter, stoch = feats[-1].split([rssm.size.deter, model.feat_dim - rssm.size.deter], -1)
    draws = noise.uniform("picture/imagined", 0, (steps - context, SAMPLES, rssm.size.groups))
    taken = _taken(recording, noise, steps)[:, None].expand(-1, SAMPLES, -1)
    for action, draw in zip(taken[context:], draws, strict=True):
        deter, stoch = rssm.imagine_step(deter, stoch, action, draw)
        feats.append(torch.cat([deter, stoch], -1))
    return torch.stack(feats)
