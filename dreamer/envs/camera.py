"""Drawing MuJoCo scenes without a display.

MuJoCo's own drawing functions on an OpenGL context of ours, instead of dm_control's
`physics.render`: the pixels are the same, several times sooner, and it works although MuJoCo was
imported without OpenGL, so that a process which never draws needs no graphics library.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

import numpy as np

from dreamer.envs.optional import one_line, require
from dreamer.types import EnvError

BACKENDS = ("egl", "osmesa", "glfw")


class Camera:
    """Camera 0 of a model, or the free camera of a model without one.

    Args:
        model: `mujoco.MjModel`.
        size: Side of the square frame in pixels, up to 480 (MuJoCo's default buffer).
        shadows: Draw shadows, reflections and smooth edges; they are most of the cost.
        env_id: The environment that asks, for messages.

    Raises:
        EnvError: There is no way to draw here.
    """

    def __init__(self, model: Any, size: int, *, shadows: bool, env_id: str) -> None:  # noqa: ANN401
        self._mujoco = mujoco = require("mujoco", "dmc", env_id)
        self._gl = _open_context(size, env_id)
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._options = mujoco.MjvOption()
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._view = _view(mujoco, model)
        quality = model.vis.quality
        kept = quality.shadowsize, quality.offsamples
        if not shadows:
            quality.shadowsize, quality.offsamples = 0, 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        # Read once, above; another camera on this model may want them as they were.
        quality.shadowsize, quality.offsamples = kept
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        # Registered after EGL's own exit hook, so it runs before the display is gone.
        atexit.register(self.close)

    def draw(self, data: Any) -> np.ndarray:  # noqa: ANN401
        """Draw a `mujoco.MjData`: (size, size, 3) uint8."""
        mujoco = self._mujoco
        # Another camera may have drawn since; without this the frame is made in its context.
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._view, everything, self._scene
        )
        mujoco.mjr_render(self._rect, self._scene, self._context)
        frame = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, self._rect, self._context)
        return np.ascontiguousarray(frame[::-1])  # OpenGL counts rows from the bottom

    def close(self) -> None:
        """Free the OpenGL context."""
        atexit.unregister(self.close)
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _open_context(size: int, env_id: str) -> Any:  # noqa: ANN401
    """An OpenGL context of the backend that `MUJOCO_GL` names, made current."""
    backend = os.environ.get("MUJOCO_GL", "egl" if sys.platform == "linux" else "glfw").lower()
    if backend not in BACKENDS:
        raise EnvError(
            f"{env_id}: cannot draw: found MUJOCO_GL={backend}; allowed: {', '.join(BACKENDS)}"
        )
    try:
        context = require(f"mujoco.{backend}", "dmc", env_id).GLContext(size, size)
    except (ImportError, RuntimeError) as error:
        raise EnvError(
            f"{env_id}: cannot draw with MUJOCO_GL={backend}: {one_line(error)}"
        ) from error
    context.make_current()
    return context


def _view(mujoco: Any, model: Any) -> Any:  # noqa: ANN401
    view = mujoco.MjvCamera()
    if model.ncam:
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    else:
        mujoco.mjv_defaultFreeCamera(model, view)
    return view
