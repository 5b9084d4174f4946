"""Distributions over short action sequences, factorised left to right: the networks of empowerment.

They stand for the source w(A | s) and for the decoder q(A | z, y) of the variational bound; which
of the two a network is depends on what it is given as context alone.

Source: Mohamed and Rezende 2015 (arXiv 1509.08731), the parameterisation of source and decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dreamer.nn.distributions import ActionDist, BoundedNormal, OneHotActions, full_precision
from dreamer.nn.layers import Linear, NormedLinear, NormedSiLU
from dreamer.types import ActionSpec

OUTSCALE = 0.01
SOURCE_UNIMIX = 0.01  # the source goes on trying everything
# A source that learns as fast as its decoder settles on the sequences that the decoder knows first,
# and forgets others. The optimiser's steps have one size for both, so the outputs are scaled.
SOURCE_PACE = 0.1
# A decoder that is sure of the wrong sequence loses a few nats instead of infinitely many.
DECODER_UNIMIX = 1e-3


class ActionSequence(nn.Module):
    """P(a_1 .. a_n | context) = product of P(a_i | context, a_1 .. a_{i-1}).

    Choices or dimensions within one action are independent given the context and the actions
    before, as they are for the actor; a bound computed with it stays a bound.

    Args:
        contexts: Widths X of the parts of the context. Parts may come once per start and be shared
            by its samples: each is mapped by itself, so that nothing is multiplied twice.
        spec: Actions. steps: n. units: Width of the two hidden layers.
        role: A source mixes in 1 % of the uniform choice, or keeps its means in [-1, 1] like the
            actor, which bounds what a continuous action can carry. A decoder's means are free,
            since samples of the source lie beyond the box too.
        generator: Source of the initial weights.
    """

    earlier: Tensor
    which: Tensor

    def __init__(
        self,
        contexts: Sequence[int],
        spec: ActionSpec,
        steps: int,
        units: int,
        role: Literal["source", "decoder"],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.spec, self.steps, self.role = spec, steps, role
        self.contexts = nn.ModuleList(Linear(width, units, generator) for width in contexts)
        self.prefix = Linear(steps * (spec.dim + 1), units, generator)
        self.activate = NormedSiLU(units)
        self.hidden = NormedLinear(units, units, generator)
        self.out = Linear(units, spec.dim, generator, outscale=OUTSCALE)
        continuous = spec.kind == "continuous"
        self.std = Linear(units, spec.dim, generator, outscale=OUTSCALE) if continuous else None
        self.register_buffer("earlier", torch.ones(steps, steps).tril(-1), persistent=False)
        self.register_buffer("which", torch.eye(steps), persistent=False)

    def embed(self, *parts: Tensor) -> Tensor:
        """Parts of the context, each (M, K, X) or (M, 1, X) -> (M, K or 1, units)."""
        mapped = [layer(part) for layer, part in zip(self.contexts, parts, strict=True)]
        return sum(mapped[1:], mapped[0])

    def forward(self, context: Tensor, sequence: Tensor, steps: slice = slice(None)) -> ActionDist:
        """Distributions of the actions of some steps, given the actions before each.

        Args:
            context: (M, K or 1, units) from `embed`. sequence: (M, K, n, A), of which entry i
                reads what comes before i only.
            steps: Which steps are wanted, all by default.

        Returns:
            Distribution over (M, K, wanted, A).
        """
        known = sequence.unsqueeze(-3) * self.earlier[steps].unsqueeze(-1)
        which = self.which[steps].expand(*known.shape[:-2], -1)
        hidden = self.prefix(torch.cat([known.flatten(-2), which], -1)) + context.unsqueeze(-2)
        flat = self.hidden(self.activate(hidden.flatten(0, -2)))
        return self._dist(flat.view(hidden.shape))

    def log_prob(self, context: Tensor, sequence: Tensor) -> Tensor:
        """(M, K) log-probability or log-density of sequences (M, K, n, A)."""
        return self(context, sequence).log_prob(sequence).sum(-1)

    @torch.no_grad()
    def sample(self, context: Tensor, noise: Tensor) -> Tensor:
        """Sequences (M, K, n, A) from (M, K, n, noise_dim) uniform (discrete) or normal noise."""
        sequence = noise.new_zeros(*noise.shape[:-1], self.spec.dim)
        for step in range(self.steps):
            here = slice(step, step + 1)
            sequence[..., here, :] = self(context, sequence, here).sample(noise[..., here, :])
        return sequence

    def _dist(self, hidden: Tensor) -> ActionDist:
        pace, unimix = SOURCE_PACE, SOURCE_UNIMIX
        if self.role == "decoder":
            pace, unimix = 1.0, DECODER_UNIMIX
        out = self.out(hidden) * pace
        if self.std is None:
            return OneHotActions(out, self.spec.sizes, unimix)
        dist = BoundedNormal(out, self.std(hidden) * pace)
        if self.role == "decoder":
            dist.loc = full_precision(out)
        return dist
