"""Shared vocabulary: specs, batches, latent states, imagined rollouts, errors and the protocols.

Legend of shapes, used everywhere:
    B  sequences in a batch          T  steps of a sequence
    N  imagined rollouts (B * T)     H  imagined steps
    D  width of `deter`              S, C  groups and classes of `stoch`
    E  width of `embed`              F  width of `feat` (D + S * C)
    A  width of an action vector (concatenated one-hots, or one real number per dimension)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

Losses = dict[str, Tensor]  # name -> (B, T), unreduced
Metrics = dict[str, Tensor]  # `group/name` -> scalar, detached, still on the device
Rows = dict[str, np.ndarray]  # one replay row per environment, every array (num_envs, ...)


class DreamerError(Exception):
    """A mistake or fault the user can act on; the command line prints it as one line."""


class ConfigError(DreamerError):
    """A parameter is unknown, missing, of the wrong type or out of range.

    Args:
        key: Name of the offending parameter, dotted once a loader has added its section.
        found: What was given.
        allowed: What would have been accepted, in words.
    """

    def __init__(self, key: str, found: Any, allowed: str) -> None:  # noqa: ANN401
        super().__init__(f"{key}: found {found!r}; allowed: {allowed}")
        self.key, self.found, self.allowed = key, found, allowed


class EnvError(DreamerError):
    """An environment is unknown, has unsupported spaces or broke its own contract."""


class DataError(DreamerError):
    """An episode shard or its manifest is missing or damaged, or a buffer cannot be stored."""


class CheckpointError(DreamerError):
    """A checkpoint or model is missing, damaged or of another shape."""


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless `low <= value <= high` (NaN is refused too)."""
    if not low <= value <= high:
        raise ConfigError(key, value, f"{low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True)
class ObsSpec:
    """One observation key as rows carry it.

    Attributes:
        shape: Shape of one observation; never empty, () becomes (1,).
        dtype: numpy dtype name: `uint8`, `float32`, or `int32` for categorical ones.
        kind: `image` is (height, width, channels) uint8; `categorical` holds integers below `classes`.
        classes: Number of classes of a categorical key, otherwise 0.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32", "int32"]
    kind: Literal["vector", "image", "categorical"]
    classes: int = 0


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """The action vector that agents emit.

    Attributes:
        kind: `discrete` is one or several concatenated one-hots, `continuous` real numbers in which
            [-1, 1] covers the environment's box.
        sizes: Classes per discrete choice, or `(dim,)` for continuous actions.
    """

    kind: Literal["discrete", "continuous"]
    sizes: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Width A of the action vector."""
        return sum(self.sizes)


class EnvSpec(NamedTuple):
    """What an agent must know of an environment: observation keys (sorted) and the action vector."""

    obs: dict[str, ObsSpec]
    action: ActionSpec


class LatentState(NamedTuple):
    """RSSM state: `deter` (..., D) and one-hot `stoch` (..., S, C)."""

    deter: Tensor
    stoch: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Replayed sequences on the training device.

    Attributes:
        obs: key -> (B, T, *), original dtypes.
        action: (B, T, A) taken after seeing the observation; zero on `is_last` rows.
        prev_action: (B, T, A) the action that led to the row.
        reward: (B, T) received on arriving at the observation.
        is_first: (B, T) bool.
        is_last: (B, T) bool, terminated or truncated.
        is_terminal: (B, T) bool, terminated only.
        state: Latent of the row before the sequence, (B, D) and (B, S, C).
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    prev_action: Tensor
    reward: Tensor
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    state: LatentState


class Imagined(NamedTuple):
    """One imagined rollout batch; no tensor carries a gradient. Time comes first: index 0 is the
    replayed posterior and `reward[t]`, `cont[t]` belong to the state they are predicted at.

    feat (H + 1, N, F), action (H, N, A), log_prob_old (H, N), reward and cont (H + 1, N).
    """

    feat: Tensor
    action: Tensor
    log_prob_old: Tensor
    reward: Tensor
    cont: Tensor


class Policy(Protocol):
    """Anything that can act on features: the flat actor, and the hierarchy with its carry."""

    def initial(self, batch: int, device: torch.device) -> Any:  # noqa: ANN401
        """Carry for `batch` fresh episodes (empty for a flat actor)."""

    def act(
        self, feat: Tensor, carry: Any, is_first: Tensor, noise: Tensor  # noqa: ANN401
    ) -> tuple[Tensor, Tensor, Any]:
        """Sample actions.

        Args:
            feat: (N, F) features.
            carry: What `initial` or the previous call returned.
            is_first: (N,) bool, resets the carry.
            noise: (N, K) uniform or normal noise, see `ActionDist.noise`.

        Returns:
            action (N, A), its log-probability (N,), and the next carry.
        """


class IntrinsicReward(Protocol):
    """Anything that scores imagined rollouts: ICM, Empowerment."""

    def reward(self, rollout: Imagined) -> Tensor:
        """(H, N) reward without gradient."""
