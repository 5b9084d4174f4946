"""Packages that only some environments need: imported late, and missed with one clear line."""

from __future__ import annotations

import importlib
import os
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


def choose_gl(*, render: bool) -> None:
    """Choose MuJoCo's OpenGL backend unless the user did.

    Without a choice MuJoCo tries GLFW, which prints warnings where there is no display. EGL draws
    without a display; a process that never draws needs no OpenGL at all.
    """
    os.environ.setdefault("MUJOCO_GL", "egl" if render else "disable")


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
