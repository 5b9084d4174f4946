"""Recurrent state-space model with a block-GRU core and categorical latents.

What does not depend on the recurrent state is computed outside the scan for all steps at once: the
action branch, and the share of the posterior layer that reads the embedding. The weights that read the
shared inputs of the blocks are one dense matrix, only the recurrent part is block-diagonal.

Source: arXiv 2301.04104 v2, "World model learning"; gates, initialisation and order of layers as in the
official code since 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.distributions import mix_uniform, sample_one_hot, straight_through
from dreamer.nn.layers import MLP, BlockLinear, Linear, NormedLinear, NormedSiLU, init_weight
from dreamer.types import LatentState

UNIMIX = 0.01
BLOCKS = 8


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths of one named model size (official names, and `tiny` for CPU).

    Attributes:
        deter: D. hidden: Width of the RSSM's inner layers. groups, classes: S and C of `stoch`.
        depth: Base channels of the CNN. units: Width of all MLPs.
    """

    deter: int
    hidden: int
    groups: int
    classes: int
    depth: int
    units: int


SIZES = {
    "tiny": Size(deter=128, hidden=64, groups=8, classes=8, depth=8, units=64),
    "size1m": Size(deter=512, hidden=64, groups=32, classes=4, depth=4, units=64),
    "size12m": Size(deter=2048, hidden=256, groups=32, classes=16, depth=16, units=256),
    "size25m": Size(deter=3072, hidden=384, groups=32, classes=24, depth=24, units=384),
    "size50m": Size(deter=4096, hidden=512, groups=32, classes=32, depth=32, units=512),
    "size100m": Size(deter=6144, hidden=768, groups=32, classes=48, depth=48, units=768),
    "size200m": Size(deter=8192, hidden=1024, groups=32, classes=64, depth=64, units=1024),
    "size400m": Size(deter=12288, hidden=1536, groups=32, classes=96, depth=96, units=1536),
}


def latent_fields(size: Size) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and numpy dtype of one packed latent, as the buffer wants them."""
    return {"deter": ((size.deter,), "float16"), "stoch": ((size.groups,), "uint8")}


class Observed(NamedTuple):
    """Scan over replayed sequences, time first: deter (T, B, D), stoch (T, B, C * S) flat class-major
    one-hots with straight-through gradient, post and prior probabilities (T, B, C, S)."""

    deter: Tensor
    stoch: Tensor
    post: Tensor
    prior: Tensor


def flat_stoch(state: LatentState) -> Tensor:
    """(..., S, C) one-hots -> (..., C * S), class-major; free when memory is class-major already."""
    return state.stoch.transpose(-1, -2).flatten(-2)


class BlockGRU(nn.Module):
    """deter' from deter, stoch and action; gates act per block.

    Args:
        size: Widths. action_dim: A.
    """

    def __init__(self, size: Size, action_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        deter, hidden = size.deter, size.hidden
        self.from_deter = NormedLinear(deter, hidden, generator)
        self.from_stoch = NormedLinear(size.groups * size.classes, hidden, generator)
        self.from_action = NormedLinear(action_dim, hidden, generator)
        # Per-block inputs: the block's slice of deter, and the three shared branches.
        inputs = deter + BLOCKS * 3 * hidden
        self.recurrent = nn.Parameter(torch.empty(BLOCKS, deter // BLOCKS, deter // BLOCKS))
        self.shared = nn.Parameter(torch.empty(deter, 3 * hidden))
        self.bias = nn.Parameter(torch.zeros(deter))
        init_weight(self.recurrent.data, inputs, 1.0, generator)
        init_weight(self.shared.data, inputs, 1.0, generator)
        self.norm_silu = NormedSiLU(deter)
        self.gates = BlockLinear(deter, 3 * deter, BLOCKS, generator)

    def action_branch(self, action: Tensor) -> Tensor:
        """(..., A) -> (..., hidden); actions beyond [-1, 1] enter as their sign."""
        bounded = action / action.abs().clamp_min(1.0)
        return self.from_action(bounded)

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """One step.

        Args:
            deter: (B, D). stoch: (B, C * S). action: (B, hidden) from `action_branch`.

        Returns:
            (B, D) next deter.
        """
        batch, width = deter.shape
        shared = torch.cat([self.from_deter(deter), self.from_stoch(stoch), action], -1)
        blocks = deter.view(batch, BLOCKS, -1).transpose(0, 1)
        own = torch.bmm(blocks, self.recurrent).transpose(0, 1).reshape(batch, width)
        x = own + torch.addmm(self.bias, shared, self.shared.t())
        x = self.norm_silu(x)
        gates = self.gates(x).view(batch, BLOCKS, 3, width // BLOCKS)
        reset, candidate, update = gates.unbind(2)
        # tanh(x) == 2 * sigmoid(2 x) - 1; the sigmoid kernel is several times faster on CPU.
        new = 2.0 * torch.sigmoid(2.0 * torch.sigmoid(reset) * candidate) - 1.0
        old = deter.view(batch, BLOCKS, -1)
        return torch.lerp(old, new, torch.sigmoid(update - 1.0)).reshape(batch, width)


class RSSM(nn.Module):
    """Posterior and prior over latents around the block-GRU core.

    Args:
        size: Widths. embed_dim: E. action_dim: A. generator: Source of the initial weights.
    """

    def __init__(
        self, size: Size, embed_dim: int, action_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.size = size
        self.core = BlockGRU(size, action_dim, generator)
        latents = size.groups * size.classes
        self.post_hidden = NormedLinear(size.deter + embed_dim, size.hidden, generator)
        self.post_logit = Linear(size.hidden, latents, generator)
        self.prior_hidden = MLP(size.deter, size.hidden, 2, generator)
        self.prior_logit = Linear(size.hidden, latents, generator)

    @property
    def feat_dim(self) -> int:
        """F = D + S * C."""
        return self.size.deter + self.size.groups * self.size.classes

    def initial(self, batch: int) -> LatentState:
        """All-zero state of `batch` episodes."""
        like = self.core.bias
        stoch = like.new_zeros(batch, self.size.groups, self.size.classes)
        return LatentState(like.new_zeros(batch, self.size.deter), stoch)

    def post(self, deter: Tensor, from_embed: Tensor, weight: Tensor) -> Tensor:
        """Posterior probabilities (B, C, S) from deter (B, D), the embedding's pre-activation (B, hidden)
        and the part of the weight that reads deter (D, hidden)."""
        hidden = self.post_hidden.activate(torch.addmm(from_embed, deter, weight))
        return self._probs(self.post_logit(hidden))

    def prior(self, deter: Tensor) -> Tensor:
        """Prior probabilities (..., C, S) from deter (..., D)."""
        return self._probs(self.prior_logit(self.prior_hidden(deter)))

    def embed_branch(self, embed: Tensor) -> Tensor:
        """Share of the posterior's pre-activation that reads the embedding, (..., E) -> (..., hidden)."""
        linear = self.post_hidden.linear
        return functional.linear(embed, linear.weight[:, self.size.deter :], linear.bias)

    def observe(
        self,
        embed: Tensor,
        prev_action: Tensor,
        is_first: Tensor,
        state: LatentState,
        noise: Tensor,
    ) -> Observed:
        """Filter sequences; `is_first` resets state and action inside the step and nowhere else.

        Args:
            embed: (T, B, E). prev_action: (T, B, A). is_first: (T, B) bool.
            state: Latent before the first step. noise: (T, B, S) uniform.
        """
        keep = (~is_first).to(embed.dtype).unsqueeze(-1)
        actions = self.core.action_branch(prev_action * keep).unbind(0)
        from_embed = self.embed_branch(embed).unbind(0)
        # Sliced once: the backward of a slice fills a whole weight with zeros.
        weight = self.post_hidden.linear.weight[:, : self.size.deter].t()
        keeps = keep.unbind(0)
        deter, stoch = state.deter, flat_stoch(state)
        deters, stochs, posts = [], [], []
        for step in range(len(actions)):
            deter = self.core(deter * keeps[step], stoch * keeps[step], actions[step])
            post = self.post(deter, from_embed[step], weight)
            stoch = self.draw(post, noise[step])
            deters.append(deter)
            stochs.append(stoch)
            posts.append(post)
        stacked = torch.stack(deters)
        return Observed(stacked, torch.stack(stochs), torch.stack(posts), self.prior(stacked))

    def imagine_step(
        self, deter: Tensor, stoch: Tensor, action: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of the prior: (N, D), (N, C * S), (N, A), (N, S) -> next deter and flat stoch."""
        deter = self.core(deter, stoch, self.core.action_branch(action))
        return deter, sample_one_hot(self.prior(deter), noise, -2).flatten(-2)

    def draw(self, probs: Tensor, noise: Tensor) -> Tensor:
        """Straight-through sample, (B, C, S) and (B, S) -> (B, C * S)."""
        return straight_through(sample_one_hot(probs, noise, -2), probs).flatten(-2)

    def latent(self, deter: Tensor, stoch: Tensor) -> LatentState:
        """State with (..., S, C) one-hots, a view of flat class-major ones."""
        classes = stoch.unflatten(-1, (self.size.classes, self.size.groups))
        return LatentState(deter, classes.transpose(-1, -2))

    def pack(self, state: LatentState) -> dict[str, Tensor]:
        """Compact latents for the buffer: deter (..., D) float16, stoch (..., S) uint8 indices."""
        index = state.stoch.detach().transpose(-1, -2).argmax(-2)
        return {"deter": state.deter.detach().half(), "stoch": index.to(torch.uint8)}

    def unpack(self, latents: Mapping[str, Tensor]) -> LatentState:
        """Inverse of `pack` for any leading shape: deter (..., D), stoch (..., S, C)."""
        index = latents["stoch"].long().unsqueeze(-2)
        deter = latents["deter"].float()
        one_hot = deter.new_zeros(*index.shape[:-2], self.size.classes, self.size.groups)
        return LatentState(deter, one_hot.scatter_(-2, index, 1.0).transpose(-1, -2))

    def _probs(self, logit: Tensor) -> Tensor:
        return mix_uniform(logit.unflatten(-1, (self.size.classes, self.size.groups)), UNIMIX, -2)


def kl_losses(post: Tensor, prior: Tensor, free_nats: float) -> tuple[Tensor, Tensor, Tensor]:
    """Dynamics and representation loss.

    The KL is summed over the latent groups of each position and clipped there, before any mean.

    Args:
        post, prior: (T, B, C, S) mixed probabilities. free_nats: Nats below which there is no gradient.

    Returns:
        dyn (T, B) trains the prior, rep (T, B) trains the posterior, kl (T, B) unclipped and detached.

    Source: arXiv 2301.04104, equation for L_dyn and L_rep.
    """
    log_post, log_prior = torch.log(post), torch.log(prior)
    dyn = (post.detach() * (log_post.detach() - log_prior)).sum((-2, -1))
    rep = (post * (log_post - log_prior.detach())).sum((-2, -1))
    return dyn.clamp_min(free_nats), rep.clamp_min(free_nats), rep.detach()
