"""The block-GRU core of the RSSM: a module, and one step of it on preallocated memory.

The weights that read the shared inputs of the blocks are one dense matrix, only the recurrent part
is block-diagonal. Inside the loops the three gates are apart, each (blocks, rows, D / blocks), so
that everything elementwise runs over contiguous memory.

Source: arXiv 2301.04104 v2, "World model learning"; gates, initialisation and order of layers as in
the official code since 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.fused import norm_silu
from dreamer.nn.layers import BlockLinear, NormedLinear, NormedSiLU, init_weight
from dreamer.world_model.sizes import Size

BLOCKS = 8


class CoreWeights(NamedTuple):
    """Weights of the core that read the recurrent state; d = D / blocks, h is a branch's width.

    Attributes:
        deter, deter_bias: (D, h), (h,) of the branch from deter.
        stoch, stoch_bias: (C * S, h), (h,) of the branch from stoch.
        branch_scale: (2, h) norm scales of both branches.
        shared: (2 h, D) reads both branches.
        recurrent: (blocks, d, d) reads deter.
        scale: (D,) of the norm before the gates.
        gates, gates_bias: (3, blocks, d, d), (3, blocks, 1, d) of reset, candidate and update.
    """

    deter: Tensor
    deter_bias: Tensor
    stoch: Tensor
    stoch_bias: Tensor
    branch_scale: Tensor
    shared: Tensor
    recurrent: Tensor
    scale: Tensor
    gates: Tensor
    gates_bias: Tensor


class CoreTrace(NamedTuple):
    """Pre-activations of one step for B rows: branch (B, 2, h), core (B, D) and gates
    (3, blocks, B, d).
    """

    branch: Tensor
    core: Tensor
    gates: Tensor


class Scratch(NamedTuple):
    """Memory that every step of a loop uses again: shared (B, 2, h), own (blocks, B, d), inner
    (B, D) and gates (3, blocks, B, d).
    """

    shared: Tensor
    own: Tensor
    inner: Tensor
    gates: Tensor

    @classmethod
    def empty(cls, weights: CoreWeights, rows: int) -> Scratch:
        """Uninitialised memory for so many rows."""
        new, deter = weights.scale.new_empty, weights.scale.shape[0]
        slices = (BLOCKS, rows, deter // BLOCKS)
        shared = new(rows, *weights.branch_scale.shape)
        return cls(shared, new(slices), new(rows, deter), new(3, *slices))


def blocks_of(x: Tensor) -> Tensor:
    """View (..., B, D) as (blocks, ..., B, D / blocks)."""
    return x.unflatten(-1, (BLOCKS, -1)).movedim(-2, 0)


def core_step(
    weights: CoreWeights,
    old: Tensor,
    chosen: Tensor,
    action: Tensor,
    trace: CoreTrace,
    scratch: Scratch,
    out: Tensor,
) -> None:
    """One step of the block GRU without a graph.

    Args:
        old: (B, D) deter before. chosen: (B, C * S) stoch before.
        action: (B, D) `BlockGRU.action_term`.
        trace: Receives the pre-activations; its gates may be those of the scratch.
        out: Receives (B, D) the deter after.
    """
    from_deter, from_stoch = trace.branch.unbind(1)
    torch.addmm(weights.deter_bias, old, weights.deter, out=from_deter)
    torch.addmm(weights.stoch_bias, chosen, weights.stoch, out=from_stoch)
    shared = norm_silu(trace.branch, weights.branch_scale, scratch.shared)
    torch.addmm(action, shared.flatten(1), weights.shared, out=trace.core)
    old = blocks_of(old)
    blocks_of(trace.core).add_(torch.bmm(old, weights.recurrent, out=scratch.own))
    inner = blocks_of(norm_silu(trace.core, weights.scale, scratch.inner))
    reset, new, update = scratch.gates.unbind(0)
    for weight, gate in zip(weights.gates.unbind(0), (reset, new, update), strict=True):
        torch.bmm(inner, weight, out=gate)
    torch.add(scratch.gates, weights.gates_bias, out=trace.gates)
    torch.sigmoid(trace.gates[0], out=reset)
    # tanh(x) == 2 * sigmoid(2 x) - 1; the sigmoid kernel is several times faster on many CPUs.
    torch.mul(trace.gates[1], reset, out=new).mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    torch.sub(trace.gates[2], 1.0, out=update).sigmoid_()
    torch.lerp(old, new, update, out=blocks_of(out))


def gate_factors(gates: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the new deter by its gates' pre-activations, and by the old deter.

    Args:
        gates: (3, blocks, T, B, d) pre-activations. old: (T, B, D).

    Returns:
        (3, blocks, T, B, d) and (blocks, T, B, d).
    """
    by_gates = torch.empty_like(gates)
    reset, update = torch.sigmoid(gates[0]), torch.sigmoid(gates[2] - 1.0)
    new = torch.tanh(reset * gates[1])
    stay = 1.0 - update
    torch.sub(new, blocks_of(old), out=by_gates[2]).mul_(update).mul_(stay)
    torch.sub(1.0, new.square_(), out=by_gates[1]).mul_(update).mul_(reset)
    torch.sub(1.0, reset, out=by_gates[0]).mul_(gates[1]).mul_(by_gates[1])
    return by_gates, stay


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

    def action_weight(self) -> Tensor:
        """(hidden, D) view of the weight that reads the action branch."""
        return self.shared[:, 2 * self.from_action.linear.weight.shape[0] :].t()

    def action_term(self, action: Tensor) -> Tensor:
        """(..., A) -> (..., D): what the action adds before the norm, the bias included."""
        return functional.linear(self.action_branch(action), self.action_weight().t(), self.bias)

    def weights(self) -> CoreWeights:
        """The weights that read the recurrent state, as the loops want them."""
        deter, stoch = self.from_deter, self.from_stoch
        gates = self.gates.weight.unflatten(-1, (3, -1)).movedim(-2, 0)
        return CoreWeights(
            deter=deter.linear.weight.t().contiguous(),
            deter_bias=deter.linear.bias,
            stoch=stoch.linear.weight.t().contiguous(),
            stoch_bias=stoch.linear.bias,
            branch_scale=torch.stack([deter.activate.scale, stoch.activate.scale]),
            shared=self.shared[:, : 2 * deter.linear.weight.shape[0]].t().contiguous(),
            recurrent=self.recurrent,
            scale=self.norm_silu.scale,
            gates=gates.contiguous(),
            gates_bias=self.gates.bias.unflatten(0, (BLOCKS, 3, 1, -1)).movedim(1, 0),
        )

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """One step by plain autograd.

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
