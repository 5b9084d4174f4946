"""Text: a small Transformer over tokens, or any encoder of Hugging Face; tokens are predicted back.

Instructions repeat: every different text of a batch is taken apart and encoded once, whatever the
number of rows that hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.modalities.hugging_face import HuggingFaceReader
from dreamer.modalities.tokenizer import PAD, Words, load_tokenizer, own_tokenizer
from dreamer.nn.attention import AttentionBlock
from dreamer.nn.layers import MLP, Linear, init_weight
from dreamer.types import ConfigError, ObsSpec, SizeLike

LONGEST = 48  # tokens
LAYERS = 2
READERS = 4  # tokens that a text is summed up in
DECODER_LAYERS = 3


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How texts are read.

    Attributes:
        model: `own`, or name or folder of a Hugging Face encoder.
        finetune: Whether that one learns too; its rate is the world model's.
        tokenizer: What the own model reads and the decoder predicts: `own`, or a `tokenizer.json`.
    """

    model: str
    finetune: bool
    tokenizer: str

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        if not self.model:
            raise ConfigError("model", self.model, "own, or name or folder of a model")
        if self.finetune and self.model == "own":
            raise ConfigError("finetune", True, "false: the own model learns in any case")
        if not self.tokenizer:
            raise ConfigError("tokenizer", self.tokenizer, "own, or a file")


class TextEncoder(nn.Module):
    """Each text key -> `READERS` tokens that have read it.

    Args:
        specs: Keys of this modality. size: Widths. generator: Source of the initial weights.
        config: What is tuned.

    Raises:
        ConfigError: A model or tokenizer cannot be found.
    """

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        generator: torch.Generator,
        config: TextConfig,
    ) -> None:
        super().__init__()
        self.keys = sorted(specs)
        reader: OwnReader | HuggingFaceReader
        if config.model == "own":
            reader = OwnReader(words_of(config.tokenizer), size.units, generator)
        else:
            reader = HuggingFaceReader(config.model, config.finetune, size.units, generator)
        self.reader = reader
        self.query = nn.Parameter(torch.empty(READERS, size.units))
        init_weight(self.query.data, 1, 1.0, generator)
        self.block = AttentionBlock(size.units, generator)
        self.tokens = READERS * len(self.keys)
        self.out_dim = size.units * self.tokens

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """key -> (..., bytes) uint8 to (..., out_dim)."""
        return torch.cat([self._read(obs[key]) for key in self.keys], -1)

    def _read(self, text: Tensor) -> Tensor:
        different, which = torch.unique(text.flatten(0, -2), dim=0, return_inverse=True)
        tokens, present = self.reader(different)
        query = self.query.expand(len(tokens), -1, -1)
        heard = functional.pad(present, (READERS, 0), value=True)[:, None, None]
        read = self.block(torch.cat([query, tokens], 1), heard)[:, :READERS].flatten(1)
        return read[which].view(*text.shape[:-1], -1)


class OwnReader(nn.Module):
    """Transformer of two layers on the tokens of the project's own tokenizer."""

    def __init__(self, words: Words, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.words = words
        self.embedding = nn.Parameter(torch.empty(words.size, units))
        self.place = nn.Parameter(torch.empty(words.longest, units))
        init_weight(self.embedding.data, 1, 1.0, generator)
        init_weight(self.place.data, 1, 0.1, generator)
        self.blocks = nn.ModuleList(AttentionBlock(units, generator) for _ in range(LAYERS))

    def forward(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """(M, bytes) -> (M, n, units) and (M, n) bool; n is the longest text and its end."""
        ids = self.words.rows(texts)
        count = (ids != PAD).sum(1)
        ids = ids[:, : min(int(count.max()) + 1, ids.shape[1])]
        # The end is read too, so that of the empty text there is something to hear.
        present = torch.arange(ids.shape[1], device=ids.device) <= count[:, None]
        x = self.embedding[ids] + self.place[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, present[:, None, None])
        return x, present


class TextDecoder(nn.Module):
    """Feature -> the tokens of every text key; cross-entropy summed up to the end of the text."""

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        feat_dim: int,
        generator: torch.Generator,
        config: TextConfig,
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        self.words = words_of(config.tokenizer)
        self.mlp = MLP(feat_dim, size.units, DECODER_LAYERS, generator)
        self.places = nn.ModuleDict(
            {
                key: Linear(size.units, self.words.longest * size.units, generator)
                for key in self.specs
            }
        )
        self.out = Linear(size.units, self.words.size, generator)

    def forward(self, feat: Tensor, most: int | None = None) -> dict[str, Tensor]:
        """(..., F) -> key -> (..., n, vocabulary) logits of the first `most` tokens, or of all."""
        hidden = self.mlp(feat)
        most = most or self.words.longest
        predicted = {}
        for key in self.specs:
            place = self.places[key]
            assert isinstance(place, Linear)
            width = hidden.shape[-1] * most
            each = functional.linear(hidden, place.weight[:width], place.bias[:width])
            predicted[key] = self.out(functional.silu(each.unflatten(-1, (most, -1))))
        return predicted

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """key -> (...) cross-entropy of all tokens and of the text's end."""
        return {key: self._loss(feat, key, obs[key]) for key in self.specs}

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """key -> (..., bytes) uint8, cut where the observation has no room."""
        decoded = {}
        for key, logits in self(feat).items():
            tokens, room = logits.argmax(-1), self.specs[key].shape[0]
            rows = [self._bytes(row, room) for row in tokens.flatten(0, -2).tolist()]
            text = torch.tensor(rows, dtype=torch.uint8, device=feat.device)
            decoded[key] = text.view(*feat.shape[:-1], room)
        return decoded

    def _loss(self, feat: Tensor, key: str, text: Tensor) -> Tensor:
        different, which = torch.unique(text.flatten(0, -2), dim=0, return_inverse=True)
        rows = self.words.rows(different)
        count = (rows != PAD).sum(1)
        most = min(int(count.max()) + 1, self.words.longest)
        counted = torch.arange(most, device=text.device) <= count[:, None]
        logits = self(feat, most)[key].flatten(0, -3)
        loss = functional.cross_entropy(
            logits.transpose(1, 2), rows[which][:, :most], reduction="none"
        )
        return (loss * counted[which]).sum(-1).view(feat.shape[:-1])

    def _bytes(self, tokens: list[int], room: int) -> list[int]:
        code = self.words.text(tokens).encode()[:room]
        return [*code, *bytes(room - len(code))]


def words_of(tokenizer: str) -> Words:
    """The own tokenizer, or that of a file."""
    made = (
        own_tokenizer()
        if tokenizer == "own"
        else load_tokenizer(tokenizer, "world_model.text.tokenizer")
    )
    return Words(made, LONGEST, "tokens of a text")
