"""Small studies for the tests of `dreamer tune`: real parameters, trainings that cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.params import Raw, load_raw, override
from pipeline.tune.plan import Plan

ROOT = Path(__file__).parents[1]
# As small as a training can be, on top of the preset `smoke`: under a second when idle.
TINY = {
    "env.num_envs": 2,
    "collect.steps": 40,
    "replay.batch_size": 2,
    "replay.seq_len": 8,
    "pretrain.updates": 1,
    "imagination.horizon": 5,
    "imagination.starts": 2,
    "policy.hierarchy": False,
    "intrinsic.icm.enabled": False,
    "intrinsic.empowerment.enabled": False,
    "meta.enabled": False,
    "train.env_steps": 80,
    "train.updates_per_env_step": 0.05,
    "train.extra_world_updates": 0,
    "train.eval_every": 80,
    "train.eval_episodes": 1,
    "evaluate.episodes": 2,
}
GRID = {
    "world_model.kl_scale": [0.5, 1, 2],
    "world_model.free_nats": [0.1, 3, 5],
    "policy.clip_ratio": [0.1, 0.2, 0.3],
}
# A worker whose trainings take a moment, and which hangs in its third trial if it is told to.
WORKER = """
import sys, time
from pathlib import Path
from pipeline.tune.ledger import open_ledger
from pipeline.tune.plan import read_plan
from pipeline.tune.presence import present
ledger = open_ledger(read_plan(Path(sys.argv[1])))
with present(ledger.plan.folder, ledger.storage) as presence:
    count = 0
    while (trial := ledger.next_trial(presence)) is not None:
        count += 1
        if count == 3 and sys.argv[2] == "hangs":
            Path(sys.argv[3]).touch()
            time.sleep(600)
        time.sleep(0.05)
        ledger.study.tell(trial, -trial.params["world_model.kl_scale"])
"""


def parameters(**tune: Any) -> Raw:
    """The project's parameters with other settings of the section `tune`."""
    raw = load_raw(ROOT / "params.yaml")
    return override(raw, {f"tune.{key}": value for key, value in tune.items()})


def a_plan(folder: Path, *, storage: str = "", **tune: Any) -> Plan:
    """A study in `folder`, by default the grid of 27 points with one seed."""
    raw = parameters(**{"space": GRID, "seeds": [1], **tune})
    path = folder / "outputs" / "tune" / "s"
    return Plan(raw=raw, study="s", storage=storage or str(path / "journal.log"), folder=path)
