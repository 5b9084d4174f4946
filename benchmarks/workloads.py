"""What is measured: the observations, batches and agents of the benchmarks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch

from dreamer.behavior.actor_critic import PolicyConfig, WorkerWeights
from dreamer.intrinsic.empowerment import EmpowermentConfig
from dreamer.intrinsic.icm import ICMConfig
from dreamer.intrinsic.rewards import IntrinsicConfig
from dreamer.meta_gradient import MetaConfig
from dreamer.modalities.audio import AudioConfig
from dreamer.modalities.text import TextConfig
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import ActionSpec, Batch, EnvSpec, ObsSpec
from dreamer.world_model.imagination import ImaginationConfig
from dreamer.world_model.model import WorldModelConfig

GOAL_EVERY, EMPOWERMENT_EVERY, META_EVERY = 5, 2, 10
MODULES = ("hierarchy", "icm", "empowerment", "meta")
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
SENSES = EnvSpec(  # of CueBits
    {
        "audio": ObsSpec(shape=(256,), dtype="float32", kind="audio", rate=8000),
        "image": ObsSpec(shape=(32, 32, 3), dtype="uint8", kind="image"),
        "text": ObsSpec(shape=(32,), dtype="uint8", kind="text"),
        "vector": ObsSpec(shape=(8,), dtype="float32", kind="vector"),
    },
    ActionSpec(kind="discrete", sizes=(8,)),
)
INSTRUCTIONS = 12  # different texts in a batch


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
    fusion: Literal["attention", "concat"] = "attention"


WORKLOADS = {
    "W1": Workload(spec=VECTOR, size="size1m", seq_len=64, actor="reinforce", gflop=32.0),
    "W2": Workload(spec=IMAGE, size="size12m", seq_len=64, actor="reinforce", gflop=1376.6),
    "tiny": Workload(spec=CARTPOLE, size="tiny", seq_len=16, actor="ppo", gflop=None),
}


def policy_of(workload: Workload, modules: Collection[str]) -> PolicyConfig:
    """Behaviour learning of a workload, flat unless `hierarchy` is among the modules."""
    return PolicyConfig(
        actor=workload.actor,  # type: ignore[arg-type]
        clip_ratio=0.2,
        epochs=2,
        minibatches=2,
        target_kl=0.05,
        entropy_scale=3e-4,
        slow_rate=0.02,
        actor_lr=4e-5,
        critic_lr=4e-5,
        hierarchy="hierarchy" in modules,
        goal_every=GOAL_EVERY,
        goal_groups=8,
        goal_classes=8,
        goal_lr=4e-5,
        manager_entropy_scale=3e-4,
        manager_target_kl=0.1,
        worker=WorkerWeights(goal=0.3, extrinsic=1.0, icm=0.0, empowerment=0.0),
    )


def make_trainer(workload: Workload, modules: Collection[str] = ()) -> DreamerV3Trainer:
    """Build the agent of a workload with fixed seeds.

    Args:
        workload: What is updated. modules: Names out of MODULES, of what is switched on.
    """
    world_model = WorldModelConfig(
        size=workload.size,
        kl_scale=1.0,
        free_nats=1.0,
        recon_scale=1.0,
        modality_scales={},
        reward_scale=1.0,
        reward_outscale=0.0,
        cont_scale=1.0,
        discount_horizon=333.0,
        world_lr=4e-5,
        fusion=workload.fusion,
        modality_dropout=0.0,
        embed_dim="auto",
        text=TextConfig(model="own", finetune=False, tokenizer="own"),
        audio=AudioConfig(features="waveform", rate="auto", bins=32),
    )
    return DreamerV3Trainer(
        workload.spec,
        world_model=world_model,
        imagination=ImaginationConfig(horizon=workload.horizon, starts="all"),
        policy=policy_of(workload, modules),
        intrinsic=IntrinsicConfig(
            icm=ICMConfig(enabled="icm" in modules, weight=0.01, lr=3e-4, head_lr=3e-3),
            empowerment=EmpowermentConfig(
                enabled="empowerment" in modules,
                weight=0.01,
                kind="action",
                steps=2,
                every=EMPOWERMENT_EVERY,
                lr=3e-4,
            ),
        ),
        meta=MetaConfig(
            enabled="meta" in modules,
            every=META_EVERY,
            warmup=0,
            step=0.02,
            trace=0.9,
            check=0,
            weights=False,
        ),
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
        if spec.kind == "text":
            letters = torch.randint(97, 123, (INSTRUCTIONS, *spec.shape), generator=generator)
            which = torch.randint(INSTRUCTIONS, lead, generator=generator)
            value = letters[which].to(torch.uint8)
        elif spec.kind == "image":
            value = (value * 255).to(torch.uint8)
        obs[key] = value.clamp(-1.0, 1.0) if spec.kind == "audio" else value
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
