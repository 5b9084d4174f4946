"""From a name to an environment: `make_env` speaks to Gymnasium and to the suites beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, SupportsFloat

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from dreamer.envs.atari import make_atari
from dreamer.envs.crafter import make_crafter
from dreamer.envs.dmc import make_dmc
from dreamer.envs.minigrid import make_minigrid
from dreamer.envs.optional import one_line, require, without_opengl
from dreamer.envs.spaces import Selection, View
from dreamer.envs.tasks import TASKS, make_task
from dreamer.types import ConfigError, EnvError, check_range

AnyEnv = gym.Env[Any, Any]
Factory = Callable[..., AnyEnv]  # (id, options, render=)


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Which environment, how many of it, and what of it the agent sees.

    Attributes:
        id: A Gymnasium id (`CartPole-v1`), `module:Id` for an environment that importing `module`
            registers, `dmc_<domain>_<task>` for dm_control (`dmc_walker_walk`,
            `dmc_ball_in_cup_catch`), or a MiniGrid or BabyAI id. Options follow a question mark,
            joined by `&`, values as in JSON: `FrozenLake-v1?is_slippery=false`. Gymnasium ids pass
            them to the environment; the adapters have their own: `dmc_walker_walk?image=64` draws
            a 64x64 `image` (see `make_dmc`), `ALE/Pong-v5?size=64` has picture, sound and memory of
            the console (see `make_atari`), `Crafter-v1?size=64` has picture and inventory (see
            `make_crafter`), `MiniGrid-Empty-5x5-v0?rgb=8` draws the room with
            8x8 pixels a tile and `?rgb_view=5` what the agent sees (see `make_minigrid`). Tasks of
            our own take theirs too: `DeepSea-v0?size=10`, `PinPad-v0?pads=3`, `KeyChain-v0?rooms=3`
            and `Pits-v0?size=7` (see `dreamer.envs.tasks`).
        num_envs: Copies that run side by side, 1 to 4096.
        action_repeat: Environment steps per agent step, 1 to 100; their rewards are summed.
        active_modalities: `all` keeps every observation key, `first` the first image alone or, in
            an environment without images, all but texts and sounds, or without those whatever there
            is; a tuple names keys or modalities (`image`, `vector`, `text`, `audio`, `grid`, or one
            that is not built in).
        optional_modalities: Keys or modalities that an observation may lack, because a sensor
            fails: the key is left out, or None. A flag in the row says so, nothing attends to what
            is missing, and it is not reconstructed. Any other key that is missing is an error.
        modalities: Observation key -> modality that reads it, where it is not the one that its
            space suggests; `module:name` for one that importing `module` enters.
    """

    id: str
    num_envs: int
    action_repeat: int
    active_modalities: Selection
    optional_modalities: tuple[str, ...]
    modalities: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("id", self.id, "the name of an environment")
        check_range("num_envs", self.num_envs, 1, 4096)
        check_range("action_repeat", self.action_repeat, 1, 100)
        optional: Any = self.optional_modalities
        if not isinstance(optional, list | tuple) or not all(isinstance(n, str) for n in optional):
            raise ConfigError("optional_modalities", optional, "a list of observation keys")
        object.__setattr__(self, "optional_modalities", tuple(optional))
        active: Any = self.active_modalities
        if isinstance(active, list):
            active = tuple(active)
            object.__setattr__(self, "active_modalities", active)
        names = isinstance(active, tuple) and active and all(isinstance(n, str) for n in active)
        if not (names or active in ("all", "first")):
            raise ConfigError(
                "active_modalities", active, "all, first, or a list of observation keys"
            )
        for key, name in self.modalities.items():
            if not (isinstance(key, str) and isinstance(name, str) and name):
                raise ConfigError(f"modalities.{key}", name, "a modality, or module:modality")

    @property
    def view(self) -> View:
        """What of the environment the agent sees, and as what."""
        module = self.id.partition("?")[0].rpartition(":")[0]
        return View(self.active_modalities, self.optional_modalities, self.modalities, module)


def make_env(config: EnvConfig, render: bool = False) -> AnyEnv:
    """Make one environment, with its own Gymnasium spaces and the action repeat applied.

    Args:
        config: Which one; `num_envs` and `active_modalities` are `VectorEnv`'s business.
        render: Prepare `env.render()` to return RGB frames.

    Raises:
        EnvError: It is unknown, a package is missing, or it cannot draw frames.
    """
    name, options = parse_id(config.id)
    factory = next((make for prefix, make in ADAPTERS.items() if name.startswith(prefix)), None)
    env = (factory or _make_gymnasium)(name, options, render=render)
    if render and env.render_mode != "rgb_array":
        env.close()
        raise EnvError(f"{config.id}: cannot draw frames: it has no render mode 'rgb_array'")
    return ActionRepeat(env, config.action_repeat) if config.action_repeat > 1 else env


def parse_id(text: str) -> tuple[str, dict[str, Any]]:
    """Split `id?key=value&key=value` into the id and its options; values are JSON or plain words.

    Raises:
        EnvError: An option has no `=`, no name, or is given twice.
    """
    name, _, tail = text.partition("?")
    options: dict[str, Any] = {}
    for option in tail.split("&") if tail else ():
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise EnvError(f"{text}: option {option!r}; allowed: name=value, each name once")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return name, options


def _make_gymnasium(name: str, options: Mapping[str, Any], *, render: bool) -> AnyEnv:
    extra = _prepare(name, render=render)
    mode: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    if render:
        # Frames come as arrays; without this pygame looks for a desktop and complains on stderr.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    # A wrong option or a missing render mode shows as the constructor's complaint.
    complaints = (TypeError, ValueError, AssertionError) if options or render else ()
    try:
        # Rows check what they carry, at every step; Gymnasium's checker sees only the first.
        return gym.make(name, disable_env_checker=True, **mode, **options)
    except (gym.error.Error, ImportError, AttributeError, *complaints) as error:
        hint = f" (install the extra: pip install 'dreamer-pipeline[{extra}]')" if extra else ""
        raise EnvError(f"{name}: {one_line(error)}{hint}") from error


def _prepare(name: str, *, render: bool) -> str | None:
    """Load what registers `name` and return the extra that it needs, if any."""
    spec = gym.registry.get(name)
    if spec is not None and str(spec.entry_point).startswith("gymnasium.envs.mujoco"):
        if render:
            os.environ.setdefault("MUJOCO_GL", "egl")
        with without_opengl():
            require("mujoco", "mujoco", name)
        return "mujoco"
    return None


class ActionRepeat(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Take every action `repeat` times, or until the episode ends, and sum the rewards."""

    def __init__(self, env: AnyEnv, repeat: int) -> None:
        RecordConstructorArgs.__init__(self, repeat=repeat)
        gym.Wrapper.__init__(self, env)
        self._repeat = repeat

    def step(self, action: object) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One agent step; observation, marks and info are those of the last environment step."""
        total = 0.0
        for _ in range(self._repeat):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


# Id prefixes that are not Gymnasium's own business; the extension point for further suites.
ADAPTERS: Mapping[str, Factory] = MappingProxyType(
    {
        "ALE/": make_atari,
        "Crafter-": make_crafter,
        "dmc_": make_dmc,
        "MiniGrid-": make_minigrid,
        "BabyAI-": make_minigrid,
    }
    | {name.partition("-")[0] + "-": make_task for name in TASKS}
)
