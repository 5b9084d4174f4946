"""Crafter: equal seeds are equal games, death terminates, frames leave the game alone."""

import numpy as np
import pytest

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.vector import VectorEnv
from dreamer.types import EnvError, ObsSpec

crafter = pytest.importorskip("crafter")


def config(tail="?area=16", version=1):
    return EnvConfig(
        id=f"Crafter-v{version}{tail}",
        num_envs=2,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )


def test_what_rows_hold():
    env = VectorEnv(config("?area=16&size=48"), seed=0)
    assert env.spec.obs == {
        "image": ObsSpec(shape=(48, 48, 3), dtype="uint8", kind="image"),
        "inventory": ObsSpec(shape=(16,), dtype="uint8", kind="vector"),
    }
    assert env.spec.action.sizes == (17,)
    rows = env.reset()
    assert rows["image"].std() > 5
    np.testing.assert_array_equal(rows["inventory"][0], [9, 9, 9, 9] + [0] * 12)


def test_the_picture_is_that_of_crafter():
    env = make_env(config("?area=16"))
    image = env.reset(seed=3)[0]["image"]
    plain = crafter.Env(area=(16, 16), size=(64, 64), seed=env.unwrapped._game._seed)
    np.testing.assert_array_equal(image, plain.reset())
    assert image.flags.c_contiguous


def test_equal_seeds_are_equal_games_wherever_creatures_lie_in_memory():
    """Crafter itself walks through them in the order of their addresses."""

    def play(between):
        env, kept, seen = make_env(config("?area=32")), [], []
        obs, _ = env.reset(seed=5)
        world = env.unwrapped._game._world
        for action in np.random.default_rng(0).integers(17, size=60):
            kept.append([object() for _ in range(between)])
            creatures = [
                [(type(one).__name__, *one.pos) for one in region]
                for region in world.chunks.values()
            ]
            seen.append((obs["image"].tobytes(), creatures))
            obs = env.step(action)[0]
        return seen

    first, second = play(0), play(13)
    assert sum(len(region) for region in first[0][1]) > 10
    assert first == second


def test_the_seed_of_a_reset_decides_and_another_gives_another_world():
    env, other = make_env(config()), make_env(config())
    other.reset(seed=7)
    first = env.reset(seed=3)[0]["image"]
    np.testing.assert_array_equal(first, other.reset(seed=3)[0]["image"])
    assert (first != env.reset(seed=4)[0]["image"]).any()
    again = env.reset()[0]["image"]
    assert (again != env.reset()[0]["image"]).any()


def test_death_terminates_and_the_limit_truncates():
    env = make_env(config("?area=16&steps=3"))
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(3)]
    assert [(step[2], step[3]) for step in steps] == [(False, False)] * 2 + [(False, True)]
    assert ["scores" in step[4] for step in steps] == [False, False, True]
    env.reset(seed=0)
    env.step(0)
    env.unwrapped._game._player.inventory["health"] = 0
    obs, reward, terminated, truncated, _ = env.step(0)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(-0.9)
    assert obs["inventory"][0] == 0


def test_achievements_are_counted_and_pay_once():
    env = make_env(config("?area=32"))
    _, info = env.reset(seed=0)
    assert len(info["achievements"]) == 22
    assert not any(info["achievements"].values())
    place, pay = crafter.constants.actions.index("place_table"), []
    player = env.unwrapped._game._player
    for _ in range(2):
        player.inventory["wood"] = 2
        player.facing = (-player.facing[0], -player.facing[1])
        _, reward, _, _, info = env.step(place)
        pay.append(reward)
    assert info["achievements"]["place_table"] == 2
    assert pay == [1.0, 0.0]
    player.inventory["health"] = 0
    scores = env.step(0)[4]["scores"]
    assert len(scores) == 22
    assert [name for name, reached in scores.items() if reached] == ["place_table"]


def test_frames_leave_the_game_alone_at_night():
    """Crafter draws the noise of nights from the numbers that move its creatures."""

    def images(drawn):
        env = make_env(config(), render=True)
        env.reset(seed=0)
        env.unwrapped._game._step = 250
        found = []
        for _ in range(5):
            found.append(env.step(0)[0]["image"])
            if drawn:
                assert env.render().shape == (256, 256, 3)
        return np.stack(found)

    np.testing.assert_array_equal(images(drawn=True), images(drawn=False))


def test_resume():
    env = VectorEnv(config(), seed=0)
    env.reset()
    actions = np.random.default_rng(0).random((20, 2, 17)).astype(np.float32)
    for action in actions[:10]:
        env.step(action)
    other = VectorEnv(config(), seed=0)
    other.load_state_dict(env.state_dict())
    for action in actions[10:]:
        mine, theirs = env.step(action), other.step(action)
        assert all((mine[key] == theirs[key]).all() for key in mine)


@pytest.mark.parametrize("tail", ["?size=8", "?area=big", "?steps=true", "?view=9"])
def test_bad_options(tail):
    with pytest.raises(EnvError, match=r"^Crafter-v1: options .*; allowed: size=PIXELS and area="):
        make_env(config(tail))


def test_another_version_is_one_line():
    with pytest.raises(EnvError, match=r"^Crafter-v2: there is no .*; allowed: Crafter-v1$"):
        make_env(config("", version=2))
