"""Packages that only some environments need: imported late, and missed with one clear line."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from dreamer.types import EnvError


def require(module: str, extra: str, env_id: str) -> ModuleType:
    """Import `module`, which belongs to the optional dependencies `extra`.

    Args:
        module: Dotted module name.
        extra: Name of the extra that installs it.
        env_id: The environment that asks, for the error message.

    Raises:
        EnvError: The package is missing, or is there but cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EnvError(
            f"{env_id}: needs the package {error.name or module}; "
            f"install the extra: pip install 'dreamer-pipeline[{extra}]'"
        ) from error
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        # A half-working OpenGL or MuJoCo library fails in any of these ways.
        raise EnvError(f"{env_id}: importing {module} failed: {one_line(error)}") from error


@contextmanager
def without_opengl() -> Iterator[None]:
    """Import MuJoCo inside of this without OpenGL, unless the user chose a backend.

    Left alone, MuJoCo tries GLFW, which prints warnings where there is no display. `MUJOCO_GL` is
    read at the import and unset again afterwards, so that `Camera` can still choose EGL.
    """
    if "MUJOCO_GL" in os.environ:
        yield
        return
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
