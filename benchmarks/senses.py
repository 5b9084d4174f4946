"""What several modalities cost, and that an agent with one pays nothing for the others.

Agents with the four modalities of CueBits, fused by attention and by concatenation, make their
updates in turn in one process, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.timing import FlopCounter, seconds
from benchmarks.workloads import SENSES, WORKLOADS, Workload, make_batch, make_trainer
from dreamer.trainer import DreamerV3Trainer

WARM_UP = 2
LIMIT = 0.15
FOUR = Workload(spec=SENSES, size="size1m", seq_len=64, actor="ppo", gflop=None)
VECTOR = replace(WORKLOADS["W1"], actor="ppo", gflop=None)
HEAVY = (
    "PIL", "ale_py", "crafter", "dm_control", "matplotlib", "minigrid", "mujoco", "tokenizers",
    "torchaudio", "transformers",
)  # fmt: skip
IMPORTS = f"""
import sys, time
begin = time.perf_counter()
import torch
loaded = time.perf_counter()
import dreamer.loop
print(time.perf_counter() - loaded, *sorted({set(HEAVY)!r} & sys.modules.keys()))
"""


def measure(updates: int, four: Workload = FOUR, vector: Workload = VECTOR) -> dict[str, Any]:
    """Time updates of all agents in turn, and an import.

    Args:
        updates: Of each agent. four, vector: What is updated.
    """
    agents = {
        "attention": make_trainer(replace(four, fusion="attention")),
        "concat": make_trainer(replace(four, fusion="concat")),
    }
    batch = make_batch(four, agents["concat"])
    spent: dict[str, list[float]] = {name: [] for name in agents}
    for index in range(WARM_UP + updates):
        for name, trainer in agents.items():
            spent[name].append(seconds(partial(trainer.update_step, batch, index, 1.0)))
    median = {name: float(np.median(times[WARM_UP:])) for name, times in spent.items()}
    return {
        "updates": updates,
        "threads": torch.get_num_threads(),
        "ms_of_agent": {name: 1e3 * value for name, value in median.items()},
        "attention_share": median["attention"] / median["concat"] - 1.0,
        "parameters": {name: parameters(trainer) for name, trainer in agents.items()},
        "vector": alone(vector),
        "import": import_cost(),
    }


def parameters(trainer: DreamerV3Trainer) -> int:
    """Trainable numbers of the world model."""
    return sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)


def alone(workload: Workload) -> dict[str, float]:
    """What an agent with one modality has and does, by either fusion: the same."""
    found = {}
    for fusion in ("attention", "concat"):
        trainer = make_trainer(replace(workload, fusion=fusion))
        batch = make_batch(workload, trainer)
        with FlopCounter() as counter:
            trainer.update_step(batch, 0, 1.0)
        found[f"parameters_{fusion}"] = parameters(trainer)
        found[f"gflop_{fusion}"] = counter.total / 1e9
    return found


def import_cost() -> dict[str, Any]:
    """Seconds that importing the training loop takes after PyTorch, and the heavy libraries it
    loads.
    """
    words = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    ).stdout.split()
    return {"seconds": float(words[0]), "heavy": words[1:]}


def report(result: dict[str, Any]) -> str:
    """Return the result as lines for people."""
    total, share, vector = result["ms_of_agent"], result["attention_share"], result["vector"]
    verdict = "met" if share < LIMIT else "not met"
    return "\n".join(
        [
            f"senses: {result['updates']} updates of 2 agents in turn, {result['threads']} threads",
            *(
                f"four modalities, {name:9} {total[name]:8.1f} ms   "
                f"{result['parameters'][name]:,} parameters"
                for name in total
            ),
            f"attention adds {share:.1%} (limit {LIMIT:.0%}: {verdict})",
            f"vector alone: {vector['parameters_attention']:,} parameters and "
            f"{vector['gflop_attention']:.2f} GFLOP an update with attention, "
            f"{vector['parameters_concat']:,} and {vector['gflop_concat']:.2f} with concat",
            f"import of the training loop: {result['import']['seconds']:.2f} s after PyTorch, "
            f"heavy libraries: {', '.join(result['import']['heavy']) or 'none'}",
        ]
    )
