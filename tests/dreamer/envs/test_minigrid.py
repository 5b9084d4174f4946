"""MiniGrid and BabyAI: grids of symbols, pixels, silence on stdout."""

import numpy as np
import pytest

from dreamer.envs.episode import episode_seed
from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.vector import VectorEnv
from dreamer.types import EnvError, ObsSpec

pytest.importorskip("minigrid")


def config(env_id, active="all"):
    return EnvConfig(
        id=env_id,
        num_envs=2,
        action_repeat=1,
        active_modalities=active,
        optional_modalities=(),
        modalities={},
    )


def test_symbols_are_a_grid_as_they_are():
    import gymnasium as gym

    env = VectorEnv(config("MiniGrid-DoorKey-5x5-v0"), seed=0)
    assert env.spec.obs == {
        "direction": ObsSpec(shape=(1,), dtype="int32", kind="categorical", classes=4),
        "grid": ObsSpec(shape=(7, 7, 3), dtype="uint8", kind="grid", layers=(11, 6, 3)),
    }
    rows = env.reset()
    plain = gym.make("MiniGrid-DoorKey-5x5-v0")
    raw, _ = plain.reset(seed=episode_seed(0, 0, 0))
    for action in np.random.default_rng(0).integers(7, size=40):
        np.testing.assert_array_equal(rows["grid"][0], raw["image"])
        assert rows["direction"][0, 0] == raw["direction"]
        rows = env.step(np.tile(np.eye(7, dtype=np.float32)[action], (2, 1)))
        raw = plain.step(action)[0]


@pytest.mark.parametrize(("option", "shape"), [("rgb=8", (40, 40, 3)), ("rgb_view=5", (35, 35, 3))])
def test_pixels(option, shape):
    env = VectorEnv(config(f"MiniGrid-Empty-5x5-v0?{option}"), seed=0)
    assert env.spec.obs["image"] == ObsSpec(shape=shape, dtype="uint8", kind="image")
    rows = env.reset()
    assert len(np.unique(rows["image"])) > 3
    assert list(VectorEnv(config(f"MiniGrid-Empty-5x5-v0?{option}", "first"), 0).spec.obs) == [
        "image"
    ]


def test_turning_right_turns_the_direction():
    env = VectorEnv(config("MiniGrid-Empty-5x5-v0"), seed=0)
    start = env.reset()["direction"]
    right = np.tile(np.eye(7, dtype=np.float32)[1], (2, 1))
    np.testing.assert_array_equal(env.step(right)["direction"], (start + 1) % 4)


def test_resume():
    env = VectorEnv(config("MiniGrid-DoorKey-5x5-v0"), seed=0)
    env.reset()
    actions = np.random.default_rng(0).random((20, 2, 7)).astype(np.float32)
    for action in actions[:10]:
        env.step(action)
    other = VectorEnv(config("MiniGrid-DoorKey-5x5-v0"), seed=0)
    other.load_state_dict(env.state_dict())
    for action in actions[10:]:
        mine, theirs = env.step(action), other.step(action)
        np.testing.assert_array_equal(mine["grid"], theirs["grid"])


@pytest.mark.parametrize(
    ("env_id", "there"),
    [
        ("BabyAI-GoToLocal-v0", True),
        ("BabyAI-GoToLocal-v0?mission=false", False),
        ("BabyAI-GoToLocal-v0?rgb_view=5", True),
        ("MiniGrid-Fetch-5x5-N2-v0", False),
        ("MiniGrid-Fetch-5x5-N2-v0?mission=true&rgb=8", True),
    ],
)
def test_missions_are_texts_where_they_say_what_to_do(env_id, there):
    env = VectorEnv(config(env_id), seed=0)
    assert ("mission" in env.spec.obs) == there
    if there:
        assert env.spec.obs["mission"].kind == "text"
        said = bytes(env.reset()["mission"][0]).rstrip(bytes(1)).decode()
        plain = make_env(config(env_id)).unwrapped
        assert plain.reset(seed=episode_seed(0, 0, 0))[0]["mission"] == said
        assert len(said.split()) >= 3


def test_babyai_is_silent(capsys):
    env = make_env(config("BabyAI-GoToLocal-v0"))
    for seed in range(30):
        env.reset(seed=seed)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "tail", ["?rgb=0", "?tile=8", "?rgb=8&rgb_view=8", "?rgb=true", "?mission=1"]
)
def test_bad_options(tail):
    with pytest.raises(EnvError, match="allowed: rgb=TILE_PIXELS"):
        make_env(config(f"MiniGrid-Empty-5x5-v0{tail}"))


def test_a_level_takes_its_own_options():
    strict = make_env(config("BabyAI-OpenDoorLoc-v0?debug=true&room_size=5")).unwrapped
    assert strict.debug
    assert strict.room_size == 5
    assert not make_env(config("BabyAI-OpenDoorLoc-v0")).unwrapped.debug


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ("OpenDoorLoc-v0?doors=3", "allowed: .*, debug, "),
        ("OpenDoorLoc-v0?select_by=%22smell%22", "select_by.*Not implemented"),
        ("OpenDoorLoc-v0?room_size=0", "room_size"),
        ("PickupDist-v0?room_size=5", "room_size"),  # which this level sets itself
    ],
)
def test_an_option_that_a_level_does_not_have_is_one_line(tail, said):
    with pytest.raises(EnvError, match=rf"^BabyAI-[^\n]*{said}[^\n]*$"):
        make_env(config(f"BabyAI-{tail}"))


def test_unknown_id_is_one_line():
    with pytest.raises(EnvError, match=r"^MiniGrid-NoSuch-v0: [^\n]*$"):
        make_env(config("MiniGrid-NoSuch-v0"))


def test_frames():
    env = make_env(config("MiniGrid-Empty-5x5-v0"), render=True)
    env.reset(seed=0)
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
