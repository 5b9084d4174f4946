"""ICM: curiosity as the error of predicting what the agent's own actions do.

Features of observations are learned by telling from two successive ones which action lay between
(inverse model), so that they hold what actions influence and little else. The error of predicting
the next features from the present ones and the action (forward model) is the surprise that is paid.

Source: Pathak et al. 2017 (arXiv 1705.05363) for both models, their losses and beta; Burda et al.
2018 (arXiv 1808.04355) for keeping the forward loss away from the features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.behavior.ppo import weighted_mean
from dreamer.nn.distributions import full_precision
from dreamer.nn.layers import MLP, Linear
from dreamer.types import ActionSpec, Imagined, Losses, Metrics, Replayed, check_range
from dreamer.world_model.heads import ScalarHead
from dreamer.world_model.imagination import in_chunks
from dreamer.world_model.model import init

BETA = 0.2
FEATURES = 64
ENCODER_LAYERS = 2
INVERSE_LAYERS = 1
FORWARD_LAYERS = 2
HEAD_LAYERS = 1
# The inverse loss saturates long before it would have unlearned the noise that full-sized random
# weights let into the features, and surprise would never fall below that noise. Small ones are soon
# outgrown by what is learned; small ones in later layers too would make unseen states look alike.
INPUT_SCALE = 0.1


@dataclass(frozen=True, kw_only=True)
class ICMConfig:
    """What is tuned about curiosity.

    Attributes:
        enabled: Whether the module exists.
        weight: Weight of the stream `icm` in the mix of rewards; with 0 the module is trained and
            reported, and the policy does not hear of it.
        lr: Learning rate of both models: how long something stays surprising.
        head_lr: Learning rate of the head, which runs after them: a head that lags behind pays for
            surprise that is long gone, and the policy stays where it was.
    """

    enabled: bool
    weight: float
    lr: float
    head_lr: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("weight", self.weight, 0.0, 100.0)
        check_range("lr", self.lr, 0.0, 1.0)
        check_range("head_lr", self.head_lr, 0.0, 1.0)


class Pairs(NamedTuple):
    """Both models on successive rows: `inverse`, `surprise` (T - 1, B) losses and `guess`
    (T - 1, B, A), the inverse model's output.
    """

    inverse: Tensor
    surprise: Tensor
    guess: Tensor


class ForwardModel(nn.Module):
    """Predicts the next features as a change of the present ones; no change before training."""

    def __init__(self, action_dim: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = MLP(FEATURES + action_dim, units, FORWARD_LAYERS, generator)
        self.out = Linear(units, FEATURES, generator, outscale=0.0)

    def forward(self, phi: Tensor, action: Tensor) -> Tensor:
        """(..., 64), (..., A) -> (..., 64)."""
        return phi + self.out(self.mlp(torch.cat([phi, action], -1)))


class ICM(nn.Module):
    """Intrinsic curiosity on embeddings of observations, with a head that scores imagination.

    The features read `embed` only. The latent state must never feed them: `deter` was computed from
    the action, so an inverse model would read the action there even where actions do nothing.

    Args:
        embed_dim: E. feat_dim: F. units: Width of the MLPs. spec: Actions. config: What is tuned.
        seed: Of the initial weights.
    """

    def __init__(
        self,
        embed_dim: int,
        feat_dim: int,
        units: int,
        spec: ActionSpec,
        config: ICMConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.encoder = MLP(embed_dim, units, ENCODER_LAYERS, init(seed, "icm/encoder"))
        self.encoder.get_parameter("layers.0.linear.weight").data.mul_(INPUT_SCALE)
        self.to_phi = Linear(units, FEATURES, init(seed, "icm/to_phi"))
        inverse = init(seed, "icm/inverse")
        self.inverse = nn.Sequential(
            MLP(2 * FEATURES, units, INVERSE_LAYERS, inverse), Linear(units, spec.dim, inverse)
        )
        self.forward_model = ForwardModel(spec.dim, units, init(seed, "icm/forward"))
        self.head = ScalarHead(feat_dim, units, HEAD_LAYERS, init(seed, "icm/head"))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Optimiser groups, named as their losses."""
        parts = (self.encoder, self.to_phi, self.inverse, self.forward_model)
        models = [param for part in parts for param in part.parameters()]
        return {"icm": models, "icm_head": list(self.head.parameters())}

    def rates(self) -> dict[str, float]:
        """Learning rate of each group."""
        return {"icm": self.config.lr, "icm_head": self.config.head_lr}

    def encode(self, embed: Tensor) -> Tensor:
        """(..., E) -> features phi (..., 64) of zero mean and unit variance, which bounds what a
        surprise can be; no gradient to `embed`.
        """
        hidden = self.to_phi(self.encoder(full_precision(embed.detach())))
        return functional.layer_norm(hidden, (FEATURES,))

    @torch.no_grad()
    def surprise(self, embed: Tensor, action: Tensor, next_embed: Tensor) -> Tensor:
        """1/2 |f(phi, a) - phi'|^2 of transitions, for pictures and tests.

        Args:
            embed, next_embed: (..., E). action: (..., A).
        """
        return self._surprise(self.encode(embed), self._effective(action), self.encode(next_embed))

    @torch.no_grad()
    def reward(self, rollout: Imagined) -> Tensor:
        """(H, N) surprise expected on arriving at states 1 .. H, never negative; no gradient."""
        return in_chunks(lambda feat: self.head(feat).mean(), rollout.feat[1:]).clamp_min(0.0)

    def losses(self, replayed: Replayed) -> tuple[Losses, Metrics]:
        """Losses of both models and of the head; their gradients stay inside this module.

        A pair of rows counts if the second one does not begin an episode; without any such pair all
        losses and gradients are 0.

        Args:
            replayed: (T, B) rows, T >= 2.

        Returns:
            Means () `icm` = (1 - beta) inverse + beta forward and `icm_head`, and metrics.
        """
        pairs = self._pairs(replayed)
        counts = (~replayed.is_first[1:]).to(pairs.inverse.dtype)
        # The head answers for the state that was arrived at, as the reward head does.
        head = self.head(full_precision(replayed.feat[1:].detach()))
        inverse = weighted_mean(pairs.inverse, counts)
        forward = weighted_mean(pairs.surprise, counts)
        losses = {
            "icm": (1.0 - BETA) * inverse + BETA * forward,
            "icm_head": weighted_mean(head.loss(pairs.surprise), counts),
        }
        with torch.no_grad():
            paid = head.mean().clamp_min(0.0)
            metrics = {
                "intrinsic/icm_loss": losses["icm"].detach(),
                "icm/inverse_loss": inverse.detach(),
                "icm/forward_loss": forward.detach(),
                "icm/reward_mean": weighted_mean(paid, counts),
                "icm/reward_error": weighted_mean((paid - pairs.surprise).abs(), counts),
            }
            if self.spec.kind == "discrete":
                hits = self._hits(pairs.guess, replayed.action[:-1])
                metrics["icm/inverse_accuracy"] = weighted_mean(hits, counts)
        return losses, metrics

    def _pairs(self, replayed: Replayed) -> Pairs:
        action = self._effective(replayed.action[:-1])
        phi = self.encode(replayed.embed)
        guess = self.inverse(torch.cat([phi[:-1], phi[1:]], -1))
        # The forward loss would make the features easy to predict by making them alike.
        fixed = phi.detach()
        return Pairs(
            self._inverse_loss(guess, action),
            self._surprise(fixed[:-1], action, fixed[1:]),
            guess,
        )

    def _surprise(self, phi: Tensor, action: Tensor, next_phi: Tensor) -> Tensor:
        return 0.5 * (self.forward_model(phi, action) - next_phi).square().sum(-1)

    def _effective(self, action: Tensor) -> Tensor:
        """The action as the environment felt it: it clips real numbers, rows hold them unclipped,
        and nobody can tell from observations what was cut off.
        """
        action = full_precision(action.detach())
        return action.clamp(-1.0, 1.0) if self.spec.kind == "continuous" else action

    def _inverse_loss(self, guess: Tensor, action: Tensor) -> Tensor:
        """(..., A), (..., A) -> (...): cross-entropy summed over the choices, or the negative
        log-density of a normal of unit variance up to its constant.
        """
        if self.spec.kind == "continuous":
            return 0.5 * (guess - action).square().sum(-1)
        logs = [functional.log_softmax(part, -1) for part in guess.split(self.spec.sizes, -1)]
        return -(torch.cat(logs, -1) * action).sum(-1)

    def _hits(self, guess: Tensor, action: Tensor) -> Tensor:
        """(..., A), (..., A) -> (...) share of the choices that were guessed right."""
        sizes = self.spec.sizes
        parts = zip(guess.split(sizes, -1), action.split(sizes, -1), strict=True)
        hits = [(one.argmax(-1) == other.argmax(-1)).to(guess.dtype) for one, other in parts]
        return torch.stack(hits).mean(0)
