"""SplitCartPole: CartPole's own dynamics, and a part of its state in each sense."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamer.envs.tasks.split_cartpole import (
    MIDDLE,
    RATE,
    REACH,
    SAID,
    SIDE,
    SLOPE,
    TARGET,
    SplitCartPole,
)
from dreamer.types import EnvError


def read(obs):
    """Cart, its velocity, pole, its velocity and target, out of the senses alone."""
    bright = obs["image"][16, :, 0].astype(float)
    place = (np.arange(SIDE) + 0.5) @ bright / bright.sum()
    spectrum = np.abs(np.fft.rfft(obs["audio"], 2**16))
    pitch = spectrum.argmax() * RATE / 2**16
    target = TARGET if obs["text"] == SAID[1] else -TARGET
    x, theta = (2 * place / SIDE - 1) * REACH, (pitch - MIDDLE) / SLOPE
    return np.array([x, obs["vector"][0], theta, obs["vector"][1], target])


def steered(episodes, blind=None):
    """Mean return of a fixed controller that reads its senses, one number out of five hidden."""
    total, env = 0.0, SplitCartPole()
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            state = read(obs)
            if blind is not None:
                state[blind] = 0.0
            x, speed, theta, turning, target = state
            lean = 0.1 * (x - target) + 0.25 * speed
            obs, reward, fallen, cut, _ = env.step(int(theta + lean + 0.3 * turning > 0))
            total, done = total + reward, fallen or cut
    return total / episodes


def test_the_dynamics_are_those_of_cartpole():
    env, plain = SplitCartPole(), gym.make("CartPole-v1").unwrapped
    env.reset(seed=3)
    plain.reset(seed=0)
    plain.state = env._cart.state
    done = False
    for action in np.random.default_rng(0).integers(2, size=30):
        _, _, done, _, _ = env.step(action)
        state, _, fallen, _, _ = plain.step(int(action))
        np.testing.assert_array_equal(env._state, state)
        assert done == fallen
        if done:
            break
    assert done


def test_every_part_of_the_state_can_be_read_back():
    env = SplitCartPole()
    obs, _ = env.reset(seed=0)
    for action in (0, 1, 1, 0, 1, 0, 0):
        x, speed, theta, turning, target = read(obs)
        np.testing.assert_allclose(x, env._state[0], atol=0.02)
        np.testing.assert_allclose(theta, env._state[2], atol=1e-3)
        np.testing.assert_allclose([speed, turning], env._state[[1, 3]], rtol=1e-6)
        assert target == (TARGET if env._right else -TARGET)
        obs, reward, *_ = env.step(action)
        assert reward == pytest.approx(max(0.0, 1.0 - abs(env._state[0] - target)))


def test_no_sense_tells_the_part_of_another():
    env = SplitCartPole()
    env.reset(seed=0)
    before = env._observe()
    for index, name in ((0, "image"), (2, "audio"), (1, "vector"), (3, "vector")):
        state = env._state.copy()
        env._state[index] += 0.1
        after = env._observe()
        changed = [key for key in before if not np.array_equal(before[key], after[key])]
        assert changed == [name]
        env._state = state


def test_reading_all_senses_keeps_the_pole_up_and_without_one_it_does_not():
    every = steered(3)
    assert every > 280
    assert steered(3, blind=2) < 100  # the pole, which only the sound tells
    assert steered(3, blind=1) < every
    assert steered(4, blind=4) < 0.9 * every  # the side, which only the text tells


def test_an_episode_is_cut_and_repeats_with_its_seed():
    env = SplitCartPole(steps=3)

    def play():
        texts = [env.reset(seed=7)[0]["text"]]
        *_, terminated, truncated, _ = [env.step(i % 2) for i in range(3)][-1]
        return texts, terminated, truncated, env._state.tolist()

    first = play()
    assert first[1:3] == (False, True)
    assert first == play()
    assert {SplitCartPole().reset(seed=seed)[0]["text"] for seed in range(9)} == set(SAID)


def test_gymnasium_finds_nothing_to_complain_about():
    check_env(gym.make("SplitCartPole-v0", render_mode="rgb_array").unwrapped)
    with pytest.raises(EnvError, match="SplitCartPole-v0: option steps: found 0"):
        SplitCartPole(steps=0)
