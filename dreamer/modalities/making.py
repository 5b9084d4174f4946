"""From the configuration of a modality to its encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from dreamer.modality_configs import Loss, ModalityConfig
from dreamer.nn.layers import Linear
from dreamer.types import ConfigError, Decoder, Encoder, ObsSpec, SizeLike

Specs = Mapping[str, ObsSpec]


def make_encoder(
    config: ModalityConfig, specs: Specs, size: SizeLike, generator: torch.Generator, *own: object
) -> nn.Module:
    """Make the encoder of a modality, projected to `embed_dim` if there is one.

    Args:
        specs: Its keys. own: The section that the modality has of its own.

    Raises:
        ConfigError: It does not say how wide its code is.
    """
    encoder = config.encoder_type(specs, size, generator, *own)
    width, tokens = (getattr(encoder, name, None) for name in ("out_dim", "tokens"))
    if not isinstance(width, int) or not isinstance(tokens, int) or tokens < 1 or width % tokens:
        found, allowed = (
            f"out_dim {width}, tokens {tokens}",
            "integers, the second divides the first",
        )
        raise ConfigError(f"modality {config.name}: encoder_type", found, allowed)
    return encoder if config.embed_dim is None else Projected(encoder, config.embed_dim, generator)


def make_decoder(
    config: ModalityConfig,
    specs: Specs,
    size: SizeLike,
    feat_dim: int,
    generator: torch.Generator,
    *own: object,
) -> nn.Module:
    """Make the decoder of a modality, with the loss of its configuration if there is one."""
    decoder = config.decoder_type(specs, size, feat_dim, generator, *own)
    return decoder if config.loss is None else Compared(decoder, config.loss, config.name)


class Projected(nn.Module):
    """An encoder whose code goes through a linear map and is one token.

    Args:
        encoder: Any `Encoder`. width: Of the code then. generator: Of the map's weights.
    """

    def __init__(self, encoder: nn.Module, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = Linear(cast(Encoder, encoder).out_dim, width, generator)
        self.out_dim, self.tokens = width, 1

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Key -> (..., *shape) to (..., width)."""
        return self.project(self.encoder(obs))


class Compared(nn.Module):
    """A decoder whose loss compares what it decodes with what was observed.

    Args:
        decoder: Has `decode`. compare: (..., *shape) twice -> (...). name: Of the modality.
    """

    def __init__(self, decoder: nn.Module, compare: Loss, name: str) -> None:
        super().__init__()
        self.decoder, self.compare, self.name = decoder, compare, name

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Key -> (...).

        Raises:
            ConfigError: Nothing could be learned from it.
        """
        losses = {key: self.compare(x, obs[key]) for key, x in self.decode(feat).items()}
        for key, loss in losses.items():
            if loss.shape != feat.shape[:-1]:
                self._refuse(key, f"shape {tuple(loss.shape)}", f"{tuple(feat.shape[:-1])}")
            if feat.requires_grad and not loss.requires_grad:
                self._refuse(key, "no gradient", "a decoder whose decode() does not round")
        return losses

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """Features (..., F) -> key -> (..., *shape)."""
        return cast(Decoder, self.decoder).decode(feat)

    def _refuse(self, key: str, found: Any, allowed: str) -> None:  # noqa: ANN401
        raise ConfigError(f"modality {self.name}: loss of {key}", found, allowed)
