"""Random rows with marks, and a buffer small enough to be compared with plain lists."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer.replay import ReplayConfig, SequenceReplayBuffer

ARRAYS = {
    "image": ((2, 2, 3), "uint8"),
    "mark": ((2,), "int32"),  # ring and number of the row
    "vector": ((3,), "float32"),
    "reward": ((), "float32"),
    "action": ((2,), "float32"),
    "is_first": ((), "bool"),
    "is_last": ((), "bool"),
    "is_terminal": ((), "bool"),
}
LATENTS = {"deter": ((3,), "float16"), "stoch": ((2,), "uint8"), "mark": ((2,), "int32")}


class Streams:
    """Makes the rows of a vector environment and keeps all of them: `kept[env][number]`."""

    def __init__(self, num_envs, seed, *, abandon=0.0):
        self.rng = np.random.default_rng(seed)
        self.abandon = abandon
        self.kept = [[] for _ in range(num_envs)]

    def row(self, env):
        rng, kept = self.rng, self.kept[env]
        first = not kept or kept[-1]["is_last"] or rng.random() < self.abandon
        last = bool(rng.random() < 0.25)
        row = {
            "image": rng.integers(0, 256, (2, 2, 3), np.uint8),
            "mark": np.array([env, len(kept)], np.int32),
            "vector": rng.standard_normal(3, np.float32),
            "reward": np.float32(0 if first else rng.integers(-3, 9)),
            "action": (rng.standard_normal(2, np.float32) + 5) * np.float32(not last),
            "is_first": np.bool_(first),
            "is_last": np.bool_(last),
            "is_terminal": np.bool_(last and rng.random() < 0.5),
        }
        kept.append(row)
        return row

    def rows(self):
        rows = [self.row(env) for env in range(len(self.kept))]
        return {key: np.stack([row[key] for row in rows]) for key in ARRAYS}

    def run(self, env, length):
        rows = [self.row(env) for _ in range(length)]
        return {key: np.stack([row[key] for row in rows]) for key in ARRAYS}

    def latents(self):
        """Latents of the newest rows; `mark` says whose they are."""
        newest = np.array([[e, len(kept) - 1] for e, kept in enumerate(self.kept)], np.int32)
        return {**random_latents(self.rng, (len(self.kept),)), "mark": newest}

    def feed(self, buffer, steps):
        for _ in range(steps):
            buffer.add(self.rows(), self.latents())


def random_latents(rng, lead):
    return {
        "deter": rng.standard_normal((*lead, 3)).astype(np.float16),
        "stoch": rng.integers(0, 256, (*lead, 2), np.uint8),
        "mark": rng.integers(0, 99, (*lead, 2), np.int32),
    }


def make_buffer(directory=None, *, num_envs=3, ring=17, batch_size=6, seq_len=5, meta=None):
    config = ReplayConfig(capacity=num_envs * ring, batch_size=batch_size, seq_len=seq_len)
    if meta is not None:
        return SequenceReplayBuffer.restore(config, ARRAYS, LATENTS, num_envs, directory, meta)
    return SequenceReplayBuffer(config, ARRAYS, LATENTS, num_envs, directory)


@pytest.fixture(name="streams")
def _streams():
    return Streams


@pytest.fixture(name="make_buffer")
def _make_buffer():
    return make_buffer


@pytest.fixture(name="random_latents")
def _random_latents():
    return random_latents
