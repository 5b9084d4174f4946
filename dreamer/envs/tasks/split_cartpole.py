"""SplitCartPole: CartPole whose state is told in four ways, a part in each.

The dynamics are real and a second long, unlike those of CueBits; but what is best is not known, and
an agent that remembers can make up for some of what it is not told.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from dreamer.envs.tasks.options import check_choice, check_whole

NAME = "SplitCartPole-v0"
SIDE = 32  # pixels
CART = (235, 190, 30)
RATE, SAMPLES = 8000, 256  # Hz, and 32 ms of them
MIDDLE, SLOPE = 1200.0, 4000.0  # Hz, and Hz per radian of the pole's angle
AMPLITUDE = 0.5
REACH = 2.4  # of the cart to both sides, at the edges of the image
TARGET = 0.5  # of the cart, to the side that the text names
SAID = ("stay left", "stay right")

Observation = dict[str, Any]


class SplitCartPole(gym.Env[Observation, np.int64]):
    """Balance the pole with the cart on the side that the text names.

    `image` (32, 32, 3) uint8 shows where the cart is and no pole, `audio` (256,) float32 at 8 kHz
    is a tone of 1,200 Hz and 4,000 Hz more per radian of the pole's angle to the right, `vector`
    (2,) float32 holds the two velocities, `text` says `stay left` or `stay right`. The reward is 1
    less the distance of the cart from half a unit on that side, and not below 0. An episode is
    terminated as that of CartPole.

    Args:
        steps: Steps after which the episode is cut, 1 to 1,000,000.
        render_mode: `rgb_array` or None.

    Raises:
        EnvError: An option is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50, "audio_rate": RATE}  # noqa: RUF012

    def __init__(self, *, steps: int = 500, render_mode: str | None = None) -> None:
        check_whole(NAME, "steps", steps, 1, 10**6)
        check_choice(NAME, "render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
                "text": spaces.Text(len(SAID[1]), charset="".join(sorted(set("".join(SAID))))),
                "audio": spaces.Box(-1.0, 1.0, (SAMPLES,), np.float32),
                "vector": spaces.Box(-1e3, 1e3, (2,), np.float32),
            }
        )
        self.action_space = spaces.Discrete(2)
        self._cart, self._steps = CartPoleEnv(), steps
        self._state, self._right, self._taken = np.zeros(4), 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start in the middle, upright or nearly."""
        super().reset(seed=seed, options=options)
        self._right = int(self.np_random.integers(2))
        self._state, _ = self._cart.reset(seed=int(self.np_random.integers(2**31)))
        self._taken = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Push the cart to the left or to the right."""
        self._state, _, fallen, _, _ = self._cart.step(int(action))
        self._taken += 1
        target = TARGET if self._right else -TARGET
        reward = max(0.0, 1.0 - abs(float(self._state[0]) - target))
        return self._observe(), reward, fallen, self._taken >= self._steps, {}

    def render(self) -> np.ndarray:
        """The image, five times as large."""
        return self._image().repeat(5, 0).repeat(5, 1)

    def close(self) -> None:
        """Close what moves the cart."""
        self._cart.close()

    def _observe(self) -> Observation:
        time = np.arange(SAMPLES) / RATE
        pitch = MIDDLE + SLOPE * float(self._state[2])
        tone = AMPLITUDE * np.sin(2.0 * math.pi * pitch * time)
        return {
            "image": self._image(),
            "text": SAID[self._right],
            "audio": tone.astype(np.float32),
            "vector": self._state[[1, 3]].astype(np.float32),
        }

    def _image(self) -> np.ndarray:
        """A bar where the cart is; its edges fade, so that less than a pixel can be seen."""
        centre = (float(self._state[0]) / REACH + 1.0) / 2.0 * SIDE
        cover = np.clip(3.0 - np.abs(np.arange(SIDE) + 0.5 - centre), 0.0, 1.0)
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[12:20] = np.round(cover[:, None] * np.array(CART)).astype(np.uint8)
        return image
