"""A fifth sense, outside of the package: a skin of 16x16 sensors, an encoder and a decoder for it.

`dreamer train --env examples.touch:Touch-v0` imports this module, and so does every process that
reads what came of it; see docs/modalities.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from dreamer.modalities import MODALITY_CONFIGS, ModalityConfig
from dreamer.nn.layers import MLP, Linear, NormedLinear
from dreamer.types import ObsSpec, SizeLike

SIDE, PATCH = 16, 4  # sensors along an edge of the skin, and of one token
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
STEPS = 20


class Touch(gym.Env[dict[str, np.ndarray], np.int64]):
    """Something presses on a skin; move the skin until it is felt in the middle."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    observation_space = spaces.Dict({"touch": spaces.Box(0.0, 1.0, (SIDE, SIDE), np.float32)})
    action_space = spaces.Discrete(len(MOVES))

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Press somewhere."""
        super().reset(seed=seed, options=options)
        self.place, self.steps = self.np_random.integers(SIDE, size=2), 0
        return self._feel(), {}

    def step(
        self, action: np.int64
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move; 1 while the pressure is on the middle four sensors."""
        self.place = np.clip(self.place + MOVES[action], 0, SIDE - 1)
        self.steps += 1
        centred = bool(np.isin(self.place, (SIDE // 2 - 1, SIDE // 2)).all())
        return self._feel(), float(centred), False, self.steps >= STEPS, {}

    def render(self) -> np.ndarray:
        """The skin in grey, eight pixels a sensor."""
        grey = (255 * self._feel()["touch"]).astype(np.uint8)
        return np.kron(grey, np.ones((8, 8), np.uint8))[..., None].repeat(3, -1)

    def _feel(self) -> dict[str, np.ndarray]:
        rows, columns = np.indices((SIDE, SIDE))
        distance = (rows - self.place[0]) ** 2 + (columns - self.place[1]) ** 2
        return {"touch": np.exp(-distance / 4.0).astype(np.float32)}


class TouchEncoder(nn.Module):
    """Every patch of 4x4 sensors is one token."""

    def __init__(
        self, specs: Mapping[str, ObsSpec], size: SizeLike, generator: torch.Generator
    ) -> None:
        super().__init__()
        (self.key,) = specs
        self.tokens = (SIDE // PATCH) ** 2
        self.out_dim = self.tokens * size.depth
        self.patch = NormedLinear(PATCH * PATCH, size.depth, generator)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """touch -> (..., 16, 16) to (..., out_dim)."""
        rows = obs[self.key].unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))
        patches = rows.transpose(-3, -2).flatten(-2).flatten(-3, -2)
        return self.patch(patches).flatten(-2)


class TouchDecoder(nn.Module):
    """Feature -> the whole skin."""

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        feat_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        (self.key,) = specs
        self.mlp = MLP(feat_dim, size.units, 1, generator)
        self.out = Linear(size.units, SIDE * SIDE, generator)

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """(..., F) -> touch -> (..., 16, 16)."""
        return {self.key: self.out(self.mlp(feat)).unflatten(-1, (SIDE, SIDE))}


def squared_error(decoded: Tensor, observed: Tensor) -> Tensor:
    """(..., 16, 16) twice -> (...)."""
    return (decoded - observed).square().sum((-2, -1))


gym.register("Touch-v0", Touch)
MODALITY_CONFIGS["touch"] = ModalityConfig(
    name="touch",
    input_shape=(SIDE, SIDE),
    dtype="float32",
    encoder_type=TouchEncoder,
    decoder_type=TouchDecoder,
    loss=squared_error,
)
