"""CueBits: every bit is in the senses it is said to be in, and in no other."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.tasks import cue_bits
from dreamer.envs.tasks.cue_bits import COLOURS, RATE, SENSES, CueBits, best_return
from dreamer.envs.vector import VectorEnv

EVERY = [set(c) for n in range(5) for c in itertools.combinations(SENSES, n)]


class Oracle:
    """Reads what it is shown of the senses it has, guesses the rest, remembers through a trial."""

    def __init__(self, senses, seed=0):
        self.senses, self.rng = senses, np.random.default_rng(seed)
        self.bits = self.rng.integers(2, size=3)

    def act(self, obs):
        seen = {key: value for key, value in obs.items() if key in self.senses}
        if seen.get("text") and "image" in seen:
            words = seen["text"].split()
            no = "not" in words
            colour = COLOURS[words[-1] if no else words[2]]
            middle = seen["image"][:, 8]
            self.bits[0] = int((middle == colour).all(-1).any() == no)
        if np.any(seen.get("audio", 0)):
            strength = np.abs(np.fft.rfft(seen["audio"]))
            pitch = strength.argmax() * RATE / len(seen["audio"])
            self.bits[1] = int(pitch > 1200)
        if np.any(seen.get("vector", 0)):
            self.bits[2] = int(seen["vector"][0] > 0)
        return int(self.bits @ (1, 2, 4))

    def forget(self):
        self.bits = self.rng.integers(2, size=3)


def returns(senses, episodes, **options):
    env, oracle = CueBits(**options), Oracle(senses)
    found = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, info = env.step(oracle.act(obs))
            total, done = total + reward, terminated or truncated
            if "scores" in info:
                oracle.forget()
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("options", [{}, {"spread": False}, {"negation": True, "jitter": True}])
def test_the_oracle_never_errs(options):
    assert (returns(set(SENSES), 30, colors=6, **options) == 10.0).all()


@pytest.mark.parametrize("missing", SENSES)
@pytest.mark.parametrize("options", [{}, {"reward": "mean"}, {"fail_ends": True}])
def test_without_a_sense_the_oracle_gets_what_is_computed(missing, options):
    senses = set(SENSES) - {missing}
    found = returns(senses, 400, spread=False, **options)
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - best_return(senses, **options)) < 4 * error


def test_exact_returns():
    assert best_return() == 10.0
    for missing in SENSES:
        rest = set(SENSES) - {missing}
        assert best_return(rest) == 5.0
        assert best_return(rest, reward="mean") == pytest.approx(10 * 5 / 6)
        assert best_return(rest, fail_ends=True) == pytest.approx(0.5 * (1 - 0.5**10) / 0.5)
    assert best_return({"image", "text"}) == 2.5
    assert best_return({"image", "text"}, reward="mean") == pytest.approx(10 * 2 / 3)
    assert cue_bits.random_return() == 1.25
    assert cue_bits.random_return(reward="mean", trials=4, colors=2) == 2.0
    assert cue_bits.random_return(fail_ends=True) == pytest.approx(0.125 * (1 - 0.125**10) / 0.875)
    assert cue_bits.optimal_return(fail_ends=True, trials=7) == 7.0
    # A partly paid mistake ends the episode too: one of two trials, two thirds of a point each.
    assert best_return({"image", "text"}, reward="mean", fail_ends=True, trials=2) == pytest.approx(
        2 / 3 * (1 + 1 / 4)
    )


def test_no_sense_leaks_a_bit_of_another():
    env = CueBits(spread=False, trials=1000)
    obs, _ = env.reset(seed=3)
    rows, bits = [], []
    for _ in range(999):
        bits.append(env._trial.bits)
        loud = np.square(obs["audio"]).mean()
        rows.append([obs["image"][16, 8, 0], len(obs["text"]), loud, *obs["vector"]])
        obs, *_ = env.step(0)
    rows, bits = np.array(rows, np.float64), np.array(bits)
    correlation = np.corrcoef(rows.T, bits.T)[: rows.shape[1], rows.shape[1] :]
    told = np.zeros_like(correlation, bool)
    told[3, 2] = True  # the first number and its sign
    assert np.abs(correlation[told]).min() > 0.8
    assert np.abs(correlation[~told]).max() < 0.14  # over four standard errors of chance
    assert abs(bits.mean() - 0.5) < 0.05


def test_a_spread_trial_shows_one_part_after_the_other_and_scores_the_last():
    env = CueBits(trials=2)
    obs, _ = env.reset(seed=1)
    shown, rewards = [], []
    done = False
    while not done:
        shown.append({key for key in SENSES if (obs[key] if key == "text" else obs[key].any())})
        answer = int(env._trial.bits @ (1, 2, 4))
        obs, reward, _, done, info = env.step(answer)
        rewards.append(reward)
        assert ("scores" in info) == (len(rewards) % 3 == 0)
    assert shown == [{"image", "text"}, {"audio"}, {"vector"}] * 2
    assert rewards == [0, 0, 1] * 2


@pytest.mark.parametrize("fail_ends", [False, True])
def test_a_wrong_bit_ends_the_episode_if_it_is_to(fail_ends):
    env = CueBits(spread=False, fail_ends=fail_ends, reward="mean", trials=3)
    env.reset(seed=0)
    wrong = int((1 - env._trial.bits) @ (1, 2, 4)) ^ 1  # the first bit is right after all
    _, reward, terminated, truncated, info = env.step(wrong)
    assert reward == pytest.approx(1 / 3)
    assert (terminated, truncated) == (fail_ends, False)
    assert info["scores"] == {"bit0": True, "bit1": False, "bit2": False, "trial": False}


def test_the_same_seed_shows_the_same():
    def episode():
        env = CueBits(spread=False, negation=True, jitter=True, colors=6)
        seen = [env.reset(seed=5)[0]] + [env.step(0)[0] for _ in range(9)]
        return [
            (o["text"], o["image"].tobytes(), o["audio"].tobytes(), o["vector"].tobytes())
            for o in seen
        ]

    assert episode() == episode()


def test_gymnasium_finds_nothing_to_complain_about():
    check_env(gym.make("CueBits-v0", render_mode="rgb_array").unwrapped)
    assert CueBits(jitter=True).render().shape == (160, 160, 3)


def test_rows_carry_every_sense():
    config = EnvConfig(
        id="CueBits-v0?spread=false",
        num_envs=2,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )
    rows = VectorEnv(config, seed=0).reset()
    kinds = {key: spec.kind for key, spec in VectorEnv(config, seed=0).spec.obs.items()}
    assert kinds == {name: name for name in sorted(SENSES)}
    assert bytes(rows["text"][0]).startswith(b"pick the ")
    assert rows["audio"].dtype == np.float32
    assert make_env(config).observation_space["audio"].shape == (256,)
