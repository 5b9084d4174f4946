"""IntrinsicRewards: the enabled modules that reward an agent beside its task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.behavior.hierarchy import HierarchicalPPO
from dreamer.behavior.segments import split_states, split_steps
from dreamer.intrinsic.empowerment import Empowerment, EmpowermentConfig
from dreamer.intrinsic.icm import ICM, ICMConfig
from dreamer.intrinsic.option import OptionEmpowerment
from dreamer.nn.noise import Noise
from dreamer.types import ConfigError, Imagined, Losses, Metrics, Replayed
from dreamer.world_model.model import MultimodalWorldModel
from dreamer.world_model.rssm import RSSM


@dataclass(frozen=True, kw_only=True)
class IntrinsicConfig:
    """Section `intrinsic`: one part per module."""

    icm: ICMConfig
    empowerment: EmpowermentConfig


class IntrinsicRewards(nn.Module):
    """The enabled modules; each learns in optimiser groups of its own.

    Args:
        model: The world model that imagines. config: What is enabled; None is nothing.
        policy: Says which levels want which stream. seed: Of the initial weights.

    Raises:
        ConfigError: If options are to be rewarded where there are none.
    """

    def __init__(
        self,
        model: MultimodalWorldModel,
        config: IntrinsicConfig | None,
        policy: PolicyConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.policy = config, policy
        self.icm: ICM | None = None
        self.empowerment: Empowerment | None = None
        self.option: OptionEmpowerment | None = None
        size, spec, units = model.rssm.size, model.spec.action, model.rssm.size.units
        self._stoch_width = size.groups * size.classes
        if config is None:
            return
        if config.icm.enabled:
            self.icm = ICM(model.embed_dim, model.feat_dim, units, spec, config.icm, seed)
        if config.empowerment.enabled and config.empowerment.kind == "action":
            self.empowerment = Empowerment(size, spec, units, config.empowerment, seed)
        elif config.empowerment.enabled:
            if not policy.hierarchy:
                allowed = "action, or policy.hierarchy: true (options are the manager's goal codes)"
                raise ConfigError("intrinsic.empowerment.kind", "option", allowed)
            code = (policy.goal_groups, policy.goal_classes)
            self.option = OptionEmpowerment(size, *code, units, config.empowerment, seed)

    def weights(self) -> dict[str, float]:
        """Weight of every enabled stream in the mix of the top level."""
        weights: dict[str, float] = {}
        if self.config is not None and self.icm is not None:
            weights["icm"] = self.config.icm.weight
        if self.config is not None and self.empowerment is not None:
            weights["empowerment"] = self.config.empowerment.weight
        return weights

    def worker_weights(self) -> dict[str, float]:
        """Weight of every stream that only the worker can earn."""
        if self.config is None or self.option is None:
            return {}
        return {"empowerment": self.config.empowerment.weight}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters of each optimiser group."""
        groups = {} if self.icm is None else self.icm.groups()
        empowerment = self.empowerment or self.option
        if empowerment is not None:
            groups["empowerment"] = list(empowerment.parameters())
        return groups

    def rates(self) -> dict[str, float]:
        """Learning rate of each group."""
        rates = {} if self.icm is None else self.icm.rates()
        empowerment = self.empowerment or self.option
        if empowerment is not None:
            rates["empowerment"] = empowerment.config.lr
        return rates

    def losses(
        self, rssm: RSSM, replayed: Replayed, imagined: Imagined, noise: Noise, index: int
    ) -> tuple[Losses, Metrics]:
        """Scalar loss of every group that learns at this update, and metrics."""
        losses: Losses = {}
        metrics: Metrics = {}
        if self.icm is not None:
            parts, more = self.icm.losses(replayed)
            losses, metrics = losses | parts, metrics | more
        if self.config is None or index % self.config.empowerment.every:
            return losses, metrics
        if self.empowerment is not None:
            parts, more = self.empowerment.losses(rssm, replayed, noise, index)
            losses["empowerment"], metrics = _sum(parts), metrics | more
        if self.option is not None:
            start, end, code, _, weight = self._options(imagined)
            parts, more = self.option.losses(start, end, code, weight)
            losses["empowerment"], metrics = _sum(parts), metrics | more
        return losses, metrics

    @torch.no_grad()
    def rewards(self, imagined: Imagined) -> dict[str, Tensor]:
        """Stream -> (H, N) on arriving at states 1 .. H, of those that some level wants."""
        rewards: dict[str, Tensor] = {}
        worker = self.policy.worker if self.policy.hierarchy else None
        weights = self.weights()
        if self.icm is not None and (weights["icm"] or (worker and worker.icm)):
            rewards["icm"] = self.icm.reward(imagined)
        if self.empowerment is not None and (
            weights["empowerment"] or (worker and worker.empowerment)
        ):
            rewards["empowerment"] = self.empowerment.reward(imagined)
        if self.option is not None:
            rewards["empowerment"] = self._option_reward(imagined, self.option)
        return rewards

    def _option_reward(self, imagined: Imagined, option: OptionEmpowerment) -> Tensor:
        """(H, N), paid where a segment ends."""
        start, end, code, log_prob, _ = self._options(imagined)
        paid = option.reward(start, end, code, log_prob)
        reward = torch.zeros_like(imagined.log_prob)
        every = self.policy.goal_every
        reward[every - 1 :: every] = paid.view(-1, reward.shape[1])
        return reward

    def _options(self, imagined: Imagined) -> tuple[Tensor, ...]:
        """Of every segment, M * N rows: first and last stoch, code, its log-probability, weight."""
        every = self.policy.goal_every
        choices = imagined.carries[::every]
        deter = imagined.feat.shape[-1] - self._stoch_width
        state = split_states(imagined.feat[..., deter:], every)
        code = torch.cat([each.code for each in choices])
        log_prob = torch.cat([each.log_prob for each in choices])
        weight = split_steps(imagined.cont[:-1].cumprod(0), every)[0]
        return state[0], state[-1], code, log_prob, weight


def _sum(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def make_behavior(
    model: MultimodalWorldModel,
    policy: PolicyConfig,
    intrinsic: IntrinsicConfig | None,
    seed: int,
) -> tuple[HierarchicalPPO, IntrinsicRewards]:
    """Policies and intrinsic rewards that fit a world model, on its device."""
    device, size = model.rssm.core.bias.device, model.rssm.size
    rewards = IntrinsicRewards(model, intrinsic, policy, seed)
    behavior = HierarchicalPPO(
        model.feat_dim,
        size.deter,
        size.units,
        model.spec.action,
        policy,
        rewards.weights(),
        rewards.worker_weights(),
        seed,
    )
    return behavior.to(device), rewards.to(device)
