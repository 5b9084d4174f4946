"""The recurrent loop of the RSSM with a hand-written backward pass.

Autograd would record some fifty small operations per step and accumulate every weight's gradient
step by step. Here the forward loop keeps pre-activations only; the backward loop carries nothing
but gradients of activations, all factors that do not depend on them are computed for all steps at
once before it, and each weight's gradient is one matrix product after it.

The tests compare it with `RSSM.observe_plain` in float64. Gradients of gradients are not available.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dreamer.nn.distributions import sample_one_hot
from dreamer.nn.fused import norm_silu, rms_scale
from dreamer.world_model.block_gru import (
    BLOCKS,
    CoreTrace,
    CoreWeights,
    Scratch,
    blocks_of,
    core_step,
    gate_factors,
)

UNIMIX = 0.01


class PostWeights(NamedTuple):
    """Weights of the posterior that read the recurrent state: hidden (D, h), its norm's scale (h,),
    logit (h, C * S) and its bias.
    """

    hidden: Tensor
    scale: Tensor
    logit: Tensor
    logit_bias: Tensor


class Trace(NamedTuple):
    """What the backward pass needs of every step.

    Attributes:
        old, chosen: (T, B, D), (T, B, C * S) the masked state that entered.
        deter: (T, B, D) the new one.
        post, soft: (T, B, h), (T, B, C, S) the posterior's pre-activation and softmax.
        branch, core, gates: `CoreTrace`, with T before B.
    """

    old: Tensor
    chosen: Tensor
    deter: Tensor
    post: Tensor
    soft: Tensor
    branch: Tensor
    core: Tensor
    gates: Tensor


def scan_forward(
    inputs: tuple[Tensor, ...], core: CoreWeights, post: PostWeights, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, Trace]:
    """Filter T steps without a graph.

    Args:
        inputs: from_embed (T, B, h), action (T, B, D), keep (T, B, 1), deter (B, D),
            stoch (B, C * S), noise (T, B, S).
        core, post: Weights. shape: (C, S).

    Returns:
        One-hots (T, B, C * S), mixed probabilities (T, B, C, S) and the trace.
    """
    from_embed, action, keep, deter, stoch, noise = inputs
    new, lead, width = action.new_empty, action.shape[:2], action.shape[2]
    trace = Trace(
        old=torch.empty_like(action),
        chosen=new(*lead, stoch.shape[-1]),
        deter=torch.empty_like(action),
        post=torch.empty_like(from_embed),
        soft=new(*lead, *shape),
        branch=new(*lead, *core.branch_scale.shape),
        core=torch.empty_like(action),
        gates=new(3, BLOCKS, *lead, width // BLOCKS),
    )
    stochs, probs = torch.empty_like(trace.soft), torch.empty_like(trace.soft)
    scratch, hidden = Scratch.empty(core, lead[1]), torch.empty_like(from_embed[0])
    inner = zip(trace.branch, trace.core, trace.gates.unbind(2), strict=True)
    outer = zip(trace.old, trace.chosen, trace.post, trace.soft, probs, stochs, strict=True)
    given = zip(from_embed, action, keep, noise, trace.deter, strict=True)
    for traced, outs, (embedded, term, kept, uniform, after) in zip(
        inner, outer, given, strict=True
    ):
        old, chosen, pre, soft, mixed, sample = outs
        torch.mul(deter, kept, out=old)
        torch.mul(stoch, kept, out=chosen)
        core_step(core, old, chosen, term, CoreTrace(*traced), scratch, after)
        torch.addmm(embedded, after, post.hidden, out=pre)
        logit = torch.addmm(post.logit_bias, norm_silu(pre, post.scale, hidden), post.logit)
        torch.softmax(logit.view_as(soft), -2, out=soft)
        torch.mul(soft, 1.0 - UNIMIX, out=mixed).add_(UNIMIX / shape[0])
        deter, stoch = after, sample_one_hot(mixed, uniform, -2, out=sample).flatten(-2)
    return stochs.flatten(-2), probs, trace


class NormFactors(NamedTuple):
    """What the gradient through SiLU(RMSNorm(x) * scale) is made of, for all steps or for one."""

    unit: Tensor
    inverse: Tensor
    slope: Tensor
    scaled_slope: Tensor
    out: Tensor

    @classmethod
    def of(cls, x: Tensor, scale: Tensor) -> NormFactors:
        """Factors of pre-activations (..., width)."""
        inverse = rms_scale(x)
        unit = x * inverse
        scaled = unit * scale
        gate = torch.sigmoid(scaled)
        out = scaled.mul_(gate)
        slope = torch.addcmul(gate, out, 1.0 - gate)
        return cls(unit, inverse, slope, slope * scale, out)

    def grad(self, grad: Tensor, out: Tensor) -> Tensor:
        """Gradient of one step's pre-activations from that of its outputs, written to `out`."""
        torch.mul(grad, self.scaled_slope, out=out)
        along = torch.linalg.vecdot(out, self.unit).unsqueeze(-1)
        return out.addcmul_(self.unit, along, value=-1.0 / out.shape[-1]).mul_(self.inverse)

    def grad_scale(self, grad: Tensor) -> Tensor:
        """Gradient of the scale from that of all outputs (T, B, ...)."""
        return (grad * self.slope).mul_(self.unit).sum((0, 1))


class Grads(NamedTuple):
    """Gradients of every step: of the three normed layers' outputs (T, B, ...), then of their
    pre-activations, of the posterior's logits, and of the gates (3, blocks, T, B, d).
    """

    hidden: Tensor
    inner: Tensor
    branch: Tensor
    pre_hidden: Tensor
    pre_inner: Tensor
    pre_branch: Tensor
    logit: Tensor
    gates: Tensor


def scan_backward(
    trace: Trace,
    factors: tuple[NormFactors, NormFactors, NormFactors],
    weights: tuple[CoreWeights, PostWeights],
    keep: Tensor,
    grad_deter: Tensor,
    grad_probs: Tensor,
) -> Grads:
    """Walk the steps backwards, carrying the gradients of deter and stoch.

    Args:
        factors: Of the posterior's hidden layer, of the core's inner layer and of its two branches.
        keep: (T, B, 1). grad_deter: (T, B, D).
        grad_probs: (T, B, C, S) of the mixed probabilities and, because the estimator is
            straight-through, of the one-hots.
    """
    core, post = CoreWeights(*map(_back, weights[0])), PostWeights(*map(_back, weights[1]))
    by_gates, stay = gate_factors(trace.gates, trace.old)
    outs = [torch.empty_like(each.out) for each in (*factors, *factors)]
    grads = Grads._make([*outs, torch.empty_like(trace.chosen), by_gates])
    hidden, inner, branch = (
        [NormFactors(*step) for step in zip(*each, strict=True)] for each in factors
    )
    to_deter, to_probs = torch.zeros_like(grad_deter[0]), torch.zeros_like(trace.soft[0])
    recurrent, gates = core.recurrent, core.gates.flatten(0, 1)
    for step in reversed(range(len(keep))):
        through, soft = to_probs.add_(grad_probs[step]).mul_(1.0 - UNIMIX), trace.soft[step]
        logit = torch.ops.aten._softmax_backward_data(through, soft, 1, soft.dtype).flatten(1)
        grads.logit[step] = logit
        back = torch.mm(logit, post.logit, out=grads.hidden[step])
        back = hidden[step].grad(back, grads.pre_hidden[step])
        to_deter = torch.addmm(to_deter.add_(grad_deter[step]), back, post.hidden)
        spread = blocks_of(to_deter)
        of_gates = by_gates[:, :, step].mul_(spread)
        back = torch.bmm(of_gates.flatten(0, 1), gates).unflatten(0, (3, BLOCKS))
        torch.sum(back, 0, out=blocks_of(grads.inner[step]))
        back = inner[step].grad(grads.inner[step], grads.pre_inner[step])
        spread.mul_(stay[:, step]).add_(torch.bmm(blocks_of(back), recurrent))
        torch.mm(back, core.shared, out=grads.branch[step].flatten(1))
        branch[step].grad(grads.branch[step], grads.pre_branch[step])
        of_deter, of_stoch = grads.pre_branch[step].unbind(1)
        to_deter.addmm_(of_deter, core.deter).mul_(keep[step])
        to_probs = torch.mm(of_stoch, core.stoch).mul_(keep[step]).view_as(soft)
    return grads


def weight_grads(
    trace: Trace, factors: tuple[NormFactors, NormFactors, NormFactors], grads: Grads
) -> tuple[CoreWeights, PostWeights]:
    """Gradients of all weights: one matrix product each, over the rows of all steps."""
    hidden, inner, branch = factors
    gates = grads.gates.flatten(2, 3)
    to_deter, to_stoch = grads.pre_branch.unbind(2)
    core = CoreWeights(
        deter=_outer(trace.old, to_deter),
        deter_bias=to_deter.sum((0, 1)),
        stoch=_outer(trace.chosen, to_stoch),
        stoch_bias=to_stoch.sum((0, 1)),
        branch_scale=branch.grad_scale(grads.branch),
        shared=_outer(branch.out.flatten(2), grads.pre_inner),
        recurrent=torch.bmm(_rows(trace.old).mT, _rows(grads.pre_inner)),
        scale=inner.grad_scale(grads.inner),
        gates=torch.stack([torch.bmm(_rows(inner.out).mT, gate) for gate in gates]),
        gates_bias=gates.sum(2, keepdim=True),
    )
    post = PostWeights(
        hidden=_outer(trace.deter, grads.pre_hidden),
        scale=hidden.grad_scale(grads.hidden),
        logit=_outer(hidden.out, grads.logit),
        logit_bias=grads.logit.sum((0, 1)),
    )
    return core, post


def _back(weight: Tensor) -> Tensor:
    """The map that takes gradients back through a weight; vectors stay."""
    return weight.mT if weight.dim() > 1 else weight


def _outer(inputs: Tensor, grad: Tensor) -> Tensor:
    """(inputs, outputs) gradient of a weight from (T, B, inputs) and (T, B, outputs)."""
    return inputs.flatten(0, 1).t() @ grad.flatten(0, 1)


def _rows(x: Tensor) -> Tensor:
    """(T, B, D) -> (blocks, T * B, d)."""
    return blocks_of(x.flatten(0, 1))


class Scan(Function):
    """`scan_forward` with gradients for from_embed, action and every weight; none for the state."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        inputs: tuple[Tensor, ...],
        shape: tuple[int, int],
        from_embed: Tensor,
        action: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Deter, one-hots and mixed probabilities of all steps.

        Args:
            inputs: keep, deter, stoch and noise of `scan_forward`, which need no gradient.
            weights: Those of `CoreWeights`, then those of `PostWeights`.
        """
        split = len(CoreWeights._fields)
        core, post = CoreWeights(*weights[:split]), PostWeights(*weights[split:])
        stochs, probs, trace = scan_forward((from_embed, action, *inputs), core, post, shape)
        ctx.save_for_backward(inputs[0], *trace, *weights)
        return trace.deter, stochs, probs

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_deter: Tensor,
        grad_stoch: Tensor,
        grad_probs: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """Gradients of `forward`'s arguments."""
        keep, *saved = ctx.saved_tensors
        first, second = len(Trace._fields), len(Trace._fields) + len(CoreWeights._fields)
        trace = Trace(*saved[:first])
        core, post = CoreWeights(*saved[first:second]), PostWeights(*saved[second:])
        factors = (
            NormFactors.of(trace.post, post.scale),
            NormFactors.of(trace.core, core.scale),
            NormFactors.of(trace.branch, core.branch_scale),
        )
        through = grad_probs + grad_stoch.view_as(grad_probs)
        grads = scan_backward(trace, factors, (core, post), keep, grad_deter, through)
        of_core, of_post = weight_grads(trace, factors, grads)
        return None, None, grads.pre_hidden, grads.pre_inner, *of_core, *of_post
