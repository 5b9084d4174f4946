"""CueBits: four senses, three hidden bits, and no sense that could be done without.

Where picture, sound and numbers of a task describe the same state, an agent that ignores one of
them may do as well as one that uses all. Here each bit has a sense of its own, and one bit is in
none of two senses but in both together, so that what an agent without a sense can earn at most is
known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.tasks.options import check_choice, check_whole

NAME = "CueBits-v0"
SENSES = ("image", "text", "audio", "vector")
SIDE = 32  # pixels
SQUARE = 10
SHIFT = 8  # rows, at most
LETTERS = "abcdefghijklmnopqrstuvwxyz "
LONGEST_TEXT = 32
RATE, SAMPLES = 8000, 256  # Hz, and 32 ms of them
LOW_BAND, HIGH_BAND = (400.0, 800.0), (1600.0, 2400.0)  # Hz
GAIN = (0.4, 0.7)
NOISE = 0.05  # standard deviation of the sound's
NUMBERS, LARGEST = 8, 10.0
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 40),
    "purple": (160, 50, 200),
    "white": (240, 240, 240),
}

Observation = dict[str, Any]


class Trial(NamedTuple):
    """What is asked.

    Attributes:
        bits: (3,) int: side of the named square, band of the tone, sign of the first number.
        pair: Names of the left and the right colour. no: Whether the text names the other one.
        shift: Rows by which the squares are out of the middle.
    """

    bits: np.ndarray
    pair: tuple[str, str]
    no: bool
    shift: tuple[int, int]


class CueBits(gym.Env[Observation, np.int64]):
    """Tell three fair bits per trial from what is seen, read, heard and felt.

    The first bit is the side of the square that the text names: the image shows two squares of
    different colours, the text says `pick the red one`. The second is the pitch of a tone, 400 to
    800 or 1,600 to 2,400 Hz at a random loudness. The third is the sign of the first of eight
    numbers. The action is bit 0 + 2 bit 1 + 4 bit 2.

    Observations: `image` (32, 32, 3) uint8, `text` of at most 32 letters, `audio` (256,) float32 at
    8 kHz, `vector` (8,) float32. What is not shown is zeros, or the empty text.

    `info["scores"]` of a step that is scored says of `bit0`, `bit1` and `bit2` whether each is
    right, and of `trial` whether all are. After the last trial the episode is truncated.

    Args:
        trials: In an episode, 1 to 1000.
        spread: Image and text, then sound, then numbers: three steps a trial, of which the last is
            scored, so that the answer has to be remembered. Otherwise all at once, a step a trial.
        reward: `all` is 1 for a trial with all bits right, `mean` the share of bits that are right.
        fail_ends: Whether a trial with a wrong bit terminates the episode.
        colors: How many there are to be told apart, 2 to 6.
        negation: Whether every other text says `pick the one that is not red`.
        jitter: Whether the squares move up and down.
        render_mode: `rgb_array` or None.

    Raises:
        EnvError: An option is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 3, "audio_rate": RATE}  # noqa: RUF012

    def __init__(
        self,
        *,
        trials: int = 10,
        spread: bool = True,
        reward: str = "all",
        fail_ends: bool = False,
        colors: int = 3,
        negation: bool = False,
        jitter: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check_whole(NAME, "trials", trials, 1, 1000)
        check_choice(NAME, "reward", reward, ("all", "mean"))
        check_whole(NAME, "colors", colors, 2, len(COLOURS))
        switches = {"spread": spread, "fail_ends": fail_ends}
        switches |= {"negation": negation, "jitter": jitter}
        for name, value in switches.items():
            check_choice(NAME, name, value, (True, False))
        check_choice(NAME, "render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
                "text": spaces.Text(LONGEST_TEXT, min_length=0, charset=LETTERS),
                "audio": spaces.Box(-1.0, 1.0, (SAMPLES,), np.float32),
                "vector": spaces.Box(-LARGEST, LARGEST, (NUMBERS,), np.float32),
            }
        )
        self.action_space = spaces.Discrete(8)
        self._trials, self._steps = trials, 3 if spread else 1
        self._all, self._fail_ends = reward == "all", fail_ends
        self._names = tuple(COLOURS)[:colors]
        self._negation, self._jitter = negation, jitter
        self._done, self._phase = 0, 0
        self._trial = Trial(np.zeros(3, np.int64), (self._names[0], self._names[1]), False, (0, 0))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw the first trial."""
        super().reset(seed=seed, options=options)
        self._done, self._phase = 0, 0
        self._trial = self._draw_trial()
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Answer, where it is scored; then the next part of the trial, or the next trial."""
        if self._phase < self._steps - 1:
            self._phase += 1
            return self._observe(), 0.0, False, False, {}
        right = (int(action) >> np.arange(3) & 1) == self._trial.bits
        correct = bool(right.all())
        reward = float(correct) if self._all else float(right.mean())
        self._done, self._phase = self._done + 1, 0
        self._trial = self._draw_trial()
        failed = self._fail_ends and not correct
        cut = self._done >= self._trials and not failed
        scores = {f"bit{index}": bool(one) for index, one in enumerate(right)} | {"trial": correct}
        return self._observe(), reward, failed, cut, {"scores": scores}

    def render(self) -> np.ndarray:
        """The squares, five times as large, whether the agent is shown them now or not."""
        return self._image().repeat(5, 0).repeat(5, 1)

    def _draw_trial(self) -> Trial:
        rng = self.np_random
        left, right = rng.choice(len(self._names), 2, replace=False)
        pair = self._names[left], self._names[right]
        bits = rng.integers(2, size=3)
        no = bool(self._negation and rng.integers(2))
        up, down = rng.integers(-SHIFT, SHIFT + 1, size=2) if self._jitter else (0, 0)
        return Trial(bits, pair, no, (int(up), int(down)))

    def _observe(self) -> Observation:
        """All senses, or those of this phase."""
        shown = set(SENSES)
        if self._steps > 1:
            shown = ({"image", "text"}, {"audio"}, {"vector"})[self._phase]
        return {
            "image": self._image() if "image" in shown else np.zeros((SIDE, SIDE, 3), np.uint8),
            "text": self._text() if "text" in shown else "",
            "audio": self._audio() if "audio" in shown else np.zeros(SAMPLES, np.float32),
            "vector": self._vector() if "vector" in shown else np.zeros(NUMBERS, np.float32),
        }

    def _image(self) -> np.ndarray:
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        for left, name, shift in zip((3, 19), self._trial.pair, self._trial.shift, strict=True):
            top = (SIDE - SQUARE) // 2 + shift
            image[top : top + SQUARE, left : left + SQUARE] = COLOURS[name]
        return image

    def _text(self) -> str:
        side = int(self._trial.bits[0])
        if self._trial.no:
            return f"pick the one that is not {self._trial.pair[1 - side]}"
        return f"pick the {self._trial.pair[side]} one"

    def _audio(self) -> np.ndarray:
        rng = self.np_random
        pitch = rng.uniform(*(HIGH_BAND if self._trial.bits[1] else LOW_BAND))
        phase, gain = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(*GAIN)
        tone = gain * np.sin(2.0 * math.pi * pitch / RATE * np.arange(SAMPLES) + phase)
        return (tone + NOISE * rng.standard_normal(SAMPLES)).clip(-1.0, 1.0).astype(np.float32)

    def _vector(self) -> np.ndarray:
        numbers = self.np_random.standard_normal(NUMBERS)
        size = self.np_random.uniform(0.5, 1.5)
        numbers[0] = size if self._trial.bits[2] else -size
        return numbers.clip(-LARGEST, LARGEST).astype(np.float32)


def certain_bits(senses: Collection[str]) -> tuple[bool, bool, bool]:
    """Which bits these of `SENSES` tell; nothing is known of the others."""
    return {"image", "text"} <= set(senses), "audio" in senses, "vector" in senses


def best_return(
    senses: Collection[str] = SENSES,
    *,
    trials: int = 10,
    reward: str = "all",
    fail_ends: bool = False,
) -> float:
    """Largest expected return with these of `SENSES`; options as in `CueBits`.

    A bit that is not told is guessed. With p the probability of a trial without a mistake, the
    return is `trials` p, or p + p^2 + ... + p^trials where a mistake ends the episode.
    """
    chances = [1.0 if told else 0.5 for told in certain_bits(senses)]
    perfect = math.prod(chances)
    gain = perfect if reward == "all" else sum(chances) / len(chances)
    if not fail_ends:
        return trials * gain
    # A trial is reached if all before it were perfect; what it pays does not depend on them.
    return gain * sum(perfect**i for i in range(trials))


def optimal_return(**options: Any) -> float:  # noqa: ANN401
    """Return of an agent that uses all senses. Options as in `CueBits`."""
    return best_return(SENSES, **_priced(options))


def random_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of random play. Options as in `CueBits`."""
    return best_return((), **_priced(options))


def _priced(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that change what can be earned."""
    return {k: v for k, v in options.items() if k in ("trials", "reward", "fail_ends")}
