"""Reward streams of one level: bring rewards to a common scale, and mix their advantages.

Every active stream (its weight is above zero) has its own critic head and return scale; one that is
switched off, or has weight zero, allocates nothing.

Source: arXiv 2301.04104 ("Actor learning") for the percentile scale; Burda et al. 2018 (arXiv
1808.04355) for dividing curiosity by a running scale; one value per reward source as in Burda et
al. 2018 (arXiv 1810.12894).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dreamer.nn.normalize import PercentileScale, RunningCenter, RunningScale
from dreamer.types import Metrics, Rate

# Least return scale. Rewards of a task keep their own size unless they are large; intrinsic ones
# are of size 1 by construction, and a tenth of that is still signal.
FLOORS = {"extrinsic": 1.0, "icm": 0.1, "empowerment": 0.1, "goal": 0.1}


def active(weights: Mapping[str, float]) -> dict[str, float]:
    """The streams that are in the mix, in the order of FLOORS: the task's is the first."""
    return {name: weights[name] for name in FLOORS if weights.get(name, 0.0) > 0.0}


class RewardStreams(nn.Module):
    """Normalisers and weights of the S active streams of a level, in a fixed order.

    Args:
        weights: Stream -> weight in the advantage, all above zero.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights: dict[str, Rate] = dict(weights)
        self.scales = nn.ModuleDict(
            {
                name: PercentileScale(floor=FLOORS[name], debias=name != "extrinsic")
                for name in weights
            }
        )
        # What an agent is curious about shrinks as it learns; its scale follows.
        self.unit = RunningScale() if "icm" in weights else None
        # A reward that is positive wherever one goes pays for not ending the episode.
        self.centers = nn.ModuleDict(
            {name: RunningCenter() for name in weights if name != "extrinsic"}
        )

    @torch.no_grad()
    def prepare(self, rewards: Mapping[str, Tensor]) -> Tensor:
        """Take the rewards into the running statistics, in training mode, and scale them.

        Args:
            rewards: Stream -> (H, N) on arriving at states 1 .. H.

        Returns:
            (H, S, N) of the active streams.
        """
        ready = []
        for name in self.weights:
            reward = rewards[name]
            if name == "icm" and self.unit is not None:
                reward = self.unit(reward)
            if name in self.centers:
                reward = self.centers[name](reward)
            ready.append(reward)
        return torch.stack(ready, 1)

    @torch.no_grad()
    def advantages(self, ret: Tensor, value: Tensor) -> Tensor:
        """(H, S, N) returns and values -> (H, S, N) scaled advantages; in training mode takes the
        returns into the scales before using them.
        """
        parts = []
        for i, name in enumerate(self.weights):
            if self.training:
                self._scale(name).update(ret[:, i])
            parts.append((ret[:, i] - value[:, i]) / self.scale(name))
        return torch.stack(parts, 1)

    def mix(self, advantages: Tensor) -> Tensor:
        """(H, S, N) -> (H, N) weighted sum."""
        weights = self.weights.values()
        return torch.stack([advantages[:, i] * weight for i, weight in enumerate(weights)]).sum(0)

    def scale(self, name: str) -> Tensor:
        """() what advantages of a stream are divided by."""
        return self._scale(name).scale()

    def metrics(
        self, rewards: Mapping[str, Tensor], ready: Tensor, group: str = "reward"
    ) -> Metrics:
        """Raw, normalised (by running statistics and return scale) and weighted mean of every
        stream.
        """
        out: Metrics = {}
        for i, (name, weight) in enumerate(self.weights.items()):
            mean = ready[:, i].mean() / self.scale(name)
            out[f"{group}/{name}/raw"] = rewards[name].mean()
            out[f"{group}/{name}/normalised"] = mean
            out[f"{group}/{name}/weighted"] = mean * weight
        return out

    def _scale(self, name: str) -> PercentileScale:
        scale = self.scales[name]
        assert isinstance(scale, PercentileScale)
        return scale
