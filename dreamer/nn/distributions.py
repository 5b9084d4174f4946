"""Output distributions: what heads predict, with loss, mode, log-probability, entropy and KL.

Discrete latents are kept class-major, (..., C, S) in memory: a softmax over a trailing dimension of
four classes is about twenty times slower on CPU than one over the dimension before the last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dreamer.nn.fused import SparseCrossEntropy
from dreamer.nn.math import NUM_BINS, symexp, symexp_bins, symlog, two_hot


def full_precision(x: Tensor) -> Tensor:
    """Float32 of anything shorter; float64 stays what it is."""
    return x if x.dtype == torch.float64 else x.float()


def mix_uniform(logit: Tensor, unimix: float, dim: int) -> Tensor:
    """Probabilities (1 - unimix) * softmax(logit) + unimix / classes along `dim`."""
    probs = functional.softmax(logit, dim)
    if unimix == 0.0:
        return probs
    return probs * (1.0 - unimix) + unimix / logit.shape[dim]


@torch.no_grad()
def sample_one_hot(probs: Tensor, noise: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    """Inverse-CDF sample of one-hot vectors, one uniform per categorical.

    Args:
        probs: (...) probabilities along `dim`.
        noise: Shape of `probs` without `dim`, uniform in [0, 1).
        dim: Class dimension.
        out: Memory for the result, shaped like `probs`; none inside torch.compile.

    Returns:
        One-hot tensor shaped like `probs`, no gradient.
    """
    cdf, rest = probs.cumsum(dim), probs.shape[dim] - 1
    # Scaling by the total keeps rounding of the sum from leaving a vector without a one.
    total = cdf.narrow(dim, rest, 1)
    if torch.compiler.is_compiling():  # it finds the memory by itself
        beyond = (cdf > noise.unsqueeze(dim) * total).to(probs.dtype)
        return beyond.diff(dim=dim, prepend=torch.zeros_like(total))
    out = torch.empty_like(probs) if out is None else out
    above = torch.gt(cdf, noise.unsqueeze(dim) * total, out=torch.empty_like(cdf))
    out.narrow(dim, 0, 1).copy_(above.narrow(dim, 0, 1))
    torch.sub(above.narrow(dim, 1, rest), above.narrow(dim, 0, rest), out=out.narrow(dim, 1, rest))
    return out


def straight_through(sample: Tensor, probs: Tensor) -> Tensor:
    """The sample forward, the gradient of the (mixed) probabilities backward."""
    return sample + (probs - probs.detach())


class TwoHotCode(NamedTuple):
    """Two-hot codes of K targets per position: bins (..., 2 K) int64, weight (..., 2 K)."""

    bins: Tensor
    weight: Tensor

    @classmethod
    def of(cls, *targets: Tensor) -> TwoHotCode:
        """Encode detached raw targets (...), all of one shape."""
        codes = [two_hot(target.detach()) for target in targets]
        bins = torch.stack([i for low, high, _ in codes for i in (low, high)], -1)
        weight = torch.stack([w for _, _, share in codes for w in (1.0 - share, share)], -1)
        return cls(bins, weight)


class SymexpTwoHot:
    """A distribution over real numbers: 255 symexp-spaced bins, two-hot targets in raw space.

    Args:
        logit: (..., 255).

    Source: arXiv 2301.04104 v2, "Robust predictions".
    """

    def __init__(self, logit: Tensor) -> None:
        self.logit = full_precision(logit)

    def mean(self) -> Tensor:
        """(...) expectation; mirrored bins are paired so that zero logits give exactly 0."""
        probs = functional.softmax(self.logit, -1)
        half = NUM_BINS // 2
        upper, lower = probs[..., half + 1 :], probs[..., :half].flip(-1)
        return (upper - lower) @ symexp_bins(probs.device)[half + 1 :]

    def loss(self, *targets: Tensor) -> Tensor:
        """(...) sum of the cross-entropies against two-hot codes of detached raw targets (...)."""
        return self.code_loss(TwoHotCode.of(*targets))

    def code_loss(self, code: TwoHotCode) -> Tensor:
        """(...) sum of the cross-entropies against targets that are encoded already."""
        flat, per_row = self.logit.reshape(-1, NUM_BINS), code.bins.shape[-1]
        bins, weight = code.bins.view(-1, per_row), code.weight.view(-1, per_row)
        if torch.compiler.is_compiling():
            # Dense targets are made in registers, and their gradient needs no scattering.
            numbers = torch.arange(NUM_BINS, device=bins.device)
            hits = (bins.unsqueeze(-1) == numbers) * weight.unsqueeze(-1)
            loss = -(functional.log_softmax(flat, -1) * hits.sum(-2)).sum(-1)
            return loss.view(self.logit.shape[:-1])
        return SparseCrossEntropy.apply(flat, bins, weight).view(self.logit.shape[:-1])


class ReturnsCode(NamedTuple):
    """Targets of `StreamReturns`, K per position: of the task the fields of a `TwoHotCode`,
    (..., 2 K), of the S' other returns their symlog, (..., S', K).
    """

    bins: Tensor
    weight: Tensor
    others: Tensor

    @classmethod
    def of(cls, task: int, *targets: Tensor) -> ReturnsCode:
        """Encode detached raw targets (..., task + S'), `task` being 1 or 0."""
        code = TwoHotCode.of(*(each[..., :task] for each in targets))
        others = torch.stack([symlog(each[..., task:].detach()) for each in targets], -1)
        return cls(code.bins.flatten(-2), code.weight.flatten(-2), others)


class StreamReturns:
    """Returns of a task and of other reward streams.

    Those of a task may be of any size and shape, which takes 255 bins. Those of rewards that were
    brought to a common scale are of a known size: a mean in symlog space by squared error serves,
    at a hundredth of the cost.

    Args:
        raw: (..., 255 * task + S'). task: 1, or 0 where nothing is learned of the task.
    """

    def __init__(self, raw: Tensor, task: int) -> None:
        width = task * NUM_BINS
        self.task = SymexpTwoHot(raw[..., :width]) if task else None
        self.others = full_precision(raw[..., width:])

    def mean(self) -> Tensor:
        """(..., task + S') expectations, the task's first."""
        others = symexp(self.others)
        if self.task is None:
            return others
        return torch.cat([self.task.mean().unsqueeze(-1), others], -1)

    def loss(self, code: ReturnsCode) -> Tensor:
        """(...) cross-entropies of the task plus half the squared errors of the others."""
        error = (self.others.unsqueeze(-1) - code.others).square().sum((-2, -1))
        if self.task is None:
            return 0.5 * error
        fit = self.task.code_loss(TwoHotCode(code.bins, code.weight))
        return fit + 0.5 * error if self.others.shape[-1] else fit


class Bernoulli:
    """Binary outcome given by a logit (...)."""

    def __init__(self, logit: Tensor) -> None:
        self.logit = full_precision(logit)

    def mean(self) -> Tensor:
        """(...) probability of 1."""
        return torch.sigmoid(self.logit)

    def loss(self, target: Tensor) -> Tensor:
        """(...) binary cross-entropy; targets may be soft."""
        return functional.binary_cross_entropy_with_logits(self.logit, target, reduction="none")


class OneHotActions:
    """One or several independent categoricals as concatenated one-hots, with a uniform mixture.

    Args:
        logit: (..., A) concatenated logits.
        sizes: Classes of each categorical; they sum to A.
        unimix: Share of the uniform distribution (1 % in the paper).
    """

    def __init__(self, logit: Tensor, sizes: tuple[int, ...], unimix: float) -> None:
        # Views of class-major memory, because a softmax over a short last dimension is slow.
        parts = full_precision(logit).movedim(-1, 0).split(sizes)
        self.probs = [mix_uniform(part, unimix, 0).movedim(0, -1) for part in parts]

    def sample(self, noise: Tensor) -> Tensor:
        """(..., A) one-hots from (..., len(sizes)) uniform noise."""
        parts = [sample_one_hot(p, noise[..., i], -1) for i, p in enumerate(self.probs)]
        return torch.cat(parts, -1)

    def mode(self) -> Tensor:
        """(..., A) most probable choices."""
        parts = [functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype) for p in self.probs]
        return torch.cat(parts, -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """(...) log-probability summed over the choices."""
        parts = action.split([p.shape[-1] for p in self.probs], -1)
        chosen = [(p * a).sum(-1).log() for p, a in zip(self.probs, parts, strict=True)]
        return torch.stack(chosen).sum(0) if len(chosen) > 1 else chosen[0]

    def entropy(self) -> Tensor:
        """(...) entropy in nats summed over the choices."""
        parts = [-(p * p.log()).sum(-1) for p in self.probs]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def max_entropy(self) -> float:
        """Entropy of the uniform choice, for reports."""
        return sum(math.log(p.shape[-1]) for p in self.probs)


class OneHotCode:
    """L independent categoricals of C classes each, with a uniform mixture; memory class-major.

    Args:
        logit: (..., C * L) class-major logits. classes: C. unimix: Share of the uniform
            distribution.
    """

    def __init__(self, logit: Tensor, classes: int, unimix: float) -> None:
        self.probs = mix_uniform(full_precision(logit).unflatten(-1, (classes, -1)), unimix, -2)

    def sample(self, noise: Tensor) -> Tensor:
        """(..., C * L) one-hots from (..., L) uniform noise, no gradient."""
        return sample_one_hot(self.probs.detach(), noise, -2).flatten(-2)

    def mode(self) -> Tensor:
        """(..., C * L) most probable choices; the first class wins a tie."""
        best = (self.probs == self.probs.amax(-2, keepdim=True)).to(self.probs.dtype)
        return (best * (best.cumsum(-2) == 1.0)).flatten(-2)

    def log_prob(self, code: Tensor) -> Tensor:
        """(...) log-probability of (..., C * L) one-hots, summed over the choices."""
        return (self.probs * code.unflatten(-1, self.probs.shape[-2:])).sum(-2).log().sum(-1)

    def entropy(self) -> Tensor:
        """(...) entropy in nats summed over the choices."""
        return -(self.probs * self.probs.log()).sum((-2, -1))

    def max_entropy(self) -> float:
        """L ln C, the entropy of the uniform choice."""
        classes, groups = self.probs.shape[-2:]
        return groups * math.log(classes)


class BoundedNormal:
    """Normal(tanh(mean), 0.9 * sigmoid(std + 2) + 0.1), independent per dimension.

    Samples are neither clipped nor squashed; the environment adapter clips them.

    Args:
        mean, std: (..., A) raw outputs of two linear layers.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.loc = torch.tanh(full_precision(mean))
        self.scale = 0.9 * torch.sigmoid(full_precision(std) + 2.0) + 0.1

    def sample(self, noise: Tensor) -> Tensor:
        """(..., A) from (..., A) standard normal noise."""
        return (self.loc + self.scale * noise).detach()

    def mode(self) -> Tensor:
        """(..., A) means."""
        return self.loc

    def log_prob(self, action: Tensor) -> Tensor:
        """(...) log-density of raw actions summed over dimensions."""
        unit = (action - self.loc) / self.scale
        density = -0.5 * unit.square() - self.scale.log() - 0.5 * math.log(2.0 * math.pi)
        return density.sum(-1)

    def entropy(self) -> Tensor:
        """(...) differential entropy in nats summed over dimensions."""
        return (self.scale.log() + 0.5 * math.log(2.0 * math.pi * math.e)).sum(-1)

    def max_entropy(self) -> float:
        """Entropy at the largest standard deviation, for reports."""
        return self.loc.shape[-1] * 0.5 * math.log(2.0 * math.pi * math.e)


ActionDist = OneHotActions | OneHotCode | BoundedNormal
