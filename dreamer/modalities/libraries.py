"""Packages that only some senses need: imported late, and missed with one clear line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from dreamer.types import ConfigError


def tokenizers() -> ModuleType:
    """Import the library `tokenizers`.

    Raises:
        ConfigError: The package is missing, or is there but cannot be imported.
    """
    return _require("tokenizers", "text", "observation of kind text", "")


def transformers() -> ModuleType:
    """Import the library `transformers`; errors as in `tokenizers`.

    Its models import torchaudio where that is installed, and fail with it, hence that goes first.
    """
    if importlib.util.find_spec("torchaudio") is not None:
        torchaudio()
    return _require("transformers", "text", "world_model.text.model", "own, or ")


def torchaudio() -> ModuleType:
    """Import the library `torchaudio`; errors as in `tokenizers`.

    Its native part wants the very CUDA that it was built with, and fails beside a PyTorch without
    or with another one. Everything but alignment of speech and a few filters works without that
    part, and is what is imported then.
    """
    where, else_ = "world_model.audio.features", "waveform, or "
    try:
        return _require("torchaudio", "audio", where, else_)
    except (OSError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        extension = "torchaudio._extension"
        sys.modules[extension] = _no_extension(extension)
        return _require("torchaudio", "audio", where, else_)


def _no_extension(name: str) -> ModuleType:
    """What torchaudio's own module says where its native part was never built."""

    def unavailable(function: Any) -> Any:  # noqa: ANN401
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError(f"torchaudio's {function.__name__} needs its native library")

        return fail

    module = ModuleType(name)
    vars(module).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=unavailable)
    return module


def _require(module: str, extra: str, where: str, else_: str) -> ModuleType:
    """Import `module`, which belongs to the optional dependencies `extra`.

    Args:
        module: Its name. extra: Name of the extra that installs it.
        where: What needs it. else_: What would do without, for the error message.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        found = f"no package {error.name or module}"
        raise ConfigError(where, found, f"{else_}pip install 'dreamer-pipeline[{extra}]'") from None
    except ImportError as error:
        reason = " ".join(str(error).split())
        allowed = f"{else_}a package {module} that can be imported ({reason})"
        raise ConfigError(where, f"a broken package {module}", allowed) from error
