"""What hierarchy, curiosity, empowerment and meta-gradients add to the update of flat PPO.

Several agents live in one process and make their updates in turn, so that a slow moment of the
machine hits all of them: flat, everything on, and everything but one module for each module. What
is missing without a module is its share.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Stopwatch, seconds
from benchmarks.workloads import (
    EMPOWERMENT_EVERY,
    META_EVERY,
    MODULES,
    WORKLOADS,
    Workload,
    make_batch,
    make_trainer,
)
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import Batch

WARM_UP = 2
META_STEPS = 5
AIM, LIMIT = 1.35, 1.5
FLAT, ALL = "flat", "all"
AGENTS: dict[str, tuple[str, ...]] = {FLAT: (), ALL: MODULES} | {
    f"without {name}": tuple(each for each in MODULES if each != name) for name in MODULES
}
SIZE1M = replace(WORKLOADS["W1"], actor="ppo", gflop=None)


class Timed:
    """One agent, and how many seconds its updates and meta steps took.

    Args:
        workload: What is updated. modules: What is switched on.
    """

    def __init__(self, workload: Workload, modules: tuple[str, ...]) -> None:
        self.trainer = make_trainer(workload, modules)
        self.batch = make_batch(workload, self.trainer)
        self.updates: list[float] = []
        self.meta: list[float] = []

    def update(self, index: int) -> None:
        """Time one update."""
        self.updates.append(seconds(partial(self.trainer.update_step, self.batch, index, 1.0)))

    def meta_step(self, index: int) -> None:
        """Time one meta step, if there are any."""
        if self.trainer.tuning is not None:
            self.meta.append(seconds(partial(self.trainer.meta_step, self.batch, index, 1.0)))

    def warm_up(self) -> None:
        """Steps that do not count."""
        for index in range(WARM_UP):
            self.update(index)
        self.meta_step(WARM_UP)
        self.updates.clear()
        self.meta.clear()

    def milliseconds(self) -> float:
        """Of an update, averaged over a cycle of the modules that do not learn at every one."""
        phases = [self.updates[phase::EMPOWERMENT_EVERY] for phase in range(EMPOWERMENT_EVERY)]
        update = float(np.mean([np.median(phase) for phase in phases]))
        return 1e3 * (update + (float(np.median(self.meta)) / META_EVERY if self.meta else 0.0))


def measure(updates: int, workload: Workload = SIZE1M) -> dict[str, Any]:
    """Time all agents in turn.

    Args:
        updates: Of each agent, at least EMPOWERMENT_EVERY are made. workload: What is updated.
    """
    updates = max(updates, EMPOWERMENT_EVERY)
    agents = {name: Timed(workload, modules) for name, modules in AGENTS.items()}
    for agent in agents.values():
        agent.warm_up()
    watches = {name: watch_levels(agents[name].trainer) for name in (FLAT, ALL)}
    goals = []
    for index in range(updates):
        for agent in agents.values():
            agent.update(index)
        everything = agents[ALL]
        goals.append(seconds(partial(goals_step, everything.trainer, everything.batch, index)))
    level = {name: dict(watch.seconds) for name, watch in watches.items()}
    for index in range(META_STEPS):
        for agent in agents.values():
            agent.meta_step(index)
    total = {name: agent.milliseconds() for name, agent in agents.items()}
    return {
        "updates": updates,
        "threads": torch.get_num_threads(),
        "ms_of_agent": total,
        "ratio": total[ALL] / total[FLAT],
        "ms_of_module": {name: total[ALL] - total[f"without {name}"] for name in MODULES},
        "ms_of_hierarchy": {
            "manager": 1e3 * level[ALL]["top"] / updates,
            "worker extra": 1e3 * (level[ALL]["worker"] - level[FLAT]["top"]) / updates,
            "goals": 1e3 * float(np.median(goals)),
        },
        "ms_of_meta_step": 1e3 * float(np.median(agents[ALL].meta)),
    }


def watch_levels(trainer: DreamerV3Trainer) -> Stopwatch:
    """Attach timers to what the levels of a hierarchy, or a flat policy, learn by PPO."""
    stopwatch, behavior = Stopwatch(), trainer.behavior
    for part, level in (("top", behavior.top), ("worker", behavior.worker)):
        if level is not None:
            stopwatch.wrap(level, "evaluate", part)
            stopwatch.wrap(level, "ppo_update", part)
    return stopwatch


def goals_step(trainer: DreamerV3Trainer, batch: Batch, index: int) -> None:
    """Loss and gradients of the goal autoencoder alone, on as many states as in an update."""
    goals, size = trainer.behavior.goals, trainer.model.rssm.size
    assert goals is not None
    lead = batch.reward.t().shape
    generator = torch.Generator().manual_seed(index)
    deter = torch.randn(*lead, size.deter, generator=generator)
    noise = torch.rand(*lead, goals.groups, generator=generator)
    trainer.optimizer.zero_grad()
    goals.loss(deter, noise)[0].backward()


def report(result: dict[str, Any]) -> str:
    """Return the result as lines for people."""
    total, ratio = result["ms_of_agent"], result["ratio"]
    word = "aim met" if ratio <= AIM else "limit met" if ratio <= LIMIT else "too slow"
    lines = [
        f"modules: {result['updates']} updates of {len(total)} agents in turn, "
        f"{result['threads']} threads",
        f"flat PPO       {total[FLAT]:8.1f} ms",
        f"everything on  {total[ALL]:8.1f} ms   a meta step in {META_EVERY} updates included",
        f"ratio          {ratio:8.3f}      {word} (aim {AIM}, limit {LIMIT})",
        "share of each module, as a share of the flat update:",
    ]
    parts = [(name, spent, "") for name, spent in result["ms_of_module"].items()]
    parts[1:1] = [(name, spent, "  ") for name, spent in result["ms_of_hierarchy"].items()]
    lines += [
        f"  {indent + name:18} {spent:8.1f} ms {spent / total[FLAT]:7.1%}"
        for name, spent, indent in parts
    ]
    return "\n".join([*lines, f"a meta step takes {result['ms_of_meta_step']:.1f} ms"])
