"""DreamerV3Trainer: owns world model, behaviour and optimiser, and makes one update out of a
batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.behavior.learner import ActorCritic
from dreamer.behavior.ppo import Targets
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.replay.buffer import SequenceReplayBuffer
from dreamer.replay.sampling import Sample
from dreamer.types import (
    Batch,
    CheckpointError,
    DivergedError,
    EnvSpec,
    Imagined,
    Losses,
    Metrics,
    Policy,
    check_range,
)
from dreamer.world_model.imagination import ImaginationConfig, imagine
from dreamer.world_model.model import (
    MultimodalWorldModel,
    WorldModelConfig,
    WorldOutput,
    total_loss,
)
from dreamer.world_model.rssm import SIZES


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The schedule that multiplies every learning rate.

    Attributes:
        warmup_updates: Updates of linear rise from 0.
        decay_from: Share of the run after which rates fall linearly.
        final_rate: Share of the rate that is left at the end of the run.
    """

    warmup_updates: int
    decay_from: float
    final_rate: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("warmup_updates", self.warmup_updates, 0, 10**9)
        check_range("decay_from", self.decay_from, 0.0, 1.0)
        check_range("final_rate", self.final_rate, 0.0, 1.0)

    def share(self, update: int, progress: float) -> float:
        """Multiplier in [0, 1] before update number `update` at `progress` in [0, 1] of the run."""
        rise = min(1.0, update / self.warmup_updates) if self.warmup_updates else 1.0
        past = max(0.0, progress - self.decay_from) / max(1e-9, 1.0 - self.decay_from)
        return rise * (1.0 - min(1.0, past) * (1.0 - self.final_rate))


class Result(NamedTuple):
    """Outcome of one update: metrics on the device and the fresh latents of the batch's rows,
    packed for the buffer, deter (B, T, D) float16 and stoch (B, T, S) uint8 class indices.
    """

    metrics: Metrics
    latents: dict[str, Tensor]


class DreamerV3Trainer:
    """World model, behaviour and optimiser of one agent.

    Args:
        spec: Observations and actions.
        world_model, imagination, policy: What is tuned about each part. Without the last two only
            the world model exists and can be pretrained.
        seed: Of weights and noise.
        device: Where everything lives.

    Attributes:
        model: The world model. behavior: Actor and critic; only there if `acts`.
        imagined_policy: Who acts in imagination; the actor, or a compiled form of it.

    Source: arXiv 2301.04104 v2, Algorithm and "World model learning" to "Actor learning".
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        world_model: WorldModelConfig,
        imagination: ImaginationConfig | None = None,
        policy: PolicyConfig | None = None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self.noise = Noise(seed, device)
        self.model = MultimodalWorldModel(spec, world_model, seed).to(device)
        groups = {"world": list(self.model.parameters())}
        self.rates = {"world": world_model.world_lr}
        self.acts = policy is not None
        if policy is not None and imagination is not None:
            self.horizon, self.starts = imagination.horizon, imagination.starts
            self.reinforce = policy.actor == "reinforce"
            units = SIZES[world_model.size].units
            self.behavior = ActorCritic(self.model.feat_dim, units, spec.action, policy, seed).to(
                device
            )
            self.imagined_policy: Policy = self.behavior.actor
            groups["actor"] = list(self.behavior.actor.parameters())
            groups["critic"] = list(self.behavior.critic.head.parameters())
            self.rates |= {"actor": policy.actor_lr, "critic": policy.critic_lr}
        self.optimizer = LaProp(groups)
        # One flag on the device collects finiteness; the host reads it when it logs.
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def pretrain_step(
        self, batch: Batch, index: int, share: float, stream: str = "pretrain"
    ) -> Result:
        """Update the world model alone.

        Args:
            batch: Replayed sequences. index: Update number, addresses the noise.
            share: Multiplier of the learning rates. stream: Name of the noise.
        """
        out = self._observe(batch, stream, index)
        loss = total_loss(out.losses, self.model.loss_scales())
        metrics = self._backward(loss, {"world": self.rates["world"] * share})
        return Result(out.metrics | metrics, self._latents(out))

    def update_step(self, batch: Batch, index: int, share: float) -> Result:
        """One update of everything, see `pretrain_step` for the arguments."""
        out = self._observe(batch, "observe", index)
        rollout = self._imagine(out, index)
        extra, targets = self._behavior_losses(rollout)
        bootstrap = targets.ret[0].unflatten(0, (-1, batch.reward.shape[0]))
        feat = out.feat[-len(bootstrap) :]
        discount = self.model.config.discount
        extra["replay_value"] = self.behavior.replay_value(feat, batch, bootstrap, discount)
        scales = self.model.loss_scales() | self.behavior.loss_scales()
        rates = {name: rate * share for name, rate in self.rates.items()}
        joint = rates if self.reinforce else _without(rates, "actor")
        metrics = out.metrics | self._backward(total_loss(out.losses | extra, scales), joint)
        if self.reinforce:
            metrics["policy/policy_loss"] = extra["actor"].detach().mean()
            metrics["policy/critic_loss"] = extra["critic"].detach().mean()
            metrics["policy/entropy"] = rollout.entropy.detach().mean()
        else:
            metrics |= self.behavior.ppo_update(
                rollout, targets, self.optimizer, rates, self.noise, index
            )
            for name in ("policy/policy_loss", "policy/critic_loss"):
                self.finite = self.finite & torch.isfinite(metrics[name])
        self.behavior.critic.update_slow(self.behavior.config.slow_rate)
        metrics |= self._rollout_metrics(rollout, targets)
        return Result(metrics, self._latents(out))

    def state_dict(self) -> dict[str, Any]:
        """Weights, normalisers and optimiser statistics as nested dicts of tensors and numbers."""
        state = {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
        }
        return state | {"behavior": dict(self.behavior.state_dict())} if self.acts else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; the state of a pretrained world model leaves behaviour as
        it is.

        Raises:
            CheckpointError: If names or shapes are of another configuration.
        """
        try:
            self.model.load_state_dict(state["model"])
            if "behavior" in state:
                self.behavior.load_state_dict(state["behavior"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise CheckpointError(f"the checkpoint is of another configuration: {reason}") from None

    def _latents(self, out: WorldOutput) -> dict[str, Tensor]:
        """Packed posteriors, batch first."""
        rssm = self.model.rssm
        packed = rssm.pack(rssm.latent(out.observed.deter, out.observed.stoch))
        return {key: value.transpose(0, 1) for key, value in packed.items()}

    def make_batch(self, sample: Sample) -> Batch:
        """Move a replay sample to the device; its packed latents become the initial state."""
        on_device = {
            name: torch.from_numpy(getattr(sample, name)).to(self.device)
            for name in ("action", "prev_action", "reward", "is_first", "is_last", "is_terminal")
        }
        latents = {k: torch.from_numpy(v).to(self.device) for k, v in sample.latents.items()}
        obs = {key: torch.from_numpy(value).to(self.device) for key, value in sample.obs.items()}
        return Batch(obs=obs, state=self.model.rssm.unpack(latents), **on_device)

    def write_back(self, buffer: SequenceReplayBuffer, sample: Sample, result: Result) -> None:
        """Refresh the stored latents of a sample's rows."""
        fresh = {key: value.cpu().numpy() for key, value in result.latents.items()}
        buffer.write_back(sample.rows, fresh)

    def read(self, metrics: Metrics) -> dict[str, float]:
        """Metrics as numbers; waits for the device.

        Raises:
            DivergedError: If any loss or gradient since the last call was not finite.
        """
        if not bool(self.finite):
            raise DivergedError(
                "training diverged: a loss or gradient is not finite; lower the learning rates "
                "(world_model.world_lr, policy.actor_lr, policy.critic_lr)"
            )
        return {name: float(value) for name, value in metrics.items()}

    def _observe(self, batch: Batch, stream: str, index: int) -> WorldOutput:
        steps = batch.reward.shape[1]
        groups = self.model.rssm.size.groups
        noise = self.noise.uniform(stream, index, (steps, batch.reward.shape[0], groups))
        return self.model(batch, noise)

    def _imagine(self, out: WorldOutput, index: int) -> Imagined:
        """Roll out from the last `starts` posteriors of every sequence, rows in (K, B) order."""
        keep = out.feat.shape[0]
        if self.starts != "all":
            keep = min(keep, self.starts)
        deter = out.observed.deter[-keep:].detach().flatten(0, 1)
        stoch = out.observed.stoch[-keep:].detach().flatten(0, 1)
        lead = (self.horizon, len(deter))
        latent = self.noise.uniform("imagine", index, (*lead, self.model.rssm.size.groups))
        action = self.noise.action(self.model.spec.action, "act-imagined", index, lead)
        with torch.set_grad_enabled(self.reinforce):
            return imagine(self.model, self.imagined_policy, (), deter, stoch, latent, action)

    def _behavior_losses(self, rollout: Imagined) -> tuple[Losses, Targets]:
        if self.reinforce:
            return self.behavior.reinforce(rollout)
        return {}, self.behavior.evaluate(rollout)

    def _backward(self, loss: Tensor, rates: dict[str, float]) -> Metrics:
        self.optimizer.zero_grad()
        loss.backward()
        norm = self.optimizer.step(rates)
        self.finite = self.finite & torch.isfinite(loss.detach()) & torch.isfinite(norm)
        return {"world/loss": loss.detach(), "world/grad_norm": norm}

    def _rollout_metrics(self, rollout: Imagined, targets: Targets) -> Metrics:
        return {
            "reward/extrinsic/raw": rollout.reward[1:].mean(),
            "policy/return": targets.ret.mean(),
            "policy/value": targets.value.mean(),
            "policy/advantage_std": targets.adv.std(),
            "policy/return_scale": self.behavior.scale.scale(),
        }


def _without(rates: dict[str, float], name: str) -> dict[str, float]:
    return {key: rate for key, rate in rates.items() if key != name}
