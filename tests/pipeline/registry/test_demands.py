"""The section `promote`: of one environment, with seeds of its own, in every preset."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamer.types import ConfigError
from pipeline.commands.settings import write_params
from pipeline.params import load_raw, override
from pipeline.presets import list_presets, preset_overrides
from pipeline.registry.config import demands_for, promote_config
from pipeline.registry.store import default_name
from pipeline.stages.session import STAGES

ROOT = Path(__file__).parents[3]
RAW = load_raw(ROOT / "params.yaml")


def written(path, **promote):
    values = {f"promote.{key}": value for key, value in promote.items()}
    write_params(path, override(RAW, values))
    return path


@pytest.mark.parametrize("preset", [None, *sorted(list_presets())])
def test_every_preset_demands_returns_of_its_own_environment(preset):
    raw = RAW if preset is None else override(RAW, preset_overrides(preset, RAW))
    config = promote_config(raw)
    assert config.env == raw["env"]["id"]
    if config.env != RAW["env"]["id"]:  # what CartPole demands would mean nothing there
        assert {"promote.env", "promote.floor", "promote.tolerance"} <= preset_overrides(
            preset, RAW
        ).keys()


def test_no_stage_reads_the_section():
    assert not [name for name, stage in STAGES.items() if "promote" in stage.params]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("floor", None, "promote.floor: found None; allowed: a number"),
        ("floor", float("nan"), "promote.floor: found nan; allowed: -1e+12 to 1e+12"),
        ("tolerance", -1.0, "promote.tolerance: found -1.0; allowed: 0 to 1e+12"),
        ("confidence", 1.0, "promote.confidence: found 1.0; allowed: 0.5 to 0.9999"),
        ("seed", RAW["seed"], "promote.seed: found 0; allowed: another one than seed: "),
        ("seed", RAW["evaluate"]["seed"], "allowed: another one than evaluate.seed: nothing may"),
        ("seed", RAW["train"]["eval_seed"], "allowed: another one than train.eval_seed"),
        ("seed", RAW["tune"]["evaluate_seed"], "allowed: another one than tune.evaluate_seed"),
        ("seed", RAW["tune"]["final_seeds"][-1], "allowed: another one than tune.final_seeds"),
    ],
)
def test_mistakes_name_the_key(key, value, message):
    with pytest.raises(ConfigError) as caught:
        promote_config(override(RAW, {f"promote.{key}": value}))
    assert message in str(caught.value)


def test_no_section_is_a_mistake():
    raw = {name: section for name, section in RAW.items() if name != "promote"}
    with pytest.raises(ConfigError, match="promote: found 'no such section'"):
        promote_config(raw)


def test_the_project_decides_where_it_can_and_the_training_where_it_cannot(tmp_path):
    own = written(tmp_path / "own.yaml", floor=1.0)
    beside = written(tmp_path / "beside.yaml", floor=2.0)
    pendulum = written(tmp_path / "pendulum.yaml", env="Pendulum-v1", floor=-3.0)
    assert demands_for("CartPole-v1", [own, beside]).gate.floor == 1.0
    assert demands_for("Pendulum-v1", [own, pendulum]).gate.floor == -3.0
    assert demands_for("Pendulum-v1", [own, pendulum]).path == pendulum


def test_what_is_demanded_in_one_environment_is_never_applied_to_another(tmp_path):
    own = written(tmp_path / "own.yaml")
    with pytest.raises(ConfigError) as caught:
        demands_for("Pendulum-v1", [own, own])
    assert str(caught.value).startswith(
        "promote.env: found 'CartPole-v1'; allowed: Pendulum-v1, the environment of the agent, "
    )


def test_the_gate_plays_as_the_evaluation_does_with_a_seed_of_its_own(tmp_path):
    playing = demands_for("CartPole-v1", [written(tmp_path / "own.yaml", seed=77)]).playing
    assert playing.seed == 77
    how = {key: value for key, value in RAW["evaluate"].items() if key != "seed"}
    assert {key: getattr(playing, key) for key in how} == how


def test_one_episode_makes_no_interval(tmp_path):
    changes = {"evaluate.episodes": 1, "evaluate.num_envs": 1}
    write_params(tmp_path / "p.yaml", override(RAW, changes))
    with pytest.raises(ConfigError, match=r"evaluate\.episodes: found 1; allowed: at least 2"):
        demands_for("CartPole-v1", [tmp_path / "p.yaml"])


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ("CartPole-v1", "dreamer-CartPole-v1"),
        ("ALE/SpaceInvaders-v5?size=64", "dreamer-ALE-SpaceInvaders-v5-size-64"),
        ("my.envs:Mine-v0?a=[1]", "dreamer-my.envs-Mine-v0-a-1"),
    ],
)
def test_names_that_the_registry_allows(env, name):
    assert default_name(env) == name
