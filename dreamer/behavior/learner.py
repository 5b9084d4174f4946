"""ActorCritic: one level of behaviour, an actor and its critics, learning by PPO or REINFORCE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer.behavior.actor_critic import Actor, Critic, PolicyConfig
from dreamer.behavior.level import Level, Rollout
from dreamer.behavior.ppo import (
    Targets,
    clipped_surrogate,
    ppo_metrics,
    weighted_mean,
)
from dreamer.behavior.segments import cut_steps, join_arrivals, join_states
from dreamer.behavior.streams import RewardStreams
from dreamer.nn.distributions import ReturnsCode
from dreamer.nn.math import lambda_return, replay_return
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp, flat_gradient
from dreamer.types import ActionSpec, Batch, Losses, Metrics, Rate
from dreamer.world_model.imagination import CHUNK, in_chunks
from dreamer.world_model.model import init

LAMBDA = 0.95
REPLAY_VALUE_SCALE = 0.3


class PPOStep(NamedTuple):
    """What one minibatch reads of the rollout, row by row.

    The critic's targets are encoded once per update: the last three are a `ReturnsCode`.
    """

    feat: Tensor
    action: Tensor
    log_prob_old: Tensor
    adv: Tensor
    weight: Tensor
    value_bins: Tensor
    value_weight: Tensor
    value_others: Tensor

    @classmethod
    def of(cls, rollout: Rollout, targets: Targets, task: int) -> PPOStep:
        """All rows, (H * N, *); `task` as in `StreamReturns`."""
        return cls(
            rollout.feat[:-1].flatten(0, 1),
            rollout.action.flatten(0, 1),
            rollout.log_prob.flatten(),
            targets.adv.flatten(),
            targets.weight.flatten(),
            *ReturnsCode.of(task, _by_row(targets.ret), _by_row(targets.slow)),
        )

    def rows(self, index: Tensor) -> PPOStep:
        """The rows of one minibatch."""
        return PPOStep(*(each.index_select(0, index) for each in self))


class ActorCritic(nn.Module):
    """Actor, critics and reward streams of one level.

    Args:
        feat_dim: F. units: Width of the MLPs. spec: Actions. config: What is tuned.
        level: Which one. seed: Of the initial weights.
    """

    def __init__(
        self,
        feat_dim: int,
        units: int,
        spec: ActionSpec,
        config: PolicyConfig,
        level: Level,
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.level = config, level
        self.entropy_scale: Rate = level.entropy_scale
        self.parts: dict[str, Tensor] = {}
        self.streams = RewardStreams(level.weights)
        prefix, self.task = level.prefix, int("extrinsic" in level.weights)
        heads = self.task, len(level.weights) - self.task
        self.actor = Actor(feat_dim, units, spec, init(seed, f"{prefix}actor"))
        self.critic = Critic(feat_dim, units, *heads, init(seed, f"{prefix}critic"))

    @property
    def actor_group(self) -> str:
        """Name of the actor's optimiser group."""
        return f"{self.level.prefix}actor"

    @property
    def critic_group(self) -> str:
        """Name of the critics' optimiser group."""
        return f"{self.level.prefix}critic"

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Optimiser groups of this level."""
        return {
            self.actor_group: list(self.actor.parameters()),
            self.critic_group: list(self.critic.head.parameters()),
        }

    def rates(self) -> dict[str, float]:
        """Learning rates of the groups."""
        config = self.config
        return {self.actor_group: config.actor_lr, self.critic_group: config.critic_lr}

    def rate_names(self) -> dict[str, str]:
        """Name of the self-tuned rate of each group: all critics share one."""
        actor = "manager" if self.level.name == "manager" else "actor"
        return {self.actor_group: actor, self.critic_group: "critic"}

    @torch.no_grad()
    def targets(self, rollout: Rollout, value: Tensor) -> Targets:
        """Returns and advantages; takes the returns into the scales before using them.

        Args:
            value: (H + 1, S, N) critic means.
        """
        ret = self._returns(rollout, value)
        advs = self.streams.advantages(ret, value[:-1])
        slow = self._means(self.critic.slow, rollout.feat[:-1])
        return Targets(ret, self.streams.mix(advs), rollout.weight, slow, value[:-1], advs)

    def _returns(self, rollout: Rollout, value: Tensor) -> Tensor:
        """(H, S, N). What a goal pays ends with its segment, and is bootstrapped there under the
        same goal; all else goes on through the segments that follow.
        """
        cont, parts = rollout.cont.unsqueeze(1), rollout.segments
        ret = lambda_return(rollout.reward, value, cont, LAMBDA)
        if parts == 1:
            return ret
        reward = join_arrivals(rollout.reward, parts)
        value, cont = (join_states(x, parts) for x in (value, cont))
        whole = cut_steps(lambda_return(reward, value, cont, LAMBDA), parts)
        names = self.streams.weights
        each = [(ret if name == "goal" else whole)[:, i] for i, name in enumerate(names)]
        return torch.stack(each, 1)

    def evaluate(self, rollout: Rollout) -> Targets:
        """Targets for PPO, with critic means of every imagined state."""
        return self.targets(rollout, self._means(self.critic, rollout.feat))

    def reinforce(self, rollout: Rollout) -> tuple[Losses, Targets]:
        """Losses (H, N) of actor and critic; the log-probabilities must carry gradients."""
        parts = rollout.feat[:-1].flatten(0, 1).split(CHUNK)
        values = [self.critic(rows) for rows in parts]
        with torch.no_grad():
            means = torch.cat([value.mean() for value in values])
            means = means.unflatten(0, rollout.weight.shape).movedim(-1, 1)
            value = torch.cat([means, self.critic(rollout.feat[-1]).mean().t()[None]])
        targets = self.targets(rollout, value)
        code = ReturnsCode.of(self.task, _by_row(targets.ret), _by_row(targets.slow))
        codes = map(ReturnsCode, *(each.split(CHUNK) for each in code))
        fit = [value.loss(each) for value, each in zip(values, codes, strict=True)]
        gain = rollout.log_prob * targets.adv + self.entropy_scale * rollout.entropy
        value_loss = torch.cat(fit).view_as(targets.weight)
        return {"actor": -targets.weight * gain, "critic": targets.weight * value_loss}, targets

    def replay_value(
        self, feat: Tensor, batch: Batch, bootstrap: Tensor, discount: float
    ) -> Tensor:
        """Loss of the first critic, the extrinsic one, on replayed steps; its gradient reaches the
        world model.

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
            slow = self.critic.slow(feat[:-1]).mean()[..., 0]
        value = self.critic(feat[:-1]).task
        assert value is not None, "the top level always learns of the task"
        return (~is_last[:-1]).float() * value.loss(ret, slow)

    def ppo_update(
        self,
        rollout: Rollout,
        targets: Targets,
        optimizer: LaProp,
        rates: Mapping[str, Rate],
        noise: Noise,
        index: int,
        examine: tuple[str, ...] = (),
    ) -> Metrics:
        """Epochs times minibatches; beyond the divergence limit only the critic goes on.

        Args:
            rollout: Imagined by the policy as it is now. targets: Of the same rollout.
            rates: Learning rate of every optimiser group.
            index: Update number, for the noise.
            examine: Parts of the actor's loss, `entropy` and streams, whose gradient before the
                last step `parts` will hold.
        """
        whole = PPOStep.of(rollout, targets, self.task)
        advs = _by_row(targets.advs)
        gate = torch.ones((), device=whole.feat.device)
        metrics: list[Metrics] = []
        config = self.config
        for epoch in range(config.epochs):
            stream = f"{self.level.prefix}ppo/{epoch}"
            order = noise.permutation(stream, index, len(whole.feat))
            parts = order.chunk(config.minibatches)  # sometimes fewer, of few rows
            for number, rows in enumerate(parts, 1):
                if examine and (epoch + 1, number) == (config.epochs, len(parts)):
                    self._examine(whole.rows(rows), advs.index_select(0, rows), examine)
                metrics.append(self._ppo_step(whole.rows(rows), optimizer, rates, gate))
                gate = metrics[-1]["active"]
        mean = {name: torch.stack([m[name] for m in metrics]).mean() for name in metrics[0]}
        mean["active"] = gate
        return {f"{self.level.metrics}/{name}": value for name, value in mean.items()}

    def ppo_losses(self, step: PPOStep) -> tuple[Tensor, Tensor, Metrics]:
        """Scalar losses of policy and critic on one minibatch, and its diagnostics."""
        dist = self.actor(step.feat)
        entropy = dist.entropy()
        config = self.config
        surrogate, ratio = clipped_surrogate(
            dist.log_prob(step.action), step.log_prob_old, step.adv, config.clip_ratio
        )
        gain = surrogate + self.entropy_scale * entropy
        policy_loss = -weighted_mean(gain, step.weight)
        code = ReturnsCode(step.value_bins, step.value_weight, step.value_others)
        value_loss = weighted_mean(self.critic(step.feat).loss(code), step.weight)
        return policy_loss, value_loss, ppo_metrics(ratio, config.clip_ratio, entropy)

    def held_out_loss(self, rollout: Rollout, targets: Targets) -> Tensor:
        """() loss of actor and critic on a rollout of the policy as it is, which learned nothing
        from it.

        The actor's part is the policy gradient's, whose gradient is that of the expected advantage.
        """
        step = PPOStep.of(rollout, targets, self.task)
        log_prob = self.actor(step.feat).log_prob(step.action)
        surrogate, _ = clipped_surrogate(log_prob, step.log_prob_old, step.adv, 1.0)
        code = ReturnsCode(step.value_bins, step.value_weight, step.value_others)
        fit = self.critic(step.feat).loss(code)
        return weighted_mean(fit - surrogate, step.weight)

    def _examine(self, step: PPOStep, advs: Tensor, names: tuple[str, ...]) -> None:
        """Gradients of the parts that the actor's loss is a weighted sum of.

        The surrogate is the lesser of two products with the mixed advantage; where the mix chose
        one, every stream has it.
        """
        dist = self.actor(step.feat)
        ratio = (dist.log_prob(step.action) - step.log_prob_old).exp()
        clip = self.config.clip_ratio
        clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
        chosen = torch.where(ratio * step.adv <= clipped * step.adv, ratio, clipped)
        gains = {name: chosen * advs[:, i] for i, name in enumerate(self.streams.weights)}
        gains["entropy"] = dist.entropy()
        params = list(self.actor.parameters())
        for name in names:
            loss = -weighted_mean(gains[name], step.weight)
            grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
            self.parts[name] = flat_gradient(params, grads)

    def _ppo_step(
        self, step: PPOStep, optimizer: LaProp, rates: Mapping[str, Rate], gate: Tensor
    ) -> Metrics:
        policy_loss, value_loss, metrics = self.ppo_losses(step)
        # Shut before the step, and for all that follow: this is where the limit was found passed.
        gate = gate * (metrics["approx_kl"] < 1.5 * self.level.target_kl).float()
        actor, critic = self.actor_group, self.critic_group
        optimizer.zero_grad()
        (policy_loss + value_loss).backward()
        optimizer.step({actor: rates[actor]}, gate)
        optimizer.step({critic: rates[critic]})
        return metrics | {
            "active": gate,
            "policy_loss": policy_loss.detach(),
            "critic_loss": value_loss.detach(),
        }

    @torch.no_grad()
    def _means(self, critic: nn.Module, feat: Tensor) -> Tensor:
        """(H, N, F) -> (H, S, N) critic means."""
        return in_chunks(lambda rows: critic(rows).mean().t(), feat).movedim(0, 1)


def _by_row(x: Tensor) -> Tensor:
    """(H, S, N) -> (H * N, S)."""
    return x.movedim(1, -1).flatten(0, 1)
