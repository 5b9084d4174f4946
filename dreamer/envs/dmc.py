"""dm_control as Gymnasium environments: float32 observations, exact reseeding at every reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.camera import Camera
from dreamer.envs.optional import one_line, require, without_opengl
from dreamer.types import EnvError

FRAME_SIZE = 256  # pixels of the frames that people look at
OPTIONS = "image=PIXELS, 8 to 256, and shadows=true or false"


def make_dmc(name: str, options: Mapping[str, Any], *, render: bool) -> gym.Env[Any, Any]:
    """Make `dmc_<domain>_<task>`.

    With the option `image=64` an RGB `image` of 64x64 pixels, seen by camera 0, is one more
    observation key; `shadows=true` draws it exactly as dm_control does, at several times the cost.

    Raises:
        EnvError: The package is missing, or the task or an option is unknown.
    """
    size = options.get("image", 0)
    shadows = options.get("shadows", False)
    known = not set(options) - {"image", "shadows"} and isinstance(shadows, bool)
    if not known or type(size) is not int or not (size == 0 or 8 <= size <= 256):
        raise EnvError(f"{name}: options {dict(options)}; allowed: {OPTIONS}")
    with without_opengl():
        suite = require("dm_control.suite", "dmc", name)
    tasks = {f"dmc_{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}
    if name not in tasks:
        raise EnvError(f"{name}: no such dm_control task; allowed: {', '.join(sorted(tasks))}")
    try:
        # Fixed, because some tasks (lqr) also draw their model, once and for all, when loaded.
        env = suite.load(*tasks[name], task_kwargs={"random": 0})
    except (AttributeError, RuntimeError, ValueError) as error:
        raise EnvError(f"{name}: dm_control cannot load it: {one_line(error)}") from error
    return DMControl(env, name, image=size, shadows=shadows, render=render)


class DMControl(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """One dm_control task.

    `terminated` is a last step with discount 0 and `truncated` one with discount 1, so that the
    usual end at a time limit still bootstraps. Camera 0 draws.

    Args:
        env: A loaded suite task.
        name: Its id, for messages.
        image: Side of the observed image in pixels, 0 for none.
        shadows: Whether the observed image has shadows; frames always have.
        render: Whether `render()` draws frames.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 0}  # noqa: RUF012

    def __init__(
        self,
        env: Any,  # noqa: ANN401
        name: str,
        *,
        image: int,
        shadows: bool,
        render: bool,
    ) -> None:
        self._env, self._name, self._image, self._shadows = env, name, image, shadows
        self._cameras: dict[tuple[int, bool], Camera] = {}
        self.render_mode = "rgb_array" if render else None
        self.metadata = self.metadata | {"render_fps": round(1 / env.control_timestep())}
        boxes: dict[str, spaces.Box] = {
            key: spaces.Box(-np.inf, np.inf, spec.shape or (1,), np.float32)
            for key, spec in env.observation_spec().items()
        }
        if image:
            boxes["image"] = spaces.Box(0, 255, (image, image, 3), np.uint8)
        self._shapes = {key: box.shape for key, box in boxes.items()}
        self.observation_space = spaces.Dict(dict(boxes))  # type: ignore[assignment]
        bounds = env.action_spec()
        low = np.broadcast_to(bounds.minimum, bounds.shape).astype(np.float32)
        high = np.broadcast_to(bounds.maximum, bounds.shape).astype(np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; with a seed it depends on nothing else."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            # The suite takes a seed only when a task is loaded; this is the generator it made then.
            self._env.task._random = np.random.RandomState(seed)
        try:
            step = self._env.reset()
        except RuntimeError as error:
            raise EnvError(
                f"{self._name}: cannot start an episode: {one_line(error)} "
                "(a task that draws by itself needs MUJOCO_GL=egl)"
            ) from error
        return self._observe(step), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Advance one control step."""
        step = self._env.step(action)
        terminated = bool(step.last() and step.discount == 0)
        truncated = bool(step.last() and step.discount != 0)
        return self._observe(step), float(step.reward or 0.0), terminated, truncated, {}

    def render(self) -> np.ndarray:
        """Draw the scene: (256, 256, 3) uint8."""
        return self._draw(FRAME_SIZE, shadows=True)

    def close(self) -> None:
        """Free the physics and what draws it."""
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}
        self._env.close()

    def _observe(self, step: Any) -> dict[str, np.ndarray]:  # noqa: ANN401
        obs = {
            key: np.asarray(value, np.float32).reshape(self._shapes[key])
            for key, value in step.observation.items()
        }
        return (
            obs | {"image": self._draw(self._image, shadows=self._shadows)} if self._image else obs
        )

    def _draw(self, size: int, *, shadows: bool) -> np.ndarray:
        physics = self._env.physics
        camera = self._cameras.get((size, shadows))
        if camera is None:
            camera = Camera(physics.model.ptr, size, shadows=shadows, env_id=self._name)
            self._cameras[size, shadows] = camera
        return camera.draw(physics.data.ptr)
