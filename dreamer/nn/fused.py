"""Hand-written backward passes of the two patterns that dominate an update.

Autograd would run about three times as many kernels for them. Each has a plain twin in `layers` or
`distributions` that the tests compare it with in float64. Gradients of gradients are not available.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

NORM_EPS = 1e-4


def rms_scale(x: Tensor) -> Tensor:
    """(..., width) -> (..., 1) reciprocal root mean square."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(_epsilon(x.dtype, x.device), norm, norm, value=1.0 / x.shape[-1]).rsqrt_()


@cache
def _epsilon(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((), NORM_EPS, dtype=dtype, device=device)


def norm_silu(x: Tensor, scale: Tensor, out: Tensor | None = None) -> Tensor:
    """SiLU(RMSNorm(x) * scale) without a graph, the same kernels as the functions below."""
    scaled = torch.mul(x, rms_scale(x), out=out).mul_(scale)
    return torch.nn.functional.silu(scaled, inplace=True)


class NormSiLU(Function):
    """SiLU(RMSNorm(x) * scale) over the last dimension of (M, width)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN401
        """(M, width), (width,) -> (M, width)."""
        inverse = rms_scale(x)
        unit = x * inverse
        ctx.save_for_backward(inverse, unit, scale)
        return torch.nn.functional.silu(unit * scale, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Gradients of x and scale."""
        return norm_silu_backward(grad, *ctx.saved_tensors)


def norm_silu_backward(
    grad: Tensor, inverse: Tensor, unit: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Backward of SiLU(unit * scale) with unit = x * inverse; gradients of x and scale."""
    scaled = unit * scale
    # In place as far as possible: at these sizes new memory costs more than the arithmetic.
    grad = torch.ops.aten.silu_backward.grad_input(grad, scaled, grad_input=scaled)
    return norm_backward(grad, inverse, unit, scale)


def norm_backward(
    grad_x: Tensor, inverse: Tensor, unit: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Backward of unit * scale, unit = x * inverse; gradients of x, over `grad_x`, and scale."""
    product = grad_x * unit
    # d unit / d x projects out the direction of x itself.
    along = (product @ scale).unsqueeze(-1)
    grad_x.mul_(scale).addcmul_(unit, along, value=-1.0 / scale.shape[0]).mul_(inverse)
    return grad_x, product.sum(0)


class Norm(Function):
    """RMSNorm(x) * scale over the last dimension of (M, width)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN401
        """(M, width), (width,) -> (M, width)."""
        inverse = rms_scale(x)
        unit = x * inverse
        ctx.save_for_backward(inverse, unit, scale)
        return unit * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Gradients of x and scale."""
        return norm_backward(grad.clone(), *ctx.saved_tensors)


class NormedLinearSiLU(Function):
    """SiLU(RMSNorm(x @ weight.T + bias) * scale)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:  # noqa: ANN401
        """(M, inputs), (outputs, inputs), (outputs,), (outputs,) -> (M, outputs)."""
        hidden = torch.addmm(bias, x, weight.t())
        inverse = rms_scale(hidden)
        unit = hidden.mul_(inverse)
        ctx.save_for_backward(x, weight, inverse, unit, scale)
        return torch.nn.functional.silu(unit * scale, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of x (if wanted), weight, bias and scale."""
        x, weight, inverse, unit, scale = ctx.saved_tensors
        grad_hidden, grad_scale = norm_silu_backward(grad, inverse, unit, scale)
        grad_x = grad_hidden @ weight if ctx.needs_input_grad[0] else None
        return grad_x, grad_hidden.t() @ x, grad_hidden.sum(0), grad_scale


class SparseCrossEntropy(Function):
    """-sum_k weight_k * log softmax(logit)[index_k]: cross-entropy against a few target bins."""

    @staticmethod
    def forward(ctx: Any, logit: Tensor, index: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401
        """(M, bins), (M, K) int64, (M, K) -> (M,)."""
        log_probs = torch.log_softmax(logit, -1)
        ctx.save_for_backward(log_probs, index, weight)
        return -(log_probs.gather(-1, index) * weight).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """Gradient of the logits: softmax times the total weight, minus the targets."""
        log_probs, index, weight = ctx.saved_tensors
        mass = grad.unsqueeze(-1) * weight
        grad_logit = log_probs.exp().mul_(mass.sum(-1, keepdim=True))
        return grad_logit.scatter_add_(-1, index, -mass), None, None
