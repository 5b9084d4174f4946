"""Names to environments, and one clear line for names that lead nowhere."""

import subprocess
import sys

import pytest
from gymnasium.utils.env_checker import check_env

from dreamer.envs.make import EnvConfig, make_env, parse_id
from dreamer.envs.vector import VectorEnv
from dreamer.types import ActionSpec, ConfigError, EnvError, ObsSpec

FIELDS = {
    "id": "CartPole-v1",
    "num_envs": 1,
    "action_repeat": 1,
    "active_modalities": "all",
    "optional_modalities": (),
    "modalities": {},
}


def config(env_id, **kwargs):
    return EnvConfig(**FIELDS | {"id": env_id} | kwargs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", ""),
        ("num_envs", 0),
        ("action_repeat", 101),
        ("active_modalities", "image"),
        ("active_modalities", []),
        ("active_modalities", [3]),
    ],
)
def test_config_is_checked(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: found"):
        EnvConfig(**FIELDS | {key: value})


def test_config_list_becomes_a_tuple():
    assert config("CartPole-v1", active_modalities=["image"]).active_modalities == ("image",)


def test_options_are_json_or_words():
    assert parse_id("a:B-v0?n=3&x=0.5&on=true&name=both") == (
        "a:B-v0",
        {"n": 3, "x": 0.5, "on": True, "name": "both"},
    )
    assert parse_id("CartPole-v1") == ("CartPole-v1", {})


@pytest.mark.parametrize("text", ["a?n", "a?=3", "a?n=1&n=2", "a?n=1&"])
def test_bad_options(text):
    with pytest.raises(EnvError, match="allowed: name=value"):
        parse_id(text)


def test_options_reach_the_environment():
    env = make_env(config("counter_env:Counter-v0?length=7&end=truncated"))
    assert (env.unwrapped.length, env.unwrapped.end) == (7, "truncated")


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("NoSuchThing-v0", "NoSuchThing"),
        ("CartPole-v9", "v0.*v1"),
        ("nowhere/Thing-v0", "nowhere"),
        ("no_such_module_xyz:Foo-v0", "no_such_module_xyz"),
        ("counter_env:NoSuch-v0", "NoSuch"),
        ("CartPole-v1?bogus=1", "bogus"),
        ("counter_env:Counter-v0?bogus=1", "bogus"),
        ("bad id!", "bad id!"),
    ],
)
def test_unknown_environments_are_one_line(env_id, message):
    with pytest.raises(EnvError, match=message) as error:
        make_env(config(env_id))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(env_id.partition("?")[0])


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [
        ("dmc_walker_walk", "dm_control.suite", "dmc"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("BabyAI-GoToLocal-v0", "minigrid", "minigrid"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("Crafter-v1", "crafter", "crafter"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
    ],
)
def test_missing_package_names_its_extra(monkeypatch, env_id, module, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # what Python takes for "not installed"
    with pytest.raises(EnvError, match=rf"dreamer-pipeline\[{extra}\]") as error:
        make_env(config(env_id))
    assert "\n" not in str(error.value)


def test_render_returns_frames_or_says_why_not():
    env = make_env(config("counter_env:Counter-v0", action_repeat=2), render=True)
    env.reset(seed=0)
    assert env.render().shape == (8, 6, 3)
    assert make_env(config("counter_env:Counter-v0")).render_mode is None


def test_importing_the_package_loads_no_suite():
    code = (
        "import sys, dreamer.envs; "
        "print([m for m in ('mujoco', 'dm_control', 'minigrid', 'ale_py', 'crafter', 'pygame')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("env_id", "package"),
    [
        ("counter_env:Counter-v0", "gymnasium"),
        ("MiniGrid-DoorKey-5x5-v0", "minigrid"),
        ("dmc_cartpole_balance", "dm_control"),
        ("Crafter-v1?area=16", "crafter"),
    ],
)
@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.* value is .*infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version:UserWarning")
def test_gymnasium_finds_nothing_to_complain_about(env_id, package, repeat):
    pytest.importorskip(package)
    check_env(make_env(config(env_id, action_repeat=repeat)), skip_render_check=True)
    env = make_env(config(env_id, action_repeat=repeat))
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    obs, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(obs)


def test_gymnasium_mujoco():
    pytest.importorskip("mujoco")
    pytest.importorskip("imageio")  # which gymnasium[mujoco] brings
    env = VectorEnv(config("InvertedPendulum-v5"), seed=0)
    assert env.spec.obs["vector"] == ObsSpec(shape=(4,), dtype="float32", kind="vector")
    assert env.spec.action == ActionSpec(kind="continuous", sizes=(1,))
    assert not env.reset()["is_last"].any()
    env.close()
