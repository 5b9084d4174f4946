"""Senses: how each kind of observation is encoded and decoded.

`MODALITY_CONFIGS` is the extension point: a module of your own enters its modality there, and an
observation finds it by the name of its key or through `env.modalities` (docs/modalities.md).
"""

from __future__ import annotations

from types import MappingProxyType

from dreamer.modalities.audio import AudioDecoder, AudioEncoder
from dreamer.modalities.grid import GridDecoder, GridEncoder
from dreamer.modalities.image import ImageDecoder, ImageEncoder
from dreamer.modalities.making import make_decoder, make_encoder
from dreamer.modalities.text import TextDecoder, TextEncoder
from dreamer.modalities.vector import VectorDecoder, VectorEncoder
from dreamer.modality_configs import MODALITY_CONFIGS, ModalityConfig, find_modality
from dreamer.types import ConfigError, ObsSpec

__all__ = ["MODALITY_CONFIGS", "ModalityConfig", "by_modality", "make_decoder", "make_encoder"]

BUILT_IN = MappingProxyType(
    {
        "audio": ModalityConfig(name="audio", encoder_type=AudioEncoder, decoder_type=AudioDecoder),
        "grid": ModalityConfig(name="grid", encoder_type=GridEncoder, decoder_type=GridDecoder),
        "image": ModalityConfig(name="image", encoder_type=ImageEncoder, decoder_type=ImageDecoder),
        "text": ModalityConfig(name="text", encoder_type=TextEncoder, decoder_type=TextDecoder),
        "vector": ModalityConfig(
            name="vector",
            kinds=("vector", "categorical"),
            encoder_type=VectorEncoder,
            decoder_type=VectorDecoder,
        ),
    }
)
MODALITY_CONFIGS.update(BUILT_IN)


def by_modality(obs: dict[str, ObsSpec]) -> dict[str, dict[str, ObsSpec]]:
    """Sort observation keys, but flags, into modalities, both in the order of their names.

    Raises:
        ConfigError: No modality serves a key, or the one that does demands another shape.
    """
    grouped: dict[str, dict[str, ObsSpec]] = {}
    for key, spec in sorted(obs.items()):
        if spec.kind == "flag":
            continue
        grouped.setdefault(modality_of(key, spec).name, {})[key] = spec
    return dict(sorted(grouped.items()))


def modality_of(key: str, spec: ObsSpec) -> ModalityConfig:
    """The modality that serves a key; one that is not built in is imported.

    Raises:
        ConfigError: See `by_modality`.
    """
    what = f"observation {key}"
    built_in = next((m for m in BUILT_IN.values() if spec.kind in (m.kinds or (m.name,))), None)
    config = find_modality(built_in.name if built_in else spec.kind, spec.module, what)
    if built_in not in (None, config):
        # Processes that do not import whatever replaced it would build another model.
        allowed = "as it is built in; enter yours under another name and see env.modalities"
        raise ConfigError(f"{what}: modality {config.name}", "another one", allowed)
    if not config.accepts(spec):
        raise ConfigError(what, f"shape {spec.shape} of {spec.dtype}", config.demand)
    return config
