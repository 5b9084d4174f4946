"""ServedPolicy: a saved agent that remembers nothing between two requests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent
from dreamer.checkpoint import META
from dreamer.nn.noise import Noise, derive_seed
from dreamer.saved_agent import load_agent
from dreamer.types import ConfigError
from pipeline.serving.request import read_inputs
from pipeline.serving.state import StateText

CPU = torch.device("cpu")
CHOICES = ("mode", "sample")
DEFAULTS: dict[str, Any] = {"policy": "mode", "seed": 0}  # of the parameters of a request
LARGEST_SEED = 2**53  # that every reader of JSON keeps exactly
STREAM = "evaluate"  # of the noise: an episode is the one that `dreamer evaluate` plays


def take_one_thread() -> None:
    """Compute in one thread, as an agent does that is evaluated, unless OMP_NUM_THREADS is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


class RowNoise(Noise):
    """Noise of episodes that stand at different steps: each row draws from a seed of its own.

    Args:
        seeds, steps: (n,) of the rows; they address the noise instead of the index of a call.
    """

    def __init__(self, seeds: np.ndarray, steps: np.ndarray) -> None:
        super().__init__(0, CPU)
        self.places = list(zip(seeds.tolist(), steps.tolist(), strict=True))

    def uniform(self, stream: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """(n, *) float32 in [0, 1): row by row what an agent alone would draw."""
        del index
        return self._fill(torch.Tensor.uniform_, stream, shape)

    def normal(self, stream: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """(n, *) standard normal: row by row what an agent alone would draw."""
        del index
        return self._fill(torch.Tensor.normal_, stream, shape)

    def _fill(self, draw: Callable[..., Tensor], stream: str, shape: tuple[int, ...]) -> Tensor:
        rows, generator = torch.empty(shape), torch.Generator(CPU)
        for row, (seed, step) in zip(rows, self.places, strict=True):
            # One generator for all: making it costs more than seeding it again.
            draw(row, generator=generator.manual_seed(derive_seed(seed, stream, step)))
        return rows


class Answer(NamedTuple):
    """action: (n, A) float32 vectors. states: n texts for the next request."""

    action: np.ndarray
    states: list[str]


class ServedPolicy:
    """Answers observations and recurrent states with actions and the next states, on the CPU.

    Threads may share it: a call changes nothing.

    Args:
        folder: Of a saved agent, such as models/agent/best.

    Raises:
        CheckpointError: See `load_agent`.
    """

    def __init__(self, folder: Path) -> None:
        saved = load_agent(folder, CPU)
        self.model, self.behavior = saved.model, saved.behavior
        self.spec, self.env = saved.model.spec, saved.env
        digest = hashlib.blake2b((folder / META).read_bytes(), digest_size=8).digest()
        self.mark = int.from_bytes(digest, "little")
        fresh = self._agent(np.zeros(1, np.int64), np.zeros(1, np.int64), "mode")
        self.fresh = fresh.state_dict()
        self.texts = StateText(self.model.rssm, self.fresh, self.mark)

    def answer(
        self, inputs: Mapping[str, Any], policy: Literal["sample", "mode"], seed: int
    ) -> Answer:
        """Act in n environments.

        Args:
            inputs: See `read_inputs`; the state is "" where an episode starts.
            policy: `sample` actions, or take the `mode`.
            seed: Row i of an episode that starts draws its noise from `seed` + i.

        Raises:
            ConfigError: The request is malformed.
        """
        if policy not in CHOICES:
            raise ConfigError("params.policy", policy, " or ".join(CHOICES))
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
            raise ConfigError("params.seed", seed, f"a whole number, 0 to {LARGEST_SEED}")
        obs, states = read_inputs(self.spec, inputs)
        rows, first = self._states(states, seed)
        agent = self._agent(rows["seed"], rows["step"], policy)
        agent.load_state_dict(self.texts.carry(rows))
        action = agent.act(obs | {"is_first": first, "is_last": np.zeros_like(first)}, step=0)
        after = self.texts.rows(agent.state_dict(), rows["seed"], rows["step"] + 1)
        return Answer(action, self.texts.write(after))

    def _states(self, states: list[Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of all states, and which of them start an episode."""
        first = np.array([isinstance(text, str) and not text for text in states])
        rows = np.empty(len(states), self.texts.layout)
        rows[first] = self.texts.fresh(self.fresh, [0])
        rows["seed"] = seed + np.arange(len(rows))
        rows[~first] = self.texts.read({at: states[at] for at in np.flatnonzero(~first).tolist()})
        return rows, first

    def _agent(
        self, seeds: np.ndarray, steps: np.ndarray, choice: Literal["sample", "mode"]
    ) -> Agent:
        noise = RowNoise(seeds, steps)
        policy = self.behavior.policy
        return Agent(self.model, policy, len(seeds), noise, stream=STREAM, choice=choice)
