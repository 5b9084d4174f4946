"""One episode of a frozen agent, kept whole: rows, actions and frames."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dreamer.agent import Agent
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.evaluation import Watch
from dreamer.nn.noise import Noise
from dreamer.types import EnvError, EnvSpec, Policy, Rows
from dreamer.world_model.model import MultimodalWorldModel

FRAME_SIDE = 320  # longest side kept; 500 frames of CartPole would take 360 MB as they are drawn

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """T rows of one episode in order, the first one `is_first`.

    Attributes:
        spec: What the agent saw.
        obs: key -> (T, *), original dtypes.
        action: (T, A) taken after seeing the row; zero on the last one if the episode ended.
        reward: (T,) received on arriving at the row.
        is_first, is_last, is_terminal: (T,) bool.
        frames: (T, height, width, 3) uint8, or None if the environment cannot draw itself.
    """

    spec: EnvSpec
    obs: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    is_terminal: np.ndarray
    frames: np.ndarray | None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def ret(self) -> float:
        """Undiscounted return of the rows recorded."""
        return float(self.reward.sum(dtype=np.float64))

    @property
    def length(self) -> int:
        """Agent steps: one less than rows."""
        return len(self) - 1


def record_episode(
    model: MultimodalWorldModel,
    policy: Policy,
    env_config: EnvConfig,
    *,
    seed: int,
    choice: Literal["sample", "mode"],
    max_steps: int,
    watch: Watch | None = None,
) -> Recording:
    """Play the first episode of `seed`, or its beginning, in one environment.

    Args:
        env_config: Its `num_envs` does not matter.
        seed: Of the episode and of the action noise.
        choice: `sample` actions or take the `mode`.
        max_steps: Agent steps after which to stop, at least 1.
        watch: Called with every row, the action chosen there and the agent.

    Raises:
        EnvError: The environment cannot be made. One that merely cannot be drawn gives a warning
            and a recording without frames.
    """
    env, first, frame = _open(dataclasses.replace(env_config, num_envs=1), seed)
    noise = Noise(seed, next(model.parameters()).device)
    agent = Agent(model, policy, 1, noise, stream="evaluate", choice=choice)
    rows, actions, frames = [first], [agent.act(first, 0)], [frame]
    if watch is not None:
        watch(first, actions[0], agent)
    while len(actions) <= max_steps and not rows[-1]["is_last"][0]:
        rows.append(env.step(actions[-1]))
        actions.append(agent.act(rows[-1], len(actions)))
        frames.append(None if frame is None else shrink(env.render()[0]))
        if watch is not None:
            watch(rows[-1], actions[-1], agent)
    env.close()
    column = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return Recording(
        spec=env.spec,
        obs={key: column.pop(key) for key in env.spec.obs},
        action=np.concatenate(actions),
        frames=None if frame is None else np.stack([f for f in frames if f is not None]),
        **column,
    )


def shrink(frame: np.ndarray) -> np.ndarray:
    """Average blocks of pixels until no side of a frame (height, width, 3) exceeds 320."""
    from PIL import Image

    factor = -(-max(frame.shape[:2]) // FRAME_SIDE)
    return frame.copy() if factor == 1 else np.asarray(Image.fromarray(frame).reduce(factor))


def _open(config: EnvConfig, seed: int) -> tuple[VectorEnv, Rows, np.ndarray | None]:
    """The environment, its first rows and, if it can draw itself here, the first frame."""
    try:
        env = VectorEnv(config, seed, render=True)
        rows = env.reset()
        return env, rows, shrink(env.render()[0])
    except EnvError as error:
        # Made again without drawing: if it was broken, it says so now.
        env = VectorEnv(config, seed)
        rows = env.reset()
        log.warning("no frames of the episode: %s", error)
        return env, rows, None
