"""Recurrent state-space model with a block-GRU core and categorical latents.

What does not depend on the recurrent state is computed outside the scan for all steps at once: the
action branch, and the share of the posterior layer that reads the embedding.

Source: arXiv 2301.04104 v2, "World model learning"; order of layers as in the official code since
2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.distributions import mix_uniform, sample_one_hot, straight_through
from dreamer.nn.layers import MLP, Linear, NormedLinear
from dreamer.types import LatentState
from dreamer.world_model.block_gru import BlockGRU, CoreTrace, Scratch, core_step
from dreamer.world_model.scan import UNIMIX, PostWeights, Scan, scan_forward
from dreamer.world_model.sizes import SIZES, Size

__all__ = ["RSSM", "SIZES", "Observed", "Size", "flat_stoch", "kl_losses"]


class Observed(NamedTuple):
    """Scan over replayed sequences, time first: deter (T, B, D), stoch (T, B, C * S) flat
    class-major one-hots with straight-through gradient, post and prior probabilities
    (T, B, C, S).
    """

    deter: Tensor
    stoch: Tensor
    post: Tensor
    prior: Tensor


def flat_stoch(state: LatentState) -> Tensor:
    """(..., S, C) one-hots -> (..., C * S) class-major; free when memory is class-major already."""
    return state.stoch.transpose(-1, -2).flatten(-2)


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
        """Posterior probabilities (B, C, S) from deter (B, D), the embedding's pre-activation
        (B, hidden) and the part of the weight that reads deter (D, hidden).
        """
        hidden = self.post_hidden.activate(torch.addmm(from_embed, deter, weight))
        return self._probs(self.post_logit(hidden))

    def prior(self, deter: Tensor) -> Tensor:
        """Prior probabilities (..., C, S) from deter (..., D)."""
        return self._probs(self.prior_logit(self.prior_hidden(deter)))

    def embed_branch(self, embed: Tensor) -> Tensor:
        """(..., E) -> (..., hidden): share of the posterior's pre-activation that reads the
        embedding, the bias included.
        """
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
        action, from_embed = self.core.action_term(prev_action * keep), self.embed_branch(embed)
        fixed = (keep, state.deter.detach(), flat_stoch(state).detach(), noise)
        core, post = self.core.weights(), self._post_weights()
        shape = (self.size.classes, self.size.groups)
        if torch.is_grad_enabled():
            deter, stoch, probs = Scan.apply(fixed, shape, from_embed, action, *core, *post)
        else:
            stoch, probs, trace = scan_forward((from_embed, action, *fixed), core, post, shape)
            deter = trace.deter
        return Observed(deter, stoch, probs, self.prior(deter))

    def observe_plain(
        self,
        embed: Tensor,
        prev_action: Tensor,
        is_first: Tensor,
        state: LatentState,
        noise: Tensor,
    ) -> Observed:
        """Same as `observe` by plain autograd: slow, and short enough to be believed."""
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
        """One step of the prior without a gradient.

        Args:
            deter: (N, D). stoch: (N, C * S). action: (N, A). noise: (N, S) uniform.

        Returns:
            Next deter and flat stoch.
        """
        out = deter.new_empty(len(deter), self.feat_dim)
        self.imaginer(len(deter))(deter, stoch, action, noise, out)
        return out[:, : self.size.deter], out[:, self.size.deter :]

    @torch.no_grad()
    def imaginer(self, rows: int) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]:
        """Prepare the weights and the memory of many steps with N = `rows` states.

        Returns:
            Function of the arguments of `imagine_step` and `out`, the (N, F) memory of the result.
            Good until the next change of the weights.
        """
        width, weights = self.size.deter, self.core.weights()
        scratch = Scratch.empty(weights, rows)
        # Contiguous this way round it multiplies twice as fast as the slice it comes from.
        action_weight = self.core.action_weight().contiguous()
        term = action_weight.new_empty(rows, width)

        @torch.no_grad()
        def step(deter: Tensor, stoch: Tensor, action: Tensor, noise: Tensor, out: Tensor) -> None:
            after, sample = out[:, :width], out[:, width:]
            branch = self.core.action_branch(action)
            torch.addmm(self.core.bias, branch, action_weight, out=term)
            # Nobody asks for the pre-activations: they share memory with what follows from them.
            trace = CoreTrace(scratch.shared, term, scratch.gates)
            core_step(weights, deter, stoch, term, trace, scratch, after)
            classes = sample.unflatten(-1, (self.size.classes, self.size.groups))
            sample_one_hot(self.prior(after), noise, -2, out=classes)

        return step

    def imagine_plain(
        self, deter: Tensor, stoch: Tensor, action: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Same as `imagine_step` in plain operations on new memory: what torch.compile reads."""
        deter = self.core(deter, stoch, self.core.action_branch(action))
        return deter, sample_one_hot(self.prior(deter), noise, -2).flatten(-2)

    def _post_weights(self) -> PostWeights:
        linear, logit = self.post_hidden.linear, self.post_logit
        return PostWeights(
            hidden=linear.weight[:, : self.size.deter].t().contiguous(),
            scale=self.post_hidden.activate.scale,
            logit=logit.weight.t().contiguous(),
            logit_bias=logit.bias,
        )

    def draw(self, probs: Tensor, noise: Tensor) -> Tensor:
        """Straight-through sample, (B, C, S) and (B, S) -> (B, C * S)."""
        return straight_through(sample_one_hot(probs, noise, -2), probs).flatten(-2)

    def latent(self, deter: Tensor, stoch: Tensor) -> LatentState:
        """State with (..., S, C) one-hots, a view of flat class-major ones."""
        classes = stoch.unflatten(-1, (self.size.classes, self.size.groups))
        return LatentState(deter, classes.transpose(-1, -2))

    def pack(self, state: LatentState) -> dict[str, Tensor]:
        """Compact latents for the buffer: deter (..., D) float16, stoch (..., S) uint8 indices."""
        classes = torch.arange(self.size.classes, device=state.stoch.device)
        # Counting to the one is many times faster than argmax over a dimension before the last.
        index = (state.stoch.detach().transpose(-1, -2) * classes.unsqueeze(-1)).sum(-2)
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
        post, prior: (T, B, C, S) mixed probabilities.
        free_nats: Nats below which there is no gradient.

    Returns:
        dyn (T, B) trains the prior, rep (T, B) the posterior, kl (T, B) is unclipped and detached.

    Source: arXiv 2301.04104, equation for L_dyn and L_rep.
    """
    log_post, log_prior = torch.log(post), torch.log(prior)
    dyn = (post.detach() * (log_post.detach() - log_prior)).sum((-2, -1))
    rep = (post * (log_post - log_prior.detach())).sum((-2, -1))
    return dyn.clamp_min(free_nats), rep.clamp_min(free_nats), rep.detach()
