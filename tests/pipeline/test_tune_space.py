"""The section `tune`: what may be searched, in which order, and what is refused in one line."""

from __future__ import annotations

import itertools
import json

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from tuning import GRID, ROOT, parameters

from dreamer.types import ConfigError
from pipeline.params import load_raw
from pipeline.tune.config import tune_config
from pipeline.tune.pairs import differences, hopeless, share_as_low
from pipeline.tune.space import default_point, grid, name_of, read_space, size


def axes_of(**tune: object) -> tuple:
    raw = parameters(**tune)
    return read_space(tune_config(raw), raw)


def test_the_parameters_of_the_project_are_a_space_that_can_be_searched():
    raw = load_raw(ROOT / "params.yaml")
    axes = read_space(tune_config(raw), raw)
    assert {axis.key for axis in axes} == GRID.keys()
    assert default_point(axes)["policy.clip_ratio"] == raw["policy"]["clip_ratio"]
    assert len(list(grid(axes))) == 28  # free_nats of the default is not among the values


def test_a_grid_holds_every_combination_once_and_the_default_first():
    axes = axes_of(space=GRID)
    points = list(grid(axes))
    assert points[0] == default_point(axes)
    assert len({name_of(point) for point in points}) == len(points) == 27
    expected = set(itertools.product((0.5, 1.0, 2.0), (0.1, 3.0, 5.0), (0.1, 0.2, 0.3)))
    found = [tuple(point[key] for key in GRID) for point in points]
    assert set(found) == expected


def test_neighbours_in_a_grid_do_not_share_their_pretraining():
    models = [(p["world_model.kl_scale"], p["world_model.free_nats"]) for p in grid(axes_of())]
    assert len(set(models[1:10])) == 9, "the first nine after the default are nine world models"


def test_values_are_as_the_code_sees_them():
    (axis,) = axes_of(space={"world_model.kl_scale": [1, 1.0, 2]})
    assert json.dumps(axis.options) == "[1.0, 2.0]"


def test_ranges_become_distributions_of_their_kind():
    space = {
        "world_model.kl_scale": {"low": 0.25, "high": 4, "log": True},
        "policy.epochs": {"low": 1, "high": 4},
        "world_model.fusion": ["attention", "concat"],
    }
    found = {axis.key: axis.distribution for axis in axes_of(space=space, search="tpe")}
    assert found["world_model.kl_scale"] == FloatDistribution(0.25, 4.0, log=True)
    assert found["policy.epochs"] == IntDistribution(1, 4)
    assert found["world_model.fusion"] == CategoricalDistribution(["attention", "concat"])


def test_the_default_is_a_choice_even_where_it_is_no_value():
    axes = axes_of(space={"policy.clip_ratio": [0.1, 0.3]}, search="tpe")
    assert axes[0].distribution == CategoricalDistribution([0.1, 0.3, 0.2])
    assert size(axes) == 3


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"space": {}}, "tune.space: found {}; allowed: at least one parameter"),
        ({"space": {"policy.clipratio": [1]}}, "policy.clipratio: found 'an unknown key'"),
        ({"space": {"policy": [1]}}, "tune.space.policy: found 'a section'"),
        ({"space": {"policy.clip_ratio": []}}, "tune.space.policy.clip_ratio: found []"),
        ({"space": {"policy.clip_ratio": [0.1, -1]}}, "policy.clip_ratio: found -1"),
        ({"space": {"policy.clip_ratio": ["a"]}}, "policy.clip_ratio: found 'a'"),
        ({"space": {"policy.goal_every": [5, 4]}}, "policy.goal_every: found 4"),
        ({"space": {"seed": [1, 2]}}, "tune.space.seed: found [1, 2]; allowed: no such axis"),
        ({"space": {"evaluate.episodes": [1]}}, "tune.space.evaluate.episodes: found [1]"),
        ({"space": {"tune.trials": [1]}}, "tune.trials: found 'an unknown key'"),
        ({"space": {"env.active_modalities": [["a"]]}}, "tune.space.env.active_modalities"),
        (
            {"space": {"policy.clip_ratio": {"low": 0.1, "high": 0.3}}},
            "tune.space.policy.clip_ratio: found 'a range in a grid'",
        ),
        (
            {"space": {"policy.clip_ratio": {"low": 0.3, "high": 0.4}}, "search": "tpe"},
            "tune.space.policy.clip_ratio: found '0.3 to 0.4'; allowed: a range of float with",
        ),
        (
            {"space": {"policy.clip_ratio": {"low": 0.3, "high": 0.1}}},
            "tune.space.policy.clip_ratio.high: found 0.1; allowed: above low, 0.3",
        ),
        (
            {"space": {"policy.clip_ratio": {"low": 0, "high": 0.1, "log": True}}},
            "tune.space.policy.clip_ratio.low: found 0; allowed: above 0",
        ),
        ({"search": "random"}, "tune.search: found 'random'; allowed: grid | tpe"),
        ({"trials": 0}, "tune.trials: found 0; allowed: 1 to"),
        ({"seeds": []}, "tune.seeds: found []; allowed: at least one seed"),
        ({"seeds": [1, 11]}, "tune.final_seeds: found [11]; allowed: seeds that tuning has not"),
        ({"final_seeds": [5]}, "tune.final_seeds: found [5]; allowed: seeds with `seed`, 0"),
        ({"evaluate_seed": 1000000}, "tune.evaluate_seed: found 1000000; allowed: another one"),
        ({"prune_below": 0.6}, "tune.prune_below: found 0.6; allowed: 0 to 0.5"),
    ],
)
def test_mistakes_are_one_line(tune, message):
    with pytest.raises(ConfigError) as caught:
        axes_of(**tune)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ([], 1.0),
        ([-1.0], 0.5),
        ([-1.0, -2.0, -3.0], 1 / 8),
        ([1.0, 2.0, 3.0], 1.0),
        ([0.0, 0.0], 1.0),
        ([-3.0, 1.0, 2.0], 5 / 8),  # sums 0: itself, its mirror and the three below
    ],
)
def test_share_of_sign_flips_counted_by_hand(values, share):
    assert share_as_low(values) == share


def test_a_trial_is_hopeless_when_it_is_rarely_so_low_on_the_seeds_of_the_best():
    best = {1: 10.0, 2: 20.0, 3: 30.0}
    assert differences({2: 19.0, 1: 12.0, 9: 0.0}, best) == [2.0, -1.0]
    assert not hopeless({1: 0.0}, best, 0.5), "one pair proves nothing"
    assert hopeless({1: 9.0, 2: 19.0}, best, 0.25)
    assert not hopeless({1: 9.0, 2: 19.0}, best, 0.2)
    assert hopeless({1: 9.0, 2: 19.0, 3: 29.0}, best, 0.125)
    assert not hopeless({1: 9.0, 2: 22.0}, best, 0.5), "better in the mean"
    assert not hopeless({1: 0.0, 2: 0.0, 3: 0.0}, best, 0.0)
    assert not hopeless(best, best, 0.5)
