"""DreamerV3Trainer: owns world model, behaviour and optimiser, and makes one update out of a
batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.behavior.hierarchy import Lesson
from dreamer.intrinsic.rewards import IntrinsicConfig, make_behavior
from dreamer.meta_gradient import MetaConfig
from dreamer.modalities.presence import Present, drop_one
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.self_tuning import SelfTuning
from dreamer.types import (
    Batch,
    CheckpointError,
    DivergedError,
    EnvSpec,
    Imagined,
    Losses,
    Metrics,
    Policy,
    Rate,
)
from dreamer.world_model.imagination import ImaginationConfig, imagine
from dreamer.world_model.model import (
    MultimodalWorldModel,
    WorldModelConfig,
    WorldOutput,
    total_loss,
)

# Behaviour is judged on fewer starts than it learns from: a gradient's direction needs no more.
HELD_OUT_STARTS = 16


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
        world_model, imagination, policy, intrinsic, meta: What is tuned about each part. Without
            imagination and policy only the world model exists and can be pretrained.
        seed: Of weights and noise.
        device: Where everything lives.

    Attributes:
        model: The world model. behavior, intrinsic: Policies and what drives them beside the task;
            only there if `acts`.
        imagined_policy: Who acts in imagination; the policy, or a compiled form of it.
        tuning: Owns the learning rates that tune themselves, or None.

    Source: arXiv 2301.04104 v2, Algorithm and "World model learning" to "Actor learning".
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        world_model: WorldModelConfig,
        imagination: ImaginationConfig | None = None,
        policy: PolicyConfig | None = None,
        intrinsic: IntrinsicConfig | None = None,
        meta: MetaConfig | None = None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self.noise = Noise(seed, device)
        self.model = MultimodalWorldModel(spec, world_model, seed).to(device)
        # A pretrained encoder that stays as it is has nothing to ask of the optimiser.
        groups = {"world": [p for p in self.model.parameters() if p.requires_grad]}
        self.rates = {"world": world_model.world_lr}
        self.acts = policy is not None
        if policy is not None and imagination is not None:
            self.horizon, self.starts = imagination.horizon, imagination.starts
            self.reinforce = policy.actor == "reinforce"
            self.behavior, self.intrinsic = make_behavior(self.model, policy, intrinsic, seed)
            self.imagined_policy: Policy = self.behavior.imagined_policy()
            groups |= self.behavior.groups() | self.intrinsic.groups()
            self.rates |= self.behavior.rates() | self.intrinsic.rates()
        self.optimizer = LaProp(groups)
        self.tuning: SelfTuning | None = None
        if self.acts and meta is not None and meta.enabled:
            self.tuning = SelfTuning(self.behavior, self.optimizer, self.rates, meta, device)
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
        metrics = self._backward(loss, {"world": self.shared_rates(share)["world"]})
        return Result(out.metrics | metrics, self._latents(out))

    def update_step(self, batch: Batch, index: int, share: float) -> Result:
        """One update of everything, see `pretrain_step` for the arguments."""
        if self.tuning is not None:
            self.tuning.apply_weights()
        out = self._observe(batch, "observe", index)
        rollout = self._imagine(out, index)
        extra, lessons, metrics = self._behavior_losses(rollout, self._rewards(rollout))
        bootstrap = lessons[0].targets.ret[0, 0].unflatten(0, (-1, batch.reward.shape[0]))
        feat = out.feat[-len(bootstrap) :]
        discount = self.model.config.discount
        extra["replay_value"] = self.behavior.replay_value(feat, batch, bootstrap, discount)
        scales = self.model.loss_scales() | self.behavior.loss_scales()
        rates = self.shared_rates(share)
        joint = (
            ["world", "actor", "critic"]
            if self.reinforce
            else ["world", self.behavior.top.critic_group]
        )
        loss = total_loss(out.losses | extra, scales)
        metrics |= out.metrics | self._backward(loss, {name: rates[name] for name in joint})
        metrics |= self._learn_behavior(rollout, lessons, extra, rates, index)
        metrics |= self._learn_others(out, batch, rollout, rates, index)
        self.behavior.update_slow()
        if self.tuning is not None:
            metrics |= self.tuning.meta.metrics()
        return Result(metrics | lessons[0].metrics(), self._latents(out))

    def shared_rates(self, share: float) -> dict[str, Rate]:
        """Learning rate of every group, times the schedule's share."""
        own: dict[str, Tensor] = {} if self.tuning is None else self.tuning.rates()
        return {name: rate * share for name, rate in (self.rates | own).items()}

    def meta_step(self, fresh: Batch, index: int, share: float) -> Metrics:
        """Move what tunes itself along the gradient of losses on a batch that nobody learned from.

        The world model is judged by its losses there, behaviour by imagination that starts there.

        Args:
            fresh: Sequences drawn for this. index: Number of the update that has just been made.
            share: Multiplier that its learning rates had.
        """
        assert self.tuning is not None
        out = self._observe(fresh, "meta/observe", index)
        self.behavior.eval()
        rollout = self._imagine(out, index, "meta/", HELD_OUT_STARTS)
        lessons, _ = self.behavior.evaluate(rollout, self._rewards(rollout))
        self.behavior.train()
        self.optimizer.zero_grad()
        total_loss(out.losses, self.model.loss_scales()).backward()
        for lesson in lessons:
            lesson.level.held_out_loss(lesson.rollout, lesson.targets).backward()
        metrics = self.tuning.step(lessons, index, share)
        self._require_finite(metrics.values())
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Weights, normalisers and optimiser statistics as nested dicts of tensors and numbers."""
        state = {
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
        }
        if not self.acts:
            return state
        parts = {"behavior": self.behavior, "intrinsic": self.intrinsic}
        state |= {name: dict(part.state_dict()) for name, part in parts.items()}
        return state if self.tuning is None else state | {"meta": self.tuning.state_dict()}

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
                self.intrinsic.load_state_dict(state["intrinsic"])
                if self.tuning is not None:
                    self.tuning.load_state_dict(state["meta"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise CheckpointError(f"the checkpoint is of another configuration: {reason}") from None

    def _latents(self, out: WorldOutput) -> dict[str, Tensor]:
        """Packed posteriors, batch first."""
        rssm = self.model.rssm
        packed = rssm.pack(rssm.latent(out.observed.deter, out.observed.stoch))
        return {key: value.transpose(0, 1) for key, value in packed.items()}

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
        return self.model(batch, noise, self._allowed(stream, index, batch.reward.shape[0]))

    def _allowed(self, stream: str, index: int, rows: int) -> Present | None:
        """Modality dropout: modality -> (B,) bool; None without."""
        share = self.model.config.modality_dropout
        if share == 0.0:
            return None
        noise = self.noise.uniform(f"{stream}/dropout", index, (2, rows))
        return drop_one(list(self.model.encoders), share, noise)

    def _imagine(
        self, out: WorldOutput, index: int, prefix: str = "", most: int | None = None
    ) -> Imagined:
        """Roll out from the last `starts` posteriors of every sequence, `most` at most, rows in
        (K, B) order.
        """
        keep = min(out.feat.shape[0], most or out.feat.shape[0])
        if self.starts != "all":
            keep = min(keep, self.starts)
        deter = out.observed.deter[-keep:].detach().flatten(0, 1)
        stoch = out.observed.stoch[-keep:].detach().flatten(0, 1)
        lead = (self.horizon, len(deter))
        latent = self.noise.uniform(f"{prefix}imagine", index, (*lead, self.model.rssm.size.groups))
        action = self.imagined_policy.draw(self.noise, f"{prefix}act-imagined", index, lead)
        with torch.set_grad_enabled(self.reinforce and not prefix):
            carry = self.imagined_policy.initial(len(deter))
            return imagine(self.model, self.imagined_policy, carry, deter, stoch, latent, action)

    def _rewards(self, rollout: Imagined) -> dict[str, Tensor]:
        """Stream -> (H, N) on arriving at states 1 .. H."""
        return {"extrinsic": rollout.reward[1:]} | self.intrinsic.rewards(rollout)

    def _behavior_losses(
        self, rollout: Imagined, rewards: dict[str, Tensor]
    ) -> tuple[Losses, list[Lesson], Metrics]:
        if self.reinforce:
            return self.behavior.reinforce(rollout, rewards)
        return {}, *self.behavior.evaluate(rollout, rewards)

    def _learn_behavior(
        self,
        rollout: Imagined,
        lessons: list[Lesson],
        losses: Losses,
        rates: dict[str, Rate],
        index: int,
    ) -> Metrics:
        """PPO; of REINFORCE, which was part of the joint update, the figures only."""
        if self.reinforce:
            return {
                "policy/policy_loss": losses["actor"].detach().mean(),
                "policy/critic_loss": losses["critic"].detach().mean(),
                "policy/entropy": rollout.entropy.detach().mean(),
            }
        examine = () if self.tuning is None else self.tuning.examined(index)
        metrics = self.behavior.ppo_update(
            lessons, self.optimizer, rates, self.noise, index, examine
        )
        self._require_finite(value for name, value in metrics.items() if name.endswith("_loss"))
        return metrics

    def _learn_others(
        self,
        out: WorldOutput,
        batch: Batch,
        rollout: Imagined,
        rates: dict[str, Rate],
        index: int,
    ) -> Metrics:
        """Goal autoencoder, ICM and empowerment, each with parameters of its own; none reaches the
        world model.
        """
        losses, metrics = self.intrinsic.losses(
            self.model.rssm, out.replayed(batch), rollout, self.noise, index
        )
        if self.behavior.goals is not None:
            groups = self.behavior.goals.groups
            lead = out.feat.shape[:2]
            noise = self.noise.uniform("goals", index, (*lead, groups))
            losses["goals"], more = self.behavior.goals.loss(out.observed.deter, noise)
            metrics |= more
        if not losses:
            return metrics
        self.optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        self.optimizer.step({name: rates[name] for name in losses})
        self._require_finite([total.detach()])
        return metrics

    def _require_finite(self, values: Iterable[Tensor]) -> None:
        for value in values:
            self.finite = self.finite & torch.isfinite(value)

    def _backward(self, loss: Tensor, rates: Mapping[str, Rate]) -> Metrics:
        self.optimizer.zero_grad()
        loss.backward()
        norm = self.optimizer.step(rates)
        self._require_finite([loss.detach(), norm])
        return {"world/loss": loss.detach(), "world/grad_norm": norm}
