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

from dreamer.modalities.presence import Present
from dreamer.nn.attention import AttentionBlock
from dreamer.nn.layers import Linear, RMSNorm, init_weight

LAYERS = 1
POSITION_SCALE = 0.02

Parts = Mapping[str, Tensor]  # modality -> (..., out_dim)


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
            present: Modality -> (...) whether it counts; one that does not is zeros in the
                embedding and heard by no other. None: all do.
        """
        lead = next(iter(parts.values())).shape[:-1]
        codes = self._codes(parts)
        x, mask = self._tokens(codes), self._mask(present)
        for block in self.blocks:
            x = block(x, mask)
        sizes = [sense.tokens for sense in self.senses.values()]
        learned = self.norm(x).split(sizes, 1)
        fused = []
        for (name, code), extra in zip(codes.items(), learned, strict=True):
            whole = (code + self.leave[name](extra)).flatten(1)
            fused.append(whole if present is None else whole * present[name].reshape(-1, 1))
        return torch.cat(fused, -1).view(*lead, -1)

    @torch.no_grad()
    def weights(self, parts: Parts, present: Present | None = None) -> Tensor:
        """How much every token hears of every other: (..., layers, heads, n, n), rows sum to one.

        Args: As of `forward`; tokens follow each other as `senses` do.
        """
        lead = next(iter(parts.values())).shape[:-1]
        x, mask = self._tokens(self._codes(parts)), self._mask(present)
        weights = []
        for block in self.blocks:
            assert isinstance(block, AttentionBlock)
            weights.append(block.weights(x, mask))
            x = block(x, mask)
        stacked = torch.stack(weights, 1)
        return stacked.view(*lead, *stacked.shape[1:])

    def _codes(self, parts: Parts) -> dict[str, Tensor]:
        """Modality -> (M, tokens, width)."""
        return {name: parts[name].reshape(-1, *sense) for name, sense in self.senses.items()}

    def _tokens(self, codes: Mapping[str, Tensor]) -> Tensor:
        """(M, n, units), of all senses one after the other."""
        return torch.cat(
            [self.enter[name](code) + self.place[name] for name, code in codes.items()], 1
        )

    def _mask(self, present: Present | None) -> Tensor | None:
        """(M, 1, 1, n): which tokens are heard; None if all are.

        Where nothing counts all are heard, because attention to nothing is NaN; what comes of it
        is not in the embedding.
        """
        if present is None:
            return None
        counts = {name: sense.tokens for name, sense in self.senses.items()}
        each = [present[name].reshape(-1, 1).expand(-1, count) for name, count in counts.items()]
        heard = torch.cat(each, 1)
        return (heard | ~heard.any(1, keepdim=True))[:, None, None]


def concatenate(parts: Parts, present: Present | None = None) -> Tensor:
    """Codes one after the other; arguments as in `AttentionFusion.forward`."""
    if present is None:
        return torch.cat(list(parts.values()), -1)
    return torch.cat([code * present[name].unsqueeze(-1) for name, code in parts.items()], -1)
