"""Words of texts: a byte-level tokenizer trained on instructions, or any file of one.

Every byte is a token of its own, so that nothing is unknown; the words of common instructions are
one token each. Training takes milliseconds and gives the same bytes every time, so that the words
of the default tokenizer live here and no file has to be found.

Source: Sennrich et al. 2016 (arXiv 1508.07909), byte-pair encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamer.modalities import libraries
from dreamer.types import ConfigError

PAD = 0  # after a text's end
VOCABULARY = 512
# What instructions of MiniGrid, BabyAI and the tasks of this project are made of.
WORDS = """
a after an and at avoid ball behind blue box by carefully close cyan door down drop east end fetch
find first for from front get go goal green grey hallway hold in is it key lava left matching move
must near next no north not object of on one open opening orange pick pink place press purple push
put reach red right room rooms second south square stay step that the then third to touch toward
traverse triangle turn unlock until up use walk wall west where white with without yellow you your
"""


class Words:
    """Texts as rows of token numbers, each text taken apart once.

    Args:
        tokenizer: Of the `tokenizers` library. longest: Tokens of a row.
        where: Parameter that errors name.
    """

    def __init__(self, tokenizer: Any, longest: int, where: str) -> None:  # noqa: ANN401
        self.tokenizer, self.longest, self.where = tokenizer, longest, where
        self._known: dict[bytes, list[int]] = {}

    @property
    def size(self) -> int:
        """Numbers of tokens, padding included: 0 to size - 1."""
        return int(self.tokenizer.get_vocab_size()) + 1

    def rows(self, texts: Tensor) -> Tensor:
        """(M, bytes) UTF-8, zeros after the end -> (M, longest) int64, `PAD` after the end.

        Raises:
            ConfigError: A text has more tokens than a row.
        """
        rows = [self._row(bytes(text)) for text in texts.cpu().numpy()]
        return torch.tensor(rows, dtype=torch.int64).to(texts.device)

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say up to the first `PAD`."""
        ids = [token - 1 for token in tokens]
        said = ids[: ids.index(PAD - 1)] if PAD - 1 in ids else ids
        return str(self.tokenizer.decode(said)).removeprefix(" ")

    def _row(self, code: bytes) -> list[int]:
        if code not in self._known:
            text = code.rstrip(b"\0").decode(errors="replace")
            ids = [number + 1 for number in self.tokenizer.encode(text).ids]
            if len(ids) > self.longest:
                found = f"{len(ids)} tokens in {text!r}"
                raise ConfigError(self.where, self.longest, f"more, for there are {found}")
            self._known[code] = ids + [PAD] * (self.longest - len(ids))
        return self._known[code]


def own_tokenizer() -> Any:  # noqa: ANN401
    """The default: single bytes, and `WORDS`."""
    return train_tokenizer(WORDS.split(), VOCABULARY)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:  # noqa: ANN401
    """Byte-pair encoding of texts; `.save(path)` writes it, and `load_tokenizer` reads it.

    Args:
        texts: To learn from. vocabulary: Most tokens, the 256 bytes among them.
    """
    library = libraries.tokenizers()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: str, where: str) -> Any:  # noqa: ANN401
    """Read a `tokenizer.json`.

    Raises:
        ConfigError: There is none.
    """
    if not Path(path).is_file():
        raise ConfigError(where, path, "own, or a tokenizer.json of the library `tokenizers`")
    library = libraries.tokenizers()
    try:
        return library.Tokenizer.from_file(path)
    except Exception as error:  # the library raises nothing more special
        raise ConfigError(where, path, f"a tokenizer.json that can be read ({error})") from error
