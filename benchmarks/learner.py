"""Measure one update against the arithmetic it needs: `python -m benchmarks.learner --workload W1`.

The floor is the time that the update's multiplications would take at the speed of a large float32
matrix product, measured between the updates on the same machine: the ratio of an update to it can
be compared across machines, milliseconds cannot. Data is random; making and moving the batch is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dreamer.behavior.actor_critic import PolicyConfig, WorkerWeights
from dreamer.compiling import compile_pieces
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import ActionSpec, Batch, EnvSpec, ObsSpec
from dreamer.world_model.imagination import ImaginationConfig
from dreamer.world_model.model import WorldModelConfig

WARM_UP = 3
GEMM = 1024
GEMMS_PER_UPDATE = 5
VECTOR = EnvSpec(
    {"state": ObsSpec(shape=(24,), dtype="float32", kind="vector")},
    ActionSpec(kind="continuous", sizes=(6,)),
)
IMAGE = EnvSpec(
    {"image": ObsSpec(shape=(64, 64, 3), dtype="uint8", kind="image")},
    ActionSpec(kind="discrete", sizes=(5,)),
)
CARTPOLE = EnvSpec(
    {"state": ObsSpec(shape=(4,), dtype="float32", kind="vector")},
    ActionSpec(kind="discrete", sizes=(2,)),
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is updated.

    Attributes:
        gflop: Floating-point operations of the published update (docs/performance.md), or None to
            count those of the update at hand.
    """

    spec: EnvSpec
    size: str
    seq_len: int
    actor: str
    gflop: float | None
    batch_size: int = 16
    horizon: int = 15


WORKLOADS = {
    "W1": Workload(spec=VECTOR, size="size1m", seq_len=64, actor="reinforce", gflop=32.0),
    "W2": Workload(spec=IMAGE, size="size12m", seq_len=64, actor="reinforce", gflop=1376.6),
    "tiny": Workload(spec=CARTPOLE, size="tiny", seq_len=16, actor="ppo", gflop=None),
}


class FlopCounter(TorchDispatchMode):
    """Floating-point operations of the matrix products and convolutions that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run the operation and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=out)
        return out


class Stopwatch:
    """Time spent in named parts, without that of the parts which they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def wrap(self, owner: Any, method: str, part: str) -> None:  # noqa: ANN401
        """Let calls of `owner.method` count for `part`."""
        call = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            begin = time.perf_counter()
            self._inner.append(0.0)
            result = call(*args, **kwargs)
            spent = time.perf_counter() - begin
            self.seconds[part] = self.seconds.get(part, 0.0) + spent - self._inner.pop()
            self._inner[-1] += spent
            return result

        # Straight into the instance, because a module would refuse a function among its children.
        owner.__dict__[method] = timed


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


def make_trainer(workload: Workload) -> DreamerV3Trainer:
    """Build the agent of a workload with fixed seeds."""
    world_model = WorldModelConfig(
        size=workload.size,
        kl_scale=1.0,
        free_nats=1.0,
        recon_scale=1.0,
        cont_scale=1.0,
        discount_horizon=333.0,
        world_lr=4e-5,
        embed_dim="auto",
    )
    policy = PolicyConfig(
        actor=workload.actor,  # type: ignore[arg-type]
        clip_ratio=0.2,
        epochs=2,
        minibatches=2,
        target_kl=0.05,
        entropy_scale=3e-4,
        slow_rate=0.02,
        actor_lr=4e-5,
        critic_lr=4e-5,
        hierarchy=False,
        goal_every=5,
        goal_groups=8,
        goal_classes=8,
        goal_lr=4e-5,
        manager_entropy_scale=3e-4,
        manager_target_kl=0.1,
        worker=WorkerWeights(goal=1.0, extrinsic=0.0, icm=0.0, empowerment=0.0),
    )
    return DreamerV3Trainer(
        workload.spec,
        world_model=world_model,
        imagination=ImaginationConfig(horizon=workload.horizon, starts="all"),
        policy=policy,
        seed=0,
        device=torch.device("cpu"),
    )


def make_batch(workload: Workload, trainer: DreamerV3Trainer) -> Batch:
    """Make one random batch, the same for every update."""
    generator = torch.Generator().manual_seed(1)
    lead = (workload.batch_size, workload.seq_len)
    obs = {}
    for key, spec in workload.spec.obs.items():
        value = torch.randn(*lead, *spec.shape, generator=generator)
        obs[key] = (value * 255).to(torch.uint8) if spec.kind == "image" else value
    actions = torch.randn(2, *lead, workload.spec.action.dim, generator=generator)
    if workload.spec.action.kind == "discrete":
        actions = (actions == actions.amax(-1, keepdim=True)).float()
    marks = torch.rand(*lead, generator=generator) < 1 / 200
    return Batch(
        obs=obs,
        action=actions[0],
        prev_action=actions[1],
        reward=torch.randn(*lead, generator=generator),
        is_first=marks,
        is_last=marks.roll(-1, 1),
        is_terminal=torch.zeros_like(marks),
        state=trainer.model.rssm.initial(workload.batch_size),
    )


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


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
    parser.add_argument("--workload", choices=list(WORKLOADS), default="W1")
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
