"""Text encoders of Hugging Face, by name or folder, as readers of instructions."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dreamer.modalities import libraries
from dreamer.nn.layers import Linear
from dreamer.types import ConfigError

KEY = "world_model.text.model"


class HuggingFaceReader(nn.Module):
    """Last hidden states of a pretrained encoder, projected to the width of the agent.

    Args:
        name: Name or folder of model and tokenizer.
        finetune: Whether it learns; else its weights stay as they are, and no gradient is made.
        units: Width. generator: Of the projection's weights.

    Raises:
        ConfigError: There is no such model, it is no encoder of texts, its tokenizer is missing or
            does not belong to it, or the library is missing.
    """

    def __init__(self, name: str, finetune: bool, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.name, self.finetune = name, finetune
        self.model, self.tokenizer = _load(name, generator.initial_seed())
        self.model.eval()  # dropout would need noise of its own
        self.model.requires_grad_(finetune)
        self.project = Linear(self.model.config.hidden_size, units, generator)
        # There is something to read in the empty text, be it the padding.
        self.nothing = "" if self.tokenizer("")["input_ids"] else self.tokenizer.pad_token
        places = getattr(self.model.config, "max_position_embeddings", None)
        self.longest = min(
            places or self.tokenizer.model_max_length, self.tokenizer.model_max_length
        )

    def forward(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """(M, bytes) -> (M, n, units) and (M, n) bool.

        Raises:
            ConfigError: A text has more tokens than the model reads.
        """
        codes = [bytes(text).rstrip(b"\0") for text in texts.cpu().numpy()]
        said = [code.decode(errors="replace") or self.nothing for code in codes]
        inputs = self.tokenizer(said, padding=True, return_tensors="pt").to(texts.device)
        count = inputs["input_ids"].shape[1]
        if count > self.longest:
            found = f"{self.name}, which reads {self.longest} tokens"
            raise ConfigError(KEY, found, f"a model for texts of {count} tokens")
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            hidden = self.model(**inputs).last_hidden_state
        return self.project(hidden), inputs["attention_mask"].bool()

    def train(self, mode: bool = True) -> HuggingFaceReader:
        """Set everything but the pretrained model, which never drops out."""
        super().train(mode)
        self.model.eval()
        return self


def _load(name: str, seed: int) -> tuple[Any, Any]:
    """Model in float32, and tokenizer.

    What the files lack, such as a pooler that nobody asks, is drawn from `seed`, and not from
    whatever torch's own generator happens to be at.
    """
    library = libraries.transformers()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = library.AutoModel.from_pretrained(name, dtype=torch.float32)
        tokenizer = library.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(KEY, name, f"own, or a Hugging Face encoder ({reason})") from None
    reason = _fault(model, tokenizer)
    if reason:
        raise ConfigError(
            KEY, name, f"own, or a Hugging Face encoder with its tokenizer ({reason})"
        )
    return model, tokenizer


def _fault(model: Any, tokenizer: Any) -> str:  # noqa: ANN401
    """Why these two cannot read texts; empty if they can."""
    if model.config.is_encoder_decoder or not hasattr(model.config, "hidden_size"):
        return f"{type(model).__name__} is more than an encoder of texts"
    # Without files the library makes a tokenizer up, to which every word is the unknown one.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        return "there is no tokenizer.json or vocabulary"
    if tokenizer.pad_token is None:
        return "its tokenizer has no padding token"
    known = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > known:
        return f"its tokenizer has {len(tokenizer)} tokens, of which it knows {known}"
    return ""
