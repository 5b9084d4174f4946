"""A policy without memory plays as one with it: the state that clients carry is all there is."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from builders import (
    CPU,
    SMALL,
    audio,
    categorical,
    grid,
    image,
    random_obs,
    text,
    vector_spec,
)
from served import env_config, save

from dreamer.agent import Agent
from dreamer.envs.vector import VectorEnv
from dreamer.evaluation import play_episodes
from dreamer.nn.noise import Noise
from dreamer.saved_agent import load_agent
from dreamer.types import ConfigError, ObsSpec
from dreamer.world_model.sizes import SIZES
from pipeline.serving.policy import ServedPolicy
from pipeline.serving.request import STATE

EVERY_SENSE = {
    "camera": image(8, 8),
    "cells": grid(3, 3, 4, 2),
    "choice": categorical(1, classes=5),
    "present/sound": ObsSpec(shape=(1,), dtype="uint8", kind="flag"),
    "said": text(12),
    "sound": audio(64, "uint8"),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


def numbers(obs):
    """Observations of rows as JSON has them."""
    return {key: np.asarray(value).tolist() for key, value in obs.items()}


def play_served(policy, env, choice, seed):
    """Return of one episode of which the policy remembers nothing."""
    envs = VectorEnv(env, seed)
    rows, state = envs.reset(), ""
    while not envs.finished:
        obs = numbers({key: rows[key] for key in envs.spec.obs})
        answer = policy.answer(obs | {STATE: [state]}, choice, seed)
        rows, state = envs.step(answer.action), answer.states[0]
    envs.close()
    return envs.pop_finished()


@pytest.mark.parametrize("hierarchy", [False, True])
@pytest.mark.parametrize("choice", ["mode", "sample"])
@pytest.mark.parametrize(
    "env",
    [
        "CartPole-v1",
        "counter_env:Counter-v0?keys=wide,ints,image,choice,choices,bits,text,symbols&length=5",
    ],
)
def test_an_episode_is_the_local_one_to_the_digit(tmp_path, hierarchy, choice, env):
    config = env_config(env)
    probe = VectorEnv(config, 0)
    probe.close()
    folder = save(tmp_path / "agent", probe.spec, env=env, hierarchy=hierarchy)
    agent = load_agent(folder, CPU)
    local = play_episodes(
        agent.model, agent.behavior.policy, config, episodes=1, seed=11, choice=choice
    )
    assert play_served(ServedPolicy(folder), config, choice, 11) == local


@pytest.mark.parametrize("continuous", [0, 3])
def test_the_state_is_the_carry_to_the_bit(tmp_path, continuous):
    spec = vector_spec(3, discrete=() if continuous else (2, 3), continuous=continuous)
    folder = save(tmp_path / "agent", spec, hierarchy=True)
    policy, saved = ServedPolicy(folder), load_agent(folder, CPU)
    agent = Agent(
        saved.model, saved.behavior.policy, 1, Noise(5, CPU), stream="evaluate", choice="sample"
    )
    state = ""
    for step in range(6):
        obs = {"v0": random_obs(spec, (1,), step)["v0"].numpy()}
        marks = {"is_first": np.array([step == 0]), "is_last": np.array([False])}
        action = agent.act(obs | marks, step)
        answer = policy.answer(numbers(obs) | {STATE: [state]}, "sample", 5)
        state = answer.states[0]
        rows = policy.texts.read({0: state})
        carried = policy.texts.carry(rows)
        assert np.array_equal(answer.action, action)
        assert all(carried[name].equal(value) for name, value in agent.state_dict().items())
    assert (rows["seed"], rows["step"]) == (5, 6)


def test_rows_of_a_batch_do_not_know_of_each_other(tmp_path):
    spec = vector_spec(3, continuous=2)
    policy = ServedPolicy(save(tmp_path / "agent", spec, hierarchy=True))
    obs = random_obs(spec, (4, 3))["v0"].tolist()
    alone, together = [], [""] * 3
    for index in range(3):
        state = ""
        for step in range(index, 4):  # they start at different times
            answer = policy.answer({"v0": [obs[step][index]], STATE: [state]}, "sample", index)
            state = answer.states[0]
        alone.append(answer.action[0])
    for step in range(4):
        there = [index for index in range(3) if index <= step]
        inputs = {
            "v0": [obs[step][index] for index in there],
            STATE: [together[index] for index in there],
        }
        # Row i of a request takes seed + i for an episode that starts.
        answer = policy.answer(inputs, "sample", 0)
        for index, state in zip(there, answer.states, strict=True):
            together[index] = state
    np.testing.assert_allclose(answer.action, alone, atol=1e-5)


def test_all_senses_are_read_as_numbers_or_as_bytes_and_texts(tmp_path):
    spec = vector_spec(3, discrete=(2,), **EVERY_SENSE)
    policy = ServedPolicy(save(tmp_path / "agent", spec))
    obs = {key: value.numpy() for key, value in random_obs(spec, (2,)).items()}
    plain = policy.answer(numbers(obs) | {STATE: ["", ""]}, "mode", 0)
    short = numbers(obs) | {
        "camera": [base64.b64encode(row.tobytes()).decode() for row in obs["camera"]],
        "cells": [base64.b64encode(row.tobytes()).decode() for row in obs["cells"]],
        "said": [row.tobytes().decode() for row in obs["said"]],
        "sound": [base64.b64encode(row.tobytes()).decode() for row in obs["sound"]],
    }
    assert policy.answer(short | {STATE: ["", ""]}, "mode", 0).states == plain.states


GOOD = {"v0": [[0.0, 1.0, 2.0]], STATE: [""]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v0": [[0.0, 1.0]]}, r"inputs\.v0: found 'shape \(1, 2\) of float64'; allowed: shape"),
        ({"v0": [[0.0, 1.0], [2.0]]}, r"inputs\.v0: found 'rows of different shapes'"),
        ({"v0": [["a", "b", "c"]]}, r"inputs\.v0: found 'shape \(1, 3\) of str32'"),
        ({"v0": ["abc"]}, r"inputs\.v0: found 'abc'; allowed: numbers, as float32"),
        ({"v0": [[None, 1.0, 2.0]]}, r"inputs\.v0: found 'shape \(1, 3\) of object'"),
        ({"v0": [[1e300, 1.0, 2.0]]}, r"inputs\.v0: found 'NaN or infinity'"),
        ({"v0": []}, r"inputs\.v0: found 'shape \(0,\) of float64'"),
        ({"v0": 3}, r"inputs\.v0: found 'shape \(\) of int64'"),
        ({"v1": [[1.0]]}, r"inputs: found \['recurrent_state', 'v0', 'v1'\]; allowed: an object"),
        ({STATE: []}, r"inputs\.recurrent_state: found 'a list of 0'; allowed: a list of 1 to"),
        ({STATE: "abc"}, r"inputs\.recurrent_state: found 'abc'; allowed: a list"),
        ({STATE: [None]}, r"inputs\.recurrent_state\[0\]: found 'None of NoneType'"),
        ({STATE: ["", ""]}, r"inputs\.v0: found 'shape \(1, 3\) of float64'; allowed: shape \(2,"),
    ],
)
def test_a_malformed_request_is_refused_in_one_line(tmp_path, change, reason):
    policy = ServedPolicy(save(tmp_path / "agent", vector_spec(3, discrete=(2,))))
    with pytest.raises(ConfigError, match=reason) as caught:
        policy.answer(GOOD | change, "mode", 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (
            "camera",
            [np.full((8, 8, 3), 0.5).tolist()],
            r"float64'; allowed: shape \(1, 8, 8, 3\) of",
        ),
        (
            "camera",
            [np.full((8, 8, 3), 256).tolist()],
            r"found 256; allowed: whole numbers, 0 to 255",
        ),
        ("camera", ["AAAA"], r"found 'AAAA'; allowed: base64 of 192 bytes"),
        ("camera", ["?"], r"found '\?'; allowed: base64 of 192 bytes"),
        (
            "cells",
            [np.full((3, 3, 2), 3).tolist()],
            r"found 3; allowed: whole numbers, 0 to \[1, 3\]",
        ),
        ("choice", [[5]], r"found 5; allowed: whole numbers, 0 to 4"),
        ("present/sound", [[2]], r"found 2; allowed: whole numbers, 0 to 1"),
        ("said", ["thirteen bytes"], r"found 'thirteen bytes'; allowed: texts of at most 12 bytes"),
        ("said", ["a\0b"], r"allowed: texts of at most 12 bytes without NUL"),
        ("sound", [[-1] * 64], r"found -1; allowed: whole numbers, 0 to 255"),
    ],
)
def test_each_sense_says_what_it_allows(tmp_path, key, value, reason):
    spec = vector_spec(discrete=(2,), **EVERY_SENSE)
    policy = ServedPolicy(save(tmp_path / "agent", spec))
    inputs = numbers({k: v.numpy() for k, v in random_obs(spec, (1,)).items()})
    with pytest.raises(ConfigError, match=rf"inputs\.{key}: .*{reason}"):
        policy.answer(inputs | {key: value, STATE: [""]}, "mode", 0)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (("best", 0), r"params\.policy: found 'best'; allowed: mode or sample"),
        (("mode", -1), r"params\.seed: found -1; allowed: a whole number, 0 to"),
        (("mode", 0.5), r"params\.seed: found 0\.5"),
        (("mode", True), r"params\.seed: found True"),
    ],
)
def test_parameters_are_checked(tmp_path, params, reason):
    policy = ServedPolicy(save(tmp_path / "agent", vector_spec(3, discrete=(2,))))
    with pytest.raises(ConfigError, match=reason):
        policy.answer(GOOD, *params)


def sealed(body: bytes) -> str:
    return base64.b64encode(body + zlib.crc32(body).to_bytes(4, "little")).decode()


def test_a_state_that_the_agent_did_not_write_is_refused(tmp_path):
    spec = vector_spec(3, discrete=(2,))
    policy = ServedPolicy(save(tmp_path / "agent", spec, hierarchy=True))
    other = ServedPolicy(save(tmp_path / "other", spec, hierarchy=True, seed=2))
    flat = ServedPolicy(save(tmp_path / "flat", spec))
    state = policy.answer(GOOD, "mode", 0).states[0]
    body = base64.b64decode(state)[:-4]
    wrong = np.frombuffer(base64.b64decode(state), policy.texts.layout).copy()
    wrong["deter"][0, 1] = np.nan
    beyond = np.frombuffer(base64.b64decode(state), policy.texts.layout).copy()
    beyond["stoch"] = SMALL.classes
    faults = {
        state[:-4]: "damaged text",
        state.replace(state[40], "A" if state[40] != "A" else "B"): "damaged text",
        "not base64!": "'not base64! of 11 characters'",
        "AA": "characters",
        sealed(b"\2" + body[1:]): "state of version 2, this is version 1",
        sealed(body + b"\0"): "a state of another agent",
        sealed(wrong.tobytes()[:-4]): "values that no agent writes",
        sealed(beyond.tobytes()[:-4]): "values that no agent writes",
        other.answer(GOOD, "mode", 0).states[0]: f"a state of agent {other.mark:016x}, this is",
        flat.answer(GOOD, "mode", 0).states[0]: "a state of another agent",
    }
    for text_, reason in faults.items():
        with pytest.raises(ConfigError, match=rf"recurrent_state\[0\]: found .*{reason}") as caught:
            policy.answer(GOOD | {STATE: [text_]}, "mode", 0)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250
