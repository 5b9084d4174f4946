"""Empowerment of options: can one tell from where a segment led which goal code was pursued?

The variational bound on I(code; end | start), with a manager's codes as options. Nothing is
imagined for it: the rollouts that train manager and worker carry codes, starts and ends.

As in `empowerment`, the decoder reads `stoch` and never `deter`.

Source: Gregor et al. 2016 (arXiv 1611.07507), variational intrinsic control with given options.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dreamer.behavior.ppo import weighted_mean
from dreamer.intrinsic.action_sequence import DECODER_UNIMIX
from dreamer.intrinsic.empowerment import LAYERS, EmpowermentConfig
from dreamer.nn.distributions import OneHotCode
from dreamer.nn.layers import MLP, Linear
from dreamer.types import Losses, Metrics
from dreamer.world_model.model import init
from dreamer.world_model.rssm import Size


class OptionEmpowerment(nn.Module):
    """Decoder of goal codes from the two ends of a segment, and the reward that it pays.

    It owns no optimiser and sends no gradient anywhere else.

    Args:
        rssm_size: Widths of the latents. code_groups, code_classes: L and C of the codes.
        units: Width of the decoder. config: What is tuned. seed: Of the initial weights.
    """

    def __init__(
        self,
        rssm_size: Size,
        code_groups: int,
        code_classes: int,
        units: int,
        config: EmpowermentConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.groups, self.classes = config, code_groups, code_classes
        generator = init(seed, "empowerment/option")
        stoch = rssm_size.groups * rssm_size.classes
        self.mlp = MLP(2 * stoch, units, LAYERS, generator)
        # Zero: every code is as likely as any other until something is known.
        self.out = Linear(units, code_groups * code_classes, generator, outscale=0.0)

    def forward(self, start_stoch: Tensor, end_stoch: Tensor) -> OneHotCode:
        """Two (M, Z) -> distribution over codes (M, C * L)."""
        ends = torch.cat([start_stoch.detach(), end_stoch.detach()], -1)
        return OneHotCode(self.out(self.mlp(ends)), self.classes, DECODER_UNIMIX)

    def losses(
        self, start_stoch: Tensor, end_stoch: Tensor, code: Tensor, weight: Tensor
    ) -> tuple[Losses, Metrics]:
        """Scalar loss of the decoder.

        Args:
            start_stoch, end_stoch: (M, Z) at both ends of each segment.
            code: (M, C * L) class-major one-hots. weight: (M,) of each segment, such as the
                chance that the episode has not ended.
        """
        log_q = self(start_stoch, end_stoch).log_prob(code.detach())
        nll = -weighted_mean(log_q, weight.detach())
        return {"empowerment_q": nll}, {"empowerment/decoder_nll": nll.detach()}

    @torch.no_grad()
    def reward(
        self, start_stoch: Tensor, end_stoch: Tensor, code: Tensor, log_prob: Tensor
    ) -> Tensor:
        """(M,) bound on what the segment says of its code, as a share in [-1, 1] of `ceiling`.

        Args:
            start_stoch, end_stoch: (M, Z). code: (M, C * L). log_prob: (M,) of the manager.
        """
        gain = self(start_stoch, end_stoch).log_prob(code) - log_prob
        return (gain / self.ceiling()).clamp(-1.0, 1.0)

    def ceiling(self) -> float:
        """L ln C nats, the most that a code can carry."""
        return self.groups * math.log(self.classes)
