"""What all tasks of our own keep: options, seeds, Gymnasium's rules, tables that tell the truth."""

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.tasks import TASKS, deep_sea, key_chain, pin_pad, pits
from dreamer.envs.vector import VectorEnv
from dreamer.types import EnvError

IDS = ["DeepSea-v0?size=5", "PinPad-v0?pads=3", "KeyChain-v0?rooms=3", "Pits-v0?slip=0.2"]


def config(env_id, num_envs=1):
    return EnvConfig(
        id=env_id,
        num_envs=num_envs,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )


def episode(env, seed, actions):
    """All that an episode says, until it ends or the actions do."""
    said = [env.reset(seed=seed)]
    for action in actions:
        said.append(env.step(action))
        if said[-1][2] or said[-1][3]:
            break
    return said


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_finds_nothing_to_complain_about(env_id):
    check_env(make_env(config(env_id), render=True).unwrapped)


def test_they_are_registered_with_gymnasium():
    env = gym.make("DeepSea-v0", size=4)
    assert env.observation_space.shape == (16,)
    assert set(TASKS) <= set(gym.registry)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        (
            "DeepSea-v9",
            "allowed: CueBits-v0, DeepSea-v0, KeyChain-v0, PinPad-v0, Pits-v0, Split",
        ),
        ("DeepSea-v0?depth=3", "option 'depth'; allowed: size, layout"),
        ("DeepSea-v0?size=1", "option size: found 1; allowed: a whole number, 2 to 100"),
        ("DeepSea-v0?size=2.5", "size: found 2.5"),
        ("DeepSea-v0?layout=-1", "layout: found -1"),
        ("PinPad-v0?pads=7", "option pads: found 7; allowed: 3, 4, 5, 6"),
        ("PinPad-v0?pads=three", "pads: found 'three'"),
        ("PinPad-v0?steps=0", "steps: found 0"),
        ("KeyChain-v0?rooms=true", "rooms: found True; allowed: a whole number, 2 to 8"),
        ("KeyChain-v0?size=2", "size: found 2"),
        ("KeyChain-v0?steps=0", "steps: found 0"),
        ("Pits-v0?size=8", "option size: found 8; allowed: 5, 7, 9, 11, 13, 15"),
        ("Pits-v0?slip=1.5", "option slip: found 1.5; allowed: a number, 0 to 1"),
        ("Pits-v0?slip=NaN", "slip: found nan"),
        ("Pits-v0?goal=1", "goal: found 1; allowed: True, False"),
        ("Pits-v0?render_mode=human", "option 'render_mode'; allowed: size, slip, goal, steps"),
    ],
)
def test_wrong_options_are_one_line(env_id, message):
    with pytest.raises(EnvError) as error:
        make_env(config(env_id))
    assert message in str(error.value)
    assert str(error.value).startswith(env_id.partition("?")[0] + ": ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("env_id", IDS)
def test_seed_and_actions_say_it_all(env_id):
    env = make_env(config(env_id))
    actions = np.random.default_rng(0).integers(env.action_space.n, size=300)
    first, again = episode(env, 5, actions), episode(env, 5, actions)
    assert len(first) == len(again)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:] == two[1:]
        assert env.observation_space.contains(one[0])


@pytest.mark.parametrize("env_id", IDS)
def test_resume(env_id):
    env, other = (VectorEnv(config(env_id, 3), seed=1) for _ in range(2))
    env.reset()
    actions = np.random.default_rng(0).random((400, 3, env.spec.action.dim)).astype(np.float32)
    for action in actions[:250]:
        env.step(action)
    other.load_state_dict(env.state_dict())
    for action in actions[250:]:
        mine, theirs = env.step(action), other.step(action)
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("env_id", IDS)
def test_every_cell_has_an_observation_of_its_own(env_id):
    env = make_env(config(env_id)).unwrapped
    cells = env.cells()
    seen = {env.observation_at(cell).tobytes() for cell in cells}
    assert len(seen) == len(cells) == len(set(cells))
    assert all(env.observation_space.contains(env.observation_at(cell)) for cell in cells)
    assert (np.array(cells) < env.shape).all()


@pytest.mark.parametrize("env_id", IDS)
def test_pictures_show_the_step(env_id):
    env = make_env(config(env_id), render=True)
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape[2] == 3
    assert max(before.shape) >= 200
    frames = [before]
    for action in range(env.action_space.n):
        env.step(action)
        frames.append(env.render())
    assert any(not np.array_equal(before, frame) for frame in frames)


@pytest.mark.parametrize(
    ("module", "options", "length"),
    [
        (deep_sea, {"size": 6, "layout": 3}, 6),
        (key_chain, {"rooms": 2, "size": 3, "steps": 40}, 40),
        (key_chain, {"rooms": 3, "size": 4, "layout": 2, "steps": 60}, 60),
        (pits, {"size": 7}, 100),
    ],
)
def test_random_return_is_what_stepping_gives(module, options, length):
    """Push probability forwards through real steps; the module goes backwards through tables."""
    env = TASKS[module.NAME](**options)
    here = {env.reset(seed=0)[0].tobytes(): (1.0, env)}
    known, expected, actions = {}, 0.0, int(env.action_space.n)
    for _ in range(length):
        there = {}
        for key, (mass, at) in here.items():
            if key not in known:
                nexts = [copy.copy(at) for _ in range(actions)]
                known[key] = [(after, after.step(a)) for a, after in enumerate(nexts)]
            for after, (obs, reward, terminated, _, _) in known[key]:
                expected += mass / actions * reward
                if not terminated:
                    old, _ = there.get(obs.tobytes(), (0.0, None))
                    there[obs.tobytes()] = (old + mass / actions, after)
        here = there
    assert expected != 0
    assert math.isclose(expected, module.random_return(**options), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("module", "random", "optimal"),
    [
        (deep_sea, -0.0040234, 0.99),
        (pin_pad, 9.5510, 768.997),
        (key_chain, 4.35684e-4, 1.0),
        (pits, 1.41344e-4, 1.0),
    ],
)
def test_returns_of_the_defaults(module, random, optimal):
    assert module.random_return() == pytest.approx(random, rel=1e-4)
    assert module.optimal_return() == pytest.approx(optimal, rel=1e-6)
