"""Measure a served policy: `python -m benchmarks.serving --agent models/agent/best`.

Both routes answer in turn, each with as many clients as workers, the clients being processes that
send the states of the answer before, as a real one does, and time what they see. Of every row the
best round is told, which other programs disturbed least, with its times, and the median of all. The
policy alone is called without HTTP and JSON. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.servers import fast_route, mlflow_route, running
from pipeline.serving.package import write_model
from pipeline.serving.policy import ServedPolicy, take_one_thread
from pipeline.serving.request import STATE

BATCHES = (1, 64)
ROUTES = {"mlflow models serve": mlflow_route, "dreamer serve": fast_route}
ALONE = "policy alone"


class Round(NamedTuple):
    """Of one measurement: requests per second of all clients, and (n,) milliseconds of each."""

    rate: float
    times: np.ndarray


def main() -> None:
    """Print one line per route, workers and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--agent", type=Path, default=Path("models/agent/best"), help="default: %(default)s")
    add("--seconds", type=float, default=1.0, help="of each measurement; default: %(default)s")
    add("--rounds", type=int, default=6, help="default: %(default)s")
    add("--workers", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = Path(folder) / "model"
        write_model(args.agent, model)
        ports = {
            (name, workers): stack.enter_context(
                running(route(model, workers), Path(folder) / f"{route.__name__}-{workers}.log")
            )
            for name, route in ROUTES.items()
            for workers in args.workers
        }
        print(f"{len(ports)} servers are up", file=sys.stderr)
        print_rounds(args.agent, model, ports, args.seconds, args.rounds)


def print_rounds(
    agent: Path, model: Path, ports: dict[tuple[str, int], int], seconds: float, rounds: int
) -> None:
    """Measure everything in turn, `rounds` times, and print the table."""
    example = json.loads((model / "serving_input_example.json").read_text())["inputs"]
    seen: dict[tuple[str, int, int], list[Round]] = {}
    for _ in range(rounds):
        for batch in BATCHES:
            seen.setdefault((ALONE, 1, batch), []).append(alone(agent, example, batch, seconds))
            for (name, workers), port in ports.items():
                each = ask(port, example, batch, seconds, workers)
                seen.setdefault((name, workers, batch), []).append(each)
    print(f"{rounds} rounds of {seconds:g} s; {os.cpu_count()} cores; requests/s of the best round")
    print(f"{'route':20} workers batch  best median  best obs/s  p50 ms  p99 ms")
    for (name, workers, batch), all_rounds in seen.items():
        best = max(all_rounds, key=lambda each: each.rate)
        median = float(np.median([each.rate for each in all_rounds]))
        half, most = np.percentile(best.times, [50, 99])
        print(
            f"{name:20} {workers:7} {batch:5} {best.rate:5.0f} {median:6.0f} "
            f"{best.rate * batch:11.0f} {half:7.2f} {most:7.2f}"
        )


def alone(agent: Path, example: dict[str, list[object]], batch: int, seconds: float) -> Round:
    """The policy without HTTP and JSON, in this process."""
    take_one_thread()
    policy, rows = ServedPolicy(agent), {key: value * batch for key, value in example.items()}
    times, until = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < until:
        rows[STATE] = list(policy.answer(rows, "mode", 0).states)
        times.append(1e3 * (time.perf_counter() - begin))
    return Round(len(times) / seconds, np.array(times))


def ask(
    port: int, example: dict[str, list[object]], batch: int, seconds: float, clients: int
) -> Round:
    """So many clients at once."""
    words = ["--port", str(port), "--batch", str(batch), "--seconds", str(seconds)]
    command = [sys.executable, "-m", "benchmarks.serving_client", "--example", json.dumps(example)]
    asking = [
        subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)
        for _ in range(clients)
    ]
    answers = [json.loads(each.communicate()[0]) for each in asking]
    rate = sum(len(each) / sum(each) for each in answers)
    return Round(rate, 1e3 * np.concatenate(answers))


if __name__ == "__main__":
    main()
