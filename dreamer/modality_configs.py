"""What a modality is made of, and which there are: the extension point.

`dreamer.modalities` enters what is built in; a module of the user's enters its own. It lies below
both environments, which ask who reads an observation, and encoders.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from dreamer.types import ConfigError, ObsSpec, check_range

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ModalityConfig:
    """One sense.

    Attributes:
        name: Its key in `MODALITY_CONFIGS`.
        encoder_type: Module called as `encoder_type(specs, size, generator)`; an `Encoder`.
            Modalities with a section of their own in `WorldModelConfig` are given it as a last
            argument.
        decoder_type: Module called as `decoder_type(specs, size, feat_dim, generator)`; a
            `Decoder`. That of texts is given their section too.
        kinds: The `ObsSpec.kind`s it serves, all keys of which are encoded together; () is the one
            that is called as it is.
        input_shape, dtype: What every key must have; None leaves it to the encoder.
        embed_dim: Width of a linear projection of the code, which then is one token of fusion; None
            leaves the code as the encoder makes it.
        loss: Takes the place of the decoder's: decoded (..., *shape) and observed (..., *shape) to
            (...); `decode` must have a gradient then.
        weight: Multiplies its reconstruction losses.
    """

    name: str
    encoder_type: type[nn.Module]
    decoder_type: type[nn.Module]
    kinds: tuple[str, ...] = ()
    input_shape: tuple[int, ...] | None = None
    dtype: Literal["uint8", "float32", "int32"] | None = None
    embed_dim: int | None = None
    loss: Loss | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not self.name.isidentifier():
            raise ConfigError("name", self.name, "letters, digits and _, no digit first")
        if self.dtype not in (None, "uint8", "float32", "int32"):
            raise ConfigError("dtype", self.dtype, "uint8, float32, int32 or None")
        if self.embed_dim is not None:
            check_range("embed_dim", self.embed_dim, 1, 65536)
        check_range("weight", self.weight, 0.0, 1e6)

    def accepts(self, spec: ObsSpec) -> bool:
        """Whether shape and dtype are those that it demands."""
        shapes, dtypes = (None, tuple(spec.shape)), (None, spec.dtype)
        return self.input_shape in shapes and self.dtype in dtypes

    @property
    def demand(self) -> str:
        """What it accepts, in words."""
        shape = "any shape" if self.input_shape is None else f"shape {self.input_shape}"
        return f"{shape} of {self.dtype or 'any dtype'}, as modality {self.name} demands"


MODALITY_CONFIGS: dict[str, ModalityConfig] = {}


def recon_weights(
    groups: Mapping[str, Collection[str]], scales: Mapping[str, float]
) -> dict[str, float]:
    """Observation key -> what multiplies its reconstruction loss.

    Args:
        groups: Modality -> its observation keys.
        scales: `world_model.modality_scales`.

    Raises:
        ConfigError: A scale is of a modality that the agent does not have.
    """
    for name in scales:
        if name not in groups:
            allowed = f"only modalities that the agent observes: {', '.join(groups)}"
            raise ConfigError("world_model.modality_scales", name, allowed)
    return {
        key: MODALITY_CONFIGS[name].weight * scales.get(name, 1.0)
        for name, keys in groups.items()
        for key in keys
    }


def find_modality(name: str, module: str, what: str) -> ModalityConfig:
    """Look a modality up.

    Args:
        name: Of the modality. module: Imported before, since that enters it; "" for none.
        what: Asks for it; begins the error.

    Raises:
        ConfigError: The module cannot be imported, the modality is unknown, or under another key.
    """
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            reason = " ".join(str(error).split())
            allowed = f"an importable module that enters {name} in MODALITY_CONFIGS"
            raise ConfigError(what, f"{module}:{name} ({reason})", allowed) from error
    if name not in MODALITY_CONFIGS:
        found = f"{module}:{name}" if module else name
        allowed = f"one of {sorted(MODALITY_CONFIGS)}, or module:name of one that module enters"
        raise ConfigError(what, found, allowed)
    config = MODALITY_CONFIGS[name]
    if config.name != name:
        raise ConfigError(f"{what}: MODALITY_CONFIGS[{name!r}].name", config.name, name)
    return config
