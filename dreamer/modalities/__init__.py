"""Senses: how each kind of observation is encoded and decoded. `MODALITY_CONFIGS` is the extension
point: one entry per modality, chosen by the `kind` of an observation's spec.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dreamer.modalities.audio import AudioDecoder, AudioEncoder
from dreamer.modalities.image import ImageDecoder, ImageEncoder
from dreamer.modalities.text import TextDecoder, TextEncoder
from dreamer.modalities.vector import VectorDecoder, VectorEncoder
from dreamer.types import ConfigError, ObsSpec


@dataclass(frozen=True, kw_only=True)
class ModalityConfig:
    """One sense.

    Attributes:
        kinds: The `ObsSpec.kind`s it serves; all keys of these kinds are encoded together.
        encoder_type: Module called as `encoder_type(specs, size, generator)`; an `Encoder`.
        decoder_type: Module called as `decoder_type(specs, size, feat_dim, generator)`; a
            `Decoder`. Modalities with a section of their own in `WorldModelConfig` are given it as
            a last argument.
    """

    kinds: tuple[str, ...]
    encoder_type: type[nn.Module]
    decoder_type: type[nn.Module]


MODALITY_CONFIGS: dict[str, ModalityConfig] = {
    "audio": ModalityConfig(kinds=("audio",), encoder_type=AudioEncoder, decoder_type=AudioDecoder),
    "image": ModalityConfig(kinds=("image",), encoder_type=ImageEncoder, decoder_type=ImageDecoder),
    "text": ModalityConfig(kinds=("text",), encoder_type=TextEncoder, decoder_type=TextDecoder),
    "vector": ModalityConfig(
        kinds=("vector", "categorical"), encoder_type=VectorEncoder, decoder_type=VectorDecoder
    ),
}


def by_modality(obs: dict[str, ObsSpec]) -> dict[str, dict[str, ObsSpec]]:
    """Sort observation keys, but flags, into modalities, both in the order of their names.

    Raises:
        ConfigError: If no modality serves a key.
    """
    grouped: dict[str, dict[str, ObsSpec]] = {}
    for key, spec in sorted(obs.items()):
        if spec.kind == "flag":
            continue
        serving = [name for name, m in MODALITY_CONFIGS.items() if spec.kind in m.kinds]
        if not serving:
            kinds = sorted(kind for m in MODALITY_CONFIGS.values() for kind in m.kinds)
            raise ConfigError(f"observation {key}", spec.kind, f"one of {kinds}")
        grouped.setdefault(serving[0], {})[key] = spec
    return dict(sorted(grouped.items()))
