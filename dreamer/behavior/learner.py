"""ActorCritic: learns a flat policy and its critic from imagined rollouts, by PPO or REINFORCE."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer.behavior.actor_critic import Actor, Critic, PolicyConfig
from dreamer.behavior.ppo import (
    Targets,
    clipped_surrogate,
    critic_loss,
    ppo_metrics,
    trajectory_weight,
    weighted_mean,
)
from dreamer.nn.distributions import TwoHotCode
from dreamer.nn.math import lambda_return, replay_return
from dreamer.nn.noise import Noise
from dreamer.nn.normalize import PercentileScale
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec, Batch, Imagined, Losses, Metrics
from dreamer.world_model.imagination import CHUNK, in_chunks
from dreamer.world_model.model import init

LAMBDA = 0.95
REPLAY_VALUE_SCALE = 0.3


class PPOStep(NamedTuple):
    """What one minibatch reads of the rollout, row by row.

    The critic's targets are encoded once per update: `value_bins` and `value_weight` are the fields
    of a `TwoHotCode`.
    """

    feat: Tensor
    action: Tensor
    log_prob_old: Tensor
    adv: Tensor
    weight: Tensor
    value_bins: Tensor
    value_weight: Tensor

    def rows(self, index: Tensor) -> PPOStep:
        """The rows of one minibatch."""
        return PPOStep(*(each.index_select(0, index) for each in self))


class ActorCritic(nn.Module):
    """Flat actor, critic and return scale.

    Args:
        feat_dim: F. units: Width of the MLPs. spec: Actions. config: What is tuned.
        seed: Of the initial weights.
    """

    def __init__(
        self, feat_dim: int, units: int, spec: ActionSpec, config: PolicyConfig, seed: int
    ) -> None:
        super().__init__()
        self.config = config
        self.actor = Actor(feat_dim, units, spec, init(seed, "actor"))
        self.critic = Critic(feat_dim, units, init(seed, "critic"))
        self.scale = PercentileScale()

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss of the joint backward."""
        scales = {"replay_value": REPLAY_VALUE_SCALE}
        if self.config.actor == "reinforce":
            scales |= {"actor": 1.0, "critic": 1.0}
        return scales

    @torch.no_grad()
    def targets(self, rollout: Imagined, value: Tensor) -> Targets:
        """Returns and advantages; takes the returns into the scale before using it.

        Args:
            rollout: H imagined steps. value: (H + 1, N) critic means.
        """
        ret = lambda_return(rollout.reward, value, rollout.cont, LAMBDA)
        self.scale.update(ret)
        adv = (ret - value[:-1]) / self.scale.scale()
        slow = in_chunks(lambda rows: self.critic.slow(rows).mean(), rollout.feat[:-1])
        return Targets(ret, adv, trajectory_weight(rollout.cont), slow, value[:-1])

    def reinforce(self, rollout: Imagined) -> tuple[Losses, Targets]:
        """Losses (H, N) of actor and critic; the log-probabilities must carry gradients."""
        parts = rollout.feat[:-1].flatten(0, 1).split(CHUNK)
        values = [self.critic(rows) for rows in parts]
        with torch.no_grad():
            means = torch.cat([value.mean() for value in values]).view(rollout.action.shape[:2])
            value = torch.cat([means, self.critic(rollout.feat[-1]).mean()[None]])
        targets = self.targets(rollout, value)
        code = TwoHotCode.of(targets.ret.flatten(), targets.slow.flatten())
        codes = map(TwoHotCode, code.bins.split(CHUNK), code.weight.split(CHUNK))
        fit = [value.code_loss(each) for value, each in zip(values, codes, strict=True)]
        gain = rollout.log_prob * targets.adv + self.config.entropy_scale * rollout.entropy
        value_loss = torch.cat(fit).view_as(targets.weight)
        return {"actor": -targets.weight * gain, "critic": targets.weight * value_loss}, targets

    def evaluate(self, rollout: Imagined) -> Targets:
        """Targets for PPO, with critic means of every imagined state."""
        with torch.no_grad():
            value = in_chunks(lambda rows: self.critic(rows).mean(), rollout.feat)
        return self.targets(rollout, value)

    def replay_value(
        self, feat: Tensor, batch: Batch, bootstrap: Tensor, discount: float
    ) -> Tensor:
        """Critic loss on replayed steps; its gradient reaches the world model.

        Args:
            feat: (K, B, F) last K posterior features with gradient.
            batch: (B, T) sequences, T >= K. bootstrap: (K, B) first imagined return of each step.

        Returns:
            (K - 1, B), zero where an episode ended at the step.
        """
        steps = len(feat)
        reward, is_last, is_terminal = (
            x[:, -steps:].transpose(0, 1) for x in (batch.reward, batch.is_last, batch.is_terminal)
        )
        ret = replay_return(reward, bootstrap, is_last, is_terminal, discount, LAMBDA)
        with torch.no_grad():
            slow = self.critic.slow(feat[:-1]).mean()
        return (~is_last[:-1]).float() * critic_loss(self.critic(feat[:-1]), ret, slow)

    def ppo_update(
        self,
        rollout: Imagined,
        targets: Targets,
        optimizer: LaProp,
        rates: dict[str, float],
        noise: Noise,
        index: int,
    ) -> Metrics:
        """Epochs times minibatches; beyond the divergence limit only the critic goes on.

        Args:
            rollout: Imagined by the policy as it is now. targets: Of the same rollout.
            rates: Learning rates of groups `actor` and `critic`.
            index: Update number, for the noise.
        """
        whole = PPOStep(
            rollout.feat[:-1].flatten(0, 1),
            rollout.action.flatten(0, 1),
            rollout.log_prob.flatten(),
            targets.adv.flatten(),
            targets.weight.flatten(),
            *TwoHotCode.of(targets.ret.flatten(), targets.slow.flatten()),
        )
        gate = torch.ones((), device=whole.feat.device)
        metrics: list[Metrics] = []
        config = self.config
        for epoch in range(config.epochs):
            stream = f"ppo/{epoch}"
            order = noise.permutation(stream, index, len(whole.feat))
            for rows in order.chunk(config.minibatches):
                metrics.append(self._ppo_step(whole.rows(rows), optimizer, rates, gate))
                gate = metrics[-1]["policy/active"]
        mean = {name: torch.stack([m[name] for m in metrics]).mean() for name in metrics[0]}
        return mean | {"policy/active": gate}

    def ppo_losses(self, step: PPOStep) -> tuple[Tensor, Tensor, Metrics]:
        """Scalar losses of policy and critic on one minibatch, and its diagnostics."""
        dist = self.actor(step.feat)
        entropy = dist.entropy()
        config = self.config
        surrogate, ratio = clipped_surrogate(
            dist.log_prob(step.action), step.log_prob_old, step.adv, config.clip_ratio
        )
        gain = surrogate + config.entropy_scale * entropy
        policy_loss = -weighted_mean(gain, step.weight)
        code = TwoHotCode(step.value_bins, step.value_weight)
        value_loss = weighted_mean(self.critic(step.feat).code_loss(code), step.weight)
        return policy_loss, value_loss, ppo_metrics(ratio, config.clip_ratio, entropy)

    def _ppo_step(
        self, step: PPOStep, optimizer: LaProp, rates: dict[str, float], gate: Tensor
    ) -> Metrics:
        policy_loss, value_loss, metrics = self.ppo_losses(step)
        # Shut before the step, and for all that follow: this is where the limit was found passed.
        gate = gate * (metrics["policy/approx_kl"] < 1.5 * self.config.target_kl).float()
        optimizer.zero_grad()
        (policy_loss + value_loss).backward()
        optimizer.step({"actor": rates["actor"]}, gate)
        optimizer.step({"critic": rates["critic"]})
        return metrics | {
            "policy/active": gate,
            "policy/policy_loss": policy_loss.detach(),
            "policy/critic_loss": value_loss.detach(),
        }
