"""Measure one update against the arithmetic it needs: `python -m benchmarks.learner --workload W1`.

The floor is the time that the update's multiplications would take at the speed of a large float32
matrix product, measured between the updates on the same machine: the ratio of an update to it can
be compared across machines, milliseconds cannot. Data is random; making and moving the batch is
left out. `--workload modules` compares the update of flat PPO with that of everything on,
`--workload senses` attention between four modalities with concatenation.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks import modules, senses
from benchmarks.timing import FlopCounter, Stopwatch, seconds
from benchmarks.workloads import WORKLOADS, Workload, make_batch, make_trainer
from dreamer.compiling import compile_pieces
from dreamer.trainer import DreamerV3Trainer

WARM_UP = 3
GEMM = 1024
GEMMS_PER_UPDATE = 5
COMPARISONS = {"modules": modules, "senses": senses}


def watch(trainer: DreamerV3Trainer) -> Stopwatch:
    """Attach timers to the parts of an update."""
    stopwatch, model, behavior = Stopwatch(), trainer.model, trainer.behavior
    for owner, method, part in (
        (trainer, "_observe", "observe forward"),
        (model, "_head_losses", "world-model losses"),
        (trainer, "_imagine", "imagination"),
        (trainer, "_behavior_losses", "behaviour losses"),
        (behavior, "replay_value", "behaviour losses"),
        (trainer, "_backward", "backward"),
        (trainer.optimizer, "step", "optimiser"),
        (behavior, "ppo_update", "ppo"),
    ):
        stopwatch.wrap(owner, method, part)
    return stopwatch


def measure(workload: Workload, updates: int, *, compiled: bool) -> dict[str, Any]:
    """Time updates and, between them, the matrix product that sets the floor."""
    trainer = make_trainer(workload)
    batch = make_batch(workload, trainer)
    a, b, out = torch.randn(3, GEMM, GEMM).unbind(0)
    with FlopCounter() as counter:  # eager, because a compiled graph is not seen from outside
        trainer.update_step(batch, 0, 1.0)
    if compiled:
        compile_pieces(trainer)
    first = seconds(partial(trainer.update_step, batch, 0, 1.0))
    for index in range(1, WARM_UP):
        trainer.update_step(batch, index, 1.0)
    stopwatch = watch(trainer)
    spent, products = [], []
    for index in range(WARM_UP, WARM_UP + updates):
        products += [seconds(partial(torch.mm, a, b, out=out)) for _ in range(GEMMS_PER_UPDATE)]
        spent.append(seconds(partial(trainer.update_step, batch, index, 1.0)))
    rate = 2e-9 * GEMM**3 / float(np.median(products))
    gflop = workload.gflop or counter.total / 1e9
    quarter, median, upper = 1e3 * np.quantile(spent, [0.25, 0.5, 0.75])
    parts = {name: 1e3 * total / updates for name, total in stopwatch.seconds.items()}
    parts["other"] = 1e3 * float(np.mean(spent)) - sum(parts.values())
    return {
        "updates": updates,
        "compiled": compiled,
        "first_update_s": first,
        "threads": torch.get_num_threads(),
        "malloc_tuned": "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""),
        "median_ms": median,
        "min_ms": 1e3 * min(spent),
        "iqr_ms": [quarter, upper],
        "mean_ms_of_part": parts,
        "gflop": gflop,
        "gflop_counted": counter.total / 1e9,
        "gemm_gflop_per_s": rate,
        "floor_ms": 1e3 * gflop / rate,
        "ratio": median * rate / (1e3 * gflop),
    }


def report(name: str, result: dict[str, Any]) -> str:
    """Return the result as lines for people."""
    low, high = result["iqr_ms"]
    total = sum(result["mean_ms_of_part"].values())
    lines = [
        f"{name}: {result['updates']} updates, {result['threads']} threads, "
        f"tuned malloc: {'yes' if result['malloc_tuned'] else 'no'}, "
        f"compiled: {'yes' if result['compiled'] else 'no'} "
        f"(first update {result['first_update_s']:.1f} s)",
        f"update   median {result['median_ms']:8.1f} ms   min {result['min_ms']:.1f}   "
        f"IQR {low:.1f} to {high:.1f}",
    ]
    lines += [
        f"  {part:20} {spent:8.1f} ms {spent / total:6.1%}"
        for part, spent in result["mean_ms_of_part"].items()
    ]
    lines += [
        f"floor    {result['gflop']:.1f} GFLOP at {result['gemm_gflop_per_s']:.0f} GFLOP/s = "
        f"{result['floor_ms']:.1f} ms   (this update runs {result['gflop_counted']:.1f} GFLOP)",
        f"ratio    {result['ratio']:.2f}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure one workload and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=[*WORKLOADS, *COMPARISONS], default="W1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20, help="timed updates after the warm-up")
    parser.add_argument(
        "--actor", choices=("reinforce", "ppo"), help="instead of the workload's own"
    )
    parser.add_argument("--compile", action="store_true", help="as with runtime.compile: true")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON line instead of a table"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.workload in COMPARISONS:
        if args.actor or args.compile:
            parser.error("comparisons are of eager PPO, without --actor and --compile")
        comparison = COMPARISONS[args.workload]
        costs = comparison.measure(args.updates)
        costs_as_json = json.dumps({"workload": args.workload, **costs})
        print(costs_as_json if args.json else comparison.report(costs))
        return
    workload = WORKLOADS[args.workload]
    if args.actor and args.actor != workload.actor:
        workload = Workload(**{**vars(workload), "actor": args.actor, "gflop": None})
    result = measure(workload, args.updates, compiled=args.compile)
    if args.json:
        print(json.dumps({"workload": args.workload, "actor": workload.actor, **result}))
    else:
        print(report(f"{args.workload} ({workload.actor})", result))


if __name__ == "__main__":
    main()
