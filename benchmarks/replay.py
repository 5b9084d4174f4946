"""Measure the replay buffer: `python -m benchmarks.replay` prints medians in milliseconds."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamer.replay import ReplayConfig, SequenceReplayBuffer
from dreamer.types import Rows

OBSERVATIONS = {"vector24": ((24,), "float32"), "image64": ((64, 64, 3), "uint8")}
BATCHES = ((16, 64), (16, 16))
NUM_ENVS = 8
WARM_UP = 5
LATENTS = {"deter": ((512,), "float16"), "stoch": ((32,), "uint8")}


def build(
    shape: tuple[int, ...], dtype: str, batch: tuple[int, int], rows: int, folder: Path
) -> tuple[SequenceReplayBuffer, Rows, Rows]:
    """Return a full buffer just after a checkpoint, and one step of rows and of latents."""
    fields: dict[str, tuple[tuple[int, ...], str]] = {"obs": (shape, dtype)}
    fields |= {"reward": ((), "float32"), "action": ((6,), "float32")}
    fields |= dict.fromkeys(("is_first", "is_last", "is_terminal"), ((), "bool"))
    config = ReplayConfig(capacity=rows, batch_size=batch[0], seq_len=batch[1])
    buffer = SequenceReplayBuffer(config, fields, LATENTS, NUM_ENVS, folder)
    length = rows // NUM_ENVS
    run = {key: np.ones((length, *s), d) for key, (s, d) in fields.items()}
    run["is_first"], run["is_last"] = np.arange(length) % 500 == 0, np.arange(length) % 500 == 499
    for env in range(NUM_ENVS):
        buffer.extend(env, run)
    buffer.checkpoint(sync=False)
    step = {key: np.zeros((NUM_ENVS, *s), d) for key, (s, d) in fields.items()}
    return buffer, step, {key: np.zeros((NUM_ENVS, *s), d) for key, (s, d) in LATENTS.items()}


def measure(name: str, batch: tuple[int, int], rows: int, repeats: int, folder: Path) -> str:
    """Return one line of the table."""
    rng = np.random.default_rng(0)
    buffer, step, latents = build(*OBSERVATIONS[name], batch, rows, folder)
    fresh = {key: np.ones((*batch, *s), d) for key, (s, d) in LATENTS.items()}
    ids = iter([buffer.sample(rng).rows for _ in range(repeats + WARM_UP)])
    sample = median_ms(lambda: buffer.sample(rng), repeats)
    write = median_ms(lambda: buffer.write_back(next(ids), fresh), repeats)
    add = median_ms(lambda: buffer.add(step, latents), repeats)
    return f"{name:12} {batch[0]:>4}x{batch[1]:<2} {sample:8.3f} {write:11.3f} {add:8.3f}"


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call after a few warm-up calls."""
    times = []
    for _ in range(repeats + WARM_UP):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times[WARM_UP:]))


def main() -> None:
    """Print one line per observation and batch shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="capacity of the buffer")
    parser.add_argument("--repeats", type=int, default=100, help="calls per median")
    parser.add_argument("--folder", type=Path, help="where the files go (default: temporary)")
    args = parser.parse_args()
    print(f"{'observation':12} {'batch':>7} {'sample':>8} {'write_back':>11} {'add':>8}  ms")
    for name in OBSERVATIONS:
        for batch in BATCHES:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                print(measure(name, batch, args.rows, args.repeats, Path(folder)))


if __name__ == "__main__":
    main()
