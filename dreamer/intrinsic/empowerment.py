"""Empowerment: how many nats an agent's next few actions can write into its future.

E(s) = max over sources w of I(A; y | s), with sequences A of n actions chosen in advance and the
outcome y = `stoch` after n steps of the prior. For any decoder q

    I(A; y | s) >= E_{A ~ w, y} [log q(A | z, y) - log w(A | s)],

with equality where q is the true posterior. Source and decoder climb this bound, and a value head
amortises it, so that imagined states can be scored.

Decoder and outcome are `stoch` and never `deter`: `deter` is computed from the actions, and a
decoder that reads it finds them there even where they change nothing.

Sources: Barber and Agakov's bound as in Mohamed and Rezende 2015 (arXiv 1509.08731); in a learned
latent model, Karl et al. 2017 (arXiv 1710.05101). The source is trained with score-function
gradients, because those through n discrete latent steps would be biased.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dreamer.intrinsic.action_sequence import ActionSequence
from dreamer.nn.layers import MLP, Linear
from dreamer.nn.noise import Noise
from dreamer.types import (
    ActionSpec,
    ConfigError,
    Imagined,
    Losses,
    Metrics,
    Replayed,
    check_range,
)
from dreamer.world_model.imagination import in_chunks
from dreamer.world_model.model import init
from dreamer.world_model.rssm import RSSM, Size

STARTS = 64  # replayed states per update
SAMPLES = 8  # sequences per start: the others are the baseline of each
LAYERS = 2
# A standard deviation of `BoundedNormal` is in [0.1, 1].
FINEST, COARSEST = 0.1, 1.0


@dataclass(frozen=True, kw_only=True)
class EmpowermentConfig:
    """What is tuned about empowerment.

    Attributes:
        enabled: Whether the module exists at all.
        weight: Of the reward stream; 0 trains the module and leaves it out of the mix.
        kind: `action` asks what n actions can bring about, `option` what a manager's codes can.
        steps: n actions per sequence, for kind `action`.
        every: Train once in so many updates.
        lr: Learning rate of source, decoder and value.
    """

    enabled: bool
    weight: float
    kind: Literal["action", "option"]
    steps: int
    every: int
    lr: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.kind not in ("action", "option"):
            raise ConfigError("kind", self.kind, "action or option")
        check_range("weight", self.weight, 0.0, 100.0)
        check_range("steps", self.steps, 1, 32)
        check_range("every", self.every, 1, 1000000)
        check_range("lr", self.lr, 0.0, 1.0)


class SequenceBound(nn.Module):
    """The variational bound without a world model: source, decoder and amortised value.

    Args:
        start_dim: X, what source and value read of a state.
        outcome_dim: Z, what the decoder reads of a state and of an outcome.
        spec: Actions. steps: n. units: Width of the networks. seed: Of the initial weights.
    """

    def __init__(
        self, start_dim: int, outcome_dim: int, spec: ActionSpec, steps: int, units: int, seed: int
    ) -> None:
        super().__init__()
        self.source = ActionSequence(
            (start_dim,), spec, steps, units, "source", init(seed, "empowerment/source")
        )
        self.decoder = ActionSequence(
            (outcome_dim,) * 2, spec, steps, units, "decoder", init(seed, "empowerment/decoder")
        )
        self.value = NatsHead(start_dim, units, init(seed, "empowerment/value"))

    def losses(
        self, start: Tensor, before: Tensor, noise: Tensor, outcome: Callable[[Tensor], Tensor]
    ) -> tuple[Losses, Metrics]:
        """Scalar losses of decoder (`empowerment_q`), source (`_w`) and value (`_v`).

        Args:
            start: (M, X) states. before: (M, Z) the same states as the decoder sees them.
            noise: (M, K, n, noise_dim) of the source's samples, K > 1.
            outcome: Plays sequences (M * K, n, A), the K of a start in a row, and returns what the
                decoder sees afterwards, (M * K, Z).

        Source: arXiv 1509.08731 for the bound; the baseline of a sample is the mean of the others.
        """
        start, before = start.detach(), before.detach()
        context = self.source.embed(start.unsqueeze(1))
        sequence = self.source.sample(context, noise)
        with torch.no_grad():
            after = outcome(sequence.flatten(0, 1)).unflatten(0, noise.shape[:2])
        log_w = self.source.log_prob(context, sequence)
        log_q = self.decoder.log_prob(
            self.decoder.embed(before.unsqueeze(1), after.detach()), sequence
        )
        bound = (log_q - log_w).detach()
        mean = bound.mean(1)
        # Equals bound minus the mean of the other samples of the same start.
        adv = (bound - mean.unsqueeze(1)) * (noise.shape[1] / (noise.shape[1] - 1))
        losses = {
            "empowerment_q": -log_q.mean(),
            "empowerment_w": -(adv * log_w).mean(),
            "empowerment_v": 0.5 * (self.value(start) - mean).square().mean(),
        }
        metrics = {
            "intrinsic/empowerment": mean.mean(),
            "empowerment/bound_max": mean.max(),
            "empowerment/decoder_nll": -log_q.detach().mean(),
            "empowerment/source_entropy": -log_w.detach().mean(),
        }
        return losses, metrics


class NatsHead(nn.Module):
    """Feature (..., F) -> nats (...), by squared error: a few nats need no bins. 0 before training.

    Args:
        feat_dim: F. units: Width of the MLP.
    """

    def __init__(self, feat_dim: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = MLP(feat_dim, units, LAYERS, generator)
        self.out = Linear(units, 1, generator, outscale=0.0)

    def forward(self, feat: Tensor) -> Tensor:
        """(..., F) -> (...)."""
        return self.out(self.mlp(feat)).squeeze(-1)


class Empowerment(nn.Module):
    """Empowerment of latent states, learned in the world model. Satisfies `IntrinsicReward`.

    It owns no optimiser and sends no gradient into the world model. Estimates are only as good as
    the prior: those of an untrained one mean nothing.

    Args:
        rssm_size: Widths of the latents. spec: Actions. units: Width of the networks.
        config: What is tuned. seed: Of the initial weights.
    """

    def __init__(
        self,
        rssm_size: Size,
        spec: ActionSpec,
        units: int,
        config: EmpowermentConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.size, self.spec, self.config = rssm_size, spec, config
        stoch = rssm_size.groups * rssm_size.classes
        self.bound = SequenceBound(rssm_size.deter + stoch, stoch, spec, config.steps, units, seed)

    def losses(
        self, rssm: RSSM, replayed: Replayed, noise: Noise, index: int
    ) -> tuple[Losses, Metrics]:
        """Scalar losses on some of the replayed states, or on all if there are few.

        Args:
            rssm: Whose prior plays the sequences. replayed: (T, B, ...).
            noise: Of the run. index: Update number.
        """
        feat = replayed.feat.detach().flatten(0, 1)
        feat = feat[noise.permutation("empowerment/starts", index, len(feat))[:STARTS]]
        lead, steps = (len(feat), SAMPLES), self.config.steps
        acting = noise.action(self.spec, "empowerment/actions", index, (*lead, steps))
        shape = (steps, len(feat) * SAMPLES, self.size.groups)
        latent = noise.uniform("empowerment/latents", index, shape)
        play = partial(play_prior, rssm, feat.repeat_interleave(SAMPLES, 0), latent)
        return self.bound.losses(feat, feat[:, self.size.deter :], acting, play)

    def value(self, feat: Tensor) -> Tensor:
        """(..., F) -> (...) amortised empowerment in nats; a poor decoder makes it negative."""
        return self.bound.value(feat)

    @torch.no_grad()
    def reward(self, rollout: Imagined) -> Tensor:
        """(H, N) empowerment of the states arrived at, as a share in [0, 1] of `ceiling`."""
        return in_chunks(self.value, rollout.feat[1:]).div_(self.ceiling()).clamp_(0.0, 1.0)

    def ceiling(self) -> float:
        """Nats that no estimate exceeds in expectation; the reward's unit.

        Discrete: n ln(joint choices), the entropy of the uniform source.

        Continuous: per dimension and step, the densest decoder is a normal of standard deviation
        0.1 at the action itself, and the source has at most the entropy of one of standard
        deviation 1; their difference is ln(1 / 0.1) + 1 / 2 nats. What `stoch` can hold is a limit
        too, and the lower one for many dimensions. A constant, unlike a running maximum, leaves the
        reward of a state alone when other states are found.
        """
        if self.spec.kind == "discrete":
            return self.config.steps * sum(math.log(size) for size in self.spec.sizes)
        per_dim = math.log(COARSEST / FINEST) + 0.5
        capacity = self.size.groups * math.log(self.size.classes)
        return min(self.config.steps * self.spec.dim * per_dim, capacity)


@torch.no_grad()
def play_prior(rssm: RSSM, feat: Tensor, latent_noise: Tensor, sequence: Tensor) -> Tensor:
    """Flat `stoch` (R, C * S) where the prior leads by the actions (R, n, A).

    Args:
        feat: (R, F) states to begin in. latent_noise: (n, R, S) uniform.
    """
    width, step = rssm.size.deter, rssm.imaginer(len(feat))
    for noise, action in zip(latent_noise, sequence.unbind(1), strict=True):
        after = torch.empty_like(feat)
        step(feat[:, :width], feat[:, width:], action, noise, after)
        feat = after
    return feat[:, width:]
