"""Fusion: what the senses have to say to each other before they become one embedding.

Every sense is cut into tokens, all tokens attend to each other, and what a token learned from the
others is added to it. Attention begins as concatenation, exactly: the way back starts at zero. So
it costs an agent with one sense nothing, and one with several senses no width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer.nn.attention import AttentionBlock
from dreamer.nn.layers import Linear, RMSNorm, init_weight

LAYERS = 1
POSITION_SCALE = 0.02

Parts = Mapping[str, Tensor]  # modality -> (..., out_dim)
Present = Mapping[str, Tensor]  # modality -> (...) bool


class Sense(NamedTuple):
    """How the code of one modality is cut: `tokens` parts of `width`."""

    tokens: int
    width: int


class AttentionFusion(nn.Module):
    """Codes of several modalities -> one embedding, through attention between their tokens.

    Args:
        senses: Modality -> how its code is cut, in the order of the embedding.
        units: Width of the tokens. generator: Source of the initial weights.
    """

    def __init__(self, senses: Mapping[str, Sense], units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.senses = dict(senses)
        self.enter, self.leave = nn.ModuleDict(), nn.ModuleDict()
        self.place = nn.ParameterDict()  # what kind of token it is, and which of its kind
        for name, sense in self.senses.items():
            self.enter[name] = Linear(sense.width, units, generator)
            self.leave[name] = Linear(units, sense.width, generator, outscale=0.0)
            place = torch.empty(sense.tokens, units)
            init_weight(place, 1, POSITION_SCALE, generator)
            self.place[name] = nn.Parameter(place)
        self.blocks = nn.ModuleList(AttentionBlock(units, generator) for _ in range(LAYERS))
        self.norm = RMSNorm(units)

    def forward(self, parts: Parts, present: Present | None = None) -> Tensor:
        """Modality -> (..., out_dim) to (..., sum of all out_dim).

        Args:
            parts: Codes of all modalities.
            present: Modality -> (...) whether it was sensed; what was not is zeros in the embedding
                and heard by no other. None: all were.
        """
        lead = next(iter(parts.values())).shape[:-1]
        codes = {name: parts[name].reshape(-1, *sense) for name, sense in self.senses.items()}
        tokens = [self.enter[name](code) + self.place[name] for name, code in codes.items()]
        mask, marks = None, None
        if present is not None:
            marks = {name: present[name].reshape(-1, 1) for name in codes}
            each = [marks[name].expand(-1, sense.tokens) for name, sense in self.senses.items()]
            mask = torch.cat(each, 1)[:, None, None]
        x = torch.cat(tokens, 1)
        for block in self.blocks:
            x = block(x, mask)
        sizes = [sense.tokens for sense in self.senses.values()]
        learned = self.norm(x).split(sizes, 1)
        fused = []
        for (name, code), extra in zip(codes.items(), learned, strict=True):
            whole = (code + self.leave[name](extra)).flatten(1)
            fused.append(whole if marks is None else whole * marks[name])
        return torch.cat(fused, -1).view(*lead, -1)


def concatenate(parts: Parts, present: Present | None = None) -> Tensor:
    """Codes one after the other; arguments as in `AttentionFusion.forward`."""
    if present is None:
        return torch.cat(list(parts.values()), -1)
    return torch.cat([code * present[name].unsqueeze(-1) for name, code in parts.items()], -1)
