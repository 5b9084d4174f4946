"""The flat configuration: every promised key, and one line for every mistake."""

import json
import logging

import pytest

from dreamer.types import ActionSpec, ConfigError, EnvSpec, ObsSpec
from pipeline.flat_config import FLAT_KEYS, check_dims, read_flat_config, read_search_space

PROMISED = {
    "obs_dim": 779,
    "embed_dim": 1024,
    "action_dim": 5,
    "batch_size": 16,
    "seq_len": 64,
    "world_lr": 6e-4,
    "actor_lr": 3e-4,
    "use_wandb": True,
}
SPEC = EnvSpec(
    {
        "image": ObsSpec(shape=(4, 4, 3), dtype="uint8", kind="image"),
        "vector": ObsSpec(shape=(5,), dtype="float32", kind="vector"),
    },
    ActionSpec(kind="discrete", sizes=(2, 3)),
)


@pytest.fixture
def write(tmp_path):
    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "config.json").write_text(text)
        return tmp_path / "config.json"

    return write


def refused(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_promised_example(write, caplog):
    caplog.set_level(logging.INFO)
    overrides, expectations = read_flat_config(write(PROMISED))
    assert overrides == {
        "world_model.embed_dim": 1024,
        "replay.batch_size": 16,
        "replay.seq_len": 64,
        "world_model.world_lr": 6e-4,
        "policy.actor_lr": 3e-4,
    }
    assert expectations == {"obs_dim": 779, "action_dim": 5}
    assert len(caplog.records) == 1
    assert "MLflow" in caplog.text


def test_without_wandb_nothing_is_said(write, caplog):
    caplog.set_level(logging.INFO)
    assert read_flat_config(write({"use_wandb": False})) == ({}, {})
    assert caplog.records == []


def test_dotted_keys_pass(write):
    config = {"seed": 3, "intrinsic.icm.weight": 0.5, "steps": 100, "env_id": "X-v0"}
    expected = {"seed": 3, "intrinsic.icm.weight": 0.5, "train.env_steps": 100, "env.id": "X-v0"}
    assert read_flat_config(write(config)) == (expected, {})


def test_no_two_flat_keys_mean_the_same():
    assert len(set(FLAT_KEYS.values())) == len(FLAT_KEYS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kl_scale": [0.5, 1.0]}, "world_model.kl_scale: found [0.5, 1.0]; allowed: one value"),
        ({"btch_size": 3}, "btch_size: found 'an unknown key'; allowed: batch_size, did you mean"),
        ({"zzz": 3}, "zzz: found 'an unknown key'; allowed: seed, device"),
        ({"policy": {"lr": 1}}, "policy: found 'an unknown key'"),
        ({"seed": {"a": 1}}, "seed: found {'a': 1}; allowed: one value"),
        ({"seed": []}, "seed: found []; allowed: at least one value"),
        ({"env.id": "a", "env_id": "b"}, "env_id: found 'env.id again'"),
        ('{"seed": 1, "seed": 2}', "seed: found 'the key twice'; allowed: each key once"),
        ({"use_wandb": 1}, "use_wandb: found 1; allowed: true or false"),
        ({"obs_dim": 0}, "obs_dim: found 0; allowed: a positive integer"),
        ({"obs_dim": [4, 8]}, "obs_dim: found [4, 8]; allowed: a positive integer"),
        ({"action_dim": True}, "action_dim: found True; allowed: a positive integer"),
        ("[1]", "config.json: found [1]; allowed: one JSON object"),
        ('{"seed": 1,}', "allowed: valid JSON"),
        ('{"seed": NaN}', "NaN is no JSON number"),
        ("", "allowed: valid JSON"),
    ],
)
def test_mistakes_are_one_line(write, content, message):
    assert message in refused(read_flat_config, write(content))


def test_unreadable_files_are_one_line(tmp_path):
    assert "No such file" in refused(read_flat_config, tmp_path / "nothing.json")
    (tmp_path / "latin.json").write_bytes(b'{"seed": "\xff"}')
    assert "valid JSON" in refused(read_flat_config, tmp_path / "latin.json")


def test_lists_are_a_search_space(write):
    config = {"kl_scale": [0.5, 1.0, 2.0], "policy.clip_ratio": [0.1], "seed": 1, "obs_dim": 4}
    space, overrides, expectations = read_search_space(write(config))
    assert space == {"world_model.kl_scale": [0.5, 1.0, 2.0], "policy.clip_ratio": [0.1]}
    assert (overrides, expectations) == ({"seed": 1}, {"obs_dim": 4})


def test_dims_are_those_of_the_environment():
    check_dims(SPEC, {})
    check_dims(SPEC, {"obs_dim": 53, "action_dim": 5})
    message = refused(check_dims, SPEC, {"obs_dim": 779})
    assert (
        message == "obs_dim: found 779; allowed: 53: the environment observes image 4x4x3, vector 5"
    )
    message = refused(check_dims, SPEC, {"obs_dim": 53, "action_dim": 2})
    assert message == "action_dim: found 2; allowed: 5: the environment's actions are discrete"
