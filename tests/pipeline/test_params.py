"""The loader: YAML 1.2 scalars, and one line with the dotted path for every mistake."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from ruamel.yaml import YAML

from dreamer.types import ConfigError, check_range
from pipeline import params
from pipeline.params.__main__ import main


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    mode: Literal["fast", "slow"]

    def __post_init__(self):
        check_range("rate", self.rate, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Middle:
    inner: Inner
    width: int | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class Root:
    seed: int
    flag: bool
    middle: Middle
    names: tuple[str, ...]
    sizes: list[int]
    pair: tuple[int, float]
    note: str | None
    number: int | float
    free: dict[str, Any]
    rates: dict[str, float]
    maybe: Inner | None = None


RAW = {
    "seed": 1,
    "flag": True,
    "middle": {"inner": {"rate": 1, "mode": "fast"}, "width": "auto"},
    "names": ["a", "b"],
    "sizes": [1, 2],
    "pair": [1, 2],
    "note": None,
    "number": 1,
    "free": {"x": [1, {"y": None}]},
    "rates": {"a": 1},
}


def error(raw_or_call, *arguments):
    call = raw_or_call if callable(raw_or_call) else lambda: params.build(Root, raw_or_call)
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 0.0003),
        ("3.0e-4", 0.0003),
        ("1e6", 1e6),
        ("-1.5", -1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("+7", 7),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("n", "n"),
        ("12:30:45", "12:30:45"),
        ("'1'", "1"),
        ("1e", "1e"),
        ("CartPole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("[1, 2.0, no]", [1, 2.0, "no"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2_as_in_dvc(text, value):
    ours = params.parse_yaml(f"key: {text}")["key"]
    assert ours == value
    assert type(ours) is type(value)
    theirs = YAML(typ="safe", pure=True).load(f"key: {text}")["key"]
    assert theirs == value
    assert type(theirs) is type(value)


def test_a_date_stays_text_and_nan_is_a_number():
    assert params.parse_yaml("2026-01-02") == "2026-01-02"
    assert math.isnan(params.parse_yaml(".NaN"))


def test_a_duplicated_key_is_named_with_its_lines(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\npolicy:\n  clip_ratio: 0.1\n  epochs: 3\n  clip_ratio: 0.2\n")
    message = error(params.load_raw, path)
    assert message.startswith("policy.clip_ratio: ")
    assert "line 5" in message
    assert "line 3" in message
    assert "a.1.b" in error(params.parse_yaml, "a: [0, {b: 1, b: 1}]")


def test_the_same_key_in_two_sections_and_merges_are_fine():
    text = "base: &base {x: 1, y: 2}\na: {<<: *base, x: 3}\nb: {x: 1}"
    expected = {"base": {"x": 1, "y": 2}, "a": {"x": 3, "y": 2}, "b": {"x": 1}}
    assert params.parse_yaml(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1, 2\nb: 3", "line 2, column 2"),
        ("a: 1\n b: 2", "line 2, column 3"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a: \x00", "special characters"),
        ("a: *nothing", "undefined alias"),
        ("- a\n- b", "a mapping of sections"),
        ("", "found None; allowed: a mapping"),
    ],
)
def test_broken_yaml_is_one_line(tmp_path, text, part):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    message = error(params.load_raw, path)
    assert message.startswith(str(path))
    assert part in message


def test_unreadable_files_are_one_line(tmp_path):
    assert "No such file" in error(params.load_raw, tmp_path / "nothing.yaml")
    assert "Is a directory" in error(params.load_raw, tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    assert "byte 3" in error(params.load_raw, tmp_path / "latin.yaml")


# --- build


def test_build_nests_and_converts():
    built = params.build(Root, RAW)
    assert built.middle.inner == Inner(rate=1.0, mode="fast")
    assert type(built.middle.inner.rate) is float
    assert (built.names, built.sizes, built.pair) == (("a", "b"), [1, 2], (1, 2.0))
    assert type(built.pair[1]) is float
    assert type(built.number) is int
    assert type(params.build(Root, {**RAW, "number": 1.5}).number) is float
    assert built.free == {"x": [1, {"y": None}]}
    assert type(built.rates["a"]) is float
    assert built.maybe is None
    given = params.build(Root, {**RAW, "maybe": {"rate": 0.5, "mode": "slow"}})
    assert given.maybe == Inner(rate=0.5, mode="slow")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("seed", 1.0, "an integer"),
        ("seed", True, "an integer"),
        ("seed", "1", "an integer"),
        ("flag", 1, "true or false"),
        ("flag", "off", "true or false"),
        ("middle.inner.rate", "3e-4", "a number"),
        ("middle.inner.rate", True, "a number"),
        ("middle.inner.rate", 1.5, "0 to 1"),
        ("middle.inner.rate", math.nan, "0 to 1"),
        ("middle.inner.mode", "fats", "fast | slow"),
        ("middle.width", "wide", "an integer or auto"),
        ("middle.width", 1.5, "an integer or auto"),
        ("middle.width", {"a": 1}, "an integer or auto"),
        ("middle.inner", 3, "a section"),
        ("middle", None, "a section"),
        ("names", "a", "a list, each item text"),
        ("sizes", {}, "a list, each item an integer"),
        ("pair", [1], "a list of an integer, a number"),
        ("note", 3, "text or null"),
        ("number", "1", "an integer or a number"),
        ("free", [1], "a mapping"),
        ("maybe", 3, "a section with rate, mode or null"),
    ],
)
def test_a_wrong_value_names_its_path_what_was_found_and_what_is_allowed(key, value, allowed):
    raw = params.override({**RAW, "maybe": None}, {key: value})
    message = error(raw)
    assert message.startswith(f"{key}: found {value!r}; allowed: ")
    assert allowed in message


def test_errors_in_items_and_optional_sections_have_their_own_path():
    assert error({**RAW, "names": ["a", 1]}).startswith("names.1: found 1;")
    assert error({**RAW, "rates": {"b": "x"}}).startswith("rates.b: found 'x';")
    assert error({**RAW, "rates": {3: 1}}).startswith("rates: key 3: found 3;")
    maybe = {"rate": 7, "mode": "slow"}
    assert error({**RAW, "maybe": maybe}).startswith("maybe.rate: found 7.0; allowed: 0 to 1")


def test_unknown_and_missing_keys():
    inner = {"rate": 0.1, "mod": "fast"}
    message = error({**RAW, "middle": {"inner": inner, "width": 1}})
    assert message.startswith("middle.inner.mod: found 'an unknown key'; allowed: mode, did you")
    message = error({**RAW, "middle": {"inner": {"rate": 0.1}, "width": 1}})
    assert message == "middle.inner.mode: found 'nothing'; allowed: fast | slow"
    message = error({**RAW, "zzz": 1})
    assert message.startswith("zzz: ")
    assert "did you mean" not in message
    assert "middle" in message


def test_a_long_value_is_cut():
    assert len(error({**RAW, "seed": list(range(1000))})) < 120


def test_build_accepts_what_it_was_built_from():
    built = params.build(Root, RAW)
    assert params.build(Root, dataclasses.asdict(built)) == built


# --- override, --set, subset


def test_override_changes_one_leaf_and_leaves_the_original():
    changed = params.override(RAW, {"middle.inner.rate": 0.5, "seed": 9})
    assert changed["middle"] == {"inner": {"rate": 0.5, "mode": "fast"}, "width": "auto"}
    assert changed["seed"] == 9
    assert RAW["middle"]["inner"]["rate"] == 1
    assert RAW["seed"] == 1


def test_override_does_not_reach_through_yaml_aliases():
    raw = params.parse_yaml("a: &x {n: 1}\nb: *x")
    assert params.override(raw, {"a.n": 2}) == {"a": {"n": 2}, "b": {"n": 1}}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("middle.inner.rte", "middle.inner.rate"),
        ("rate", "middle.inner.rate"),
        ("inner.rate", "middle.inner.rate"),
    ],
)
def test_override_refuses_unknown_keys(key, meant):
    message = error(params.override, RAW, {key: 0.1})
    assert message.startswith(
        f"{key}: found 'an unknown key'; allowed: {meant}, did you mean that?"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy.lr=3e-4", ("policy.lr", 0.0003)),
        ("x=off", ("x", "off")),
        ("x=true", ("x", True)),
        ("x=a=b", ("x", "a=b")),
        ("x=", ("x", None)),
        ("x=[1, 2]", ("x", [1, 2])),
        ("env.id=my_pkg.envs:Mine-v0", ("env.id", "my_pkg.envs:Mine-v0")),
    ],
)
def test_parse_set(text, expected):
    assert params.parse_set(text) == expected


def test_parse_set_refuses():
    assert "key=value" in error(params.parse_set, "policy.lr")
    assert "key=value" in error(params.parse_set, "=3")
    assert error(params.parse_set, "x=[1").startswith("--set x: ")


def test_subset_keeps_the_nesting():
    raw = {"seed": 0, "env": {"id": "X", "n": 2}, "policy": {"lr": 1.0}}
    assert params.subset(raw, ["seed", "env.id"]) == {"seed": 0, "env": {"id": "X"}}
    assert params.subset(raw, ["policy", "env.n"]) == {"policy": {"lr": 1.0}, "env": {"n": 2}}
    assert error(params.subset, raw, ["env.idd"]).startswith("env.idd: ")
    assert raw["env"] == {"id": "X", "n": 2}


def test_subset_does_not_write_into_the_whole():
    raw = {"env": {"a": {"b": 1, "c": 2}}}
    part = params.subset(raw, ["env", "env.a.b"])
    assert raw == {"env": {"a": {"b": 1, "c": 2}}}
    assert part == raw


def test_sections_are_the_values_the_code_sees():
    built = params.build(Root, RAW)
    assert params.sections(built, ["middle.inner"]) == {
        "middle": {"inner": {"rate": 1.0, "mode": "fast"}}
    }


# --- the parameters of this project

EXAMPLE = """
seed: 0
device: auto
runtime: {threads: 2, compile: false}
env: {id: CartPole-v1, num_envs: 8, action_repeat: 1, active_modalities: all,
  optional_modalities: [], modalities: {}}
collect: {steps: 1000, policy: random}
replay: {capacity: 1000, batch_size: 16, seq_len: 16}
world_model: {size: tiny, kl_scale: 1.0, free_nats: 1, recon_scale: 1.0, modality_scales: {},
  reward_scale: 1, reward_outscale: 0, cont_scale: 1, discount_horizon: 100, world_lr: 4e-5,
  fusion: attention, modality_dropout: 0.0, embed_dim: auto,
  text: {model: own, finetune: false, tokenizer: own},
  audio: {features: waveform, rate: auto, bins: 32}}
pretrain: {updates: 5}
imagination: {horizon: 15, starts: all}
policy: {actor: ppo, clip_ratio: 0.2, epochs: 3, minibatches: 4, target_kl: 0.02,
  entropy_scale: 3e-4, slow_rate: 0.02, actor_lr: 3e-4, critic_lr: 3e-4, hierarchy: true,
  goal_every: 5, goal_groups: 8, goal_classes: 8, goal_lr: 3e-4, manager_entropy_scale: 1e-3,
  manager_target_kl: 0.1, worker: {goal: 1, extrinsic: 0, icm: 0, empowerment: 0}}
intrinsic:
  icm: {enabled: true, weight: 0.1, lr: 3e-4, head_lr: 3e-3}
  empowerment: {enabled: true, weight: 0.05, kind: action, steps: 2, every: 2, lr: 3e-4}
meta: {enabled: true, every: 10, warmup: 100, step: 0.02, trace: 0.9, check: 0, weights: false}
optimizer: {warmup_updates: 10, decay_from: 0.5, final_rate: 0.1}
train: {env_steps: 2000, updates_per_env_step: 0.125, extra_world_updates: 0, eval_every: 100,
  eval_episodes: 4, eval_policy: sample, eval_seed: 1, log_every: 10, checkpoint_seconds: 60}
evaluate: {episodes: 100, num_envs: 25, policy: sample, seed: 1000000}
"""


def example(**overrides):
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return params.override(params.parse_yaml(EXAMPLE), dotted)


def test_load_params(tmp_path):
    (tmp_path / "params.yaml").write_text(EXAMPLE)
    loaded = params.load_params(tmp_path / "params.yaml", {"env.active_modalities": ["state"]})
    assert loaded.env.active_modalities == ("state",)
    assert loaded.world_model.world_lr == 4e-5
    assert loaded.world_model.free_nats == 1.0
    assert loaded == params.from_raw(params.sections(loaded, example()))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("seed", -1, "0 to"),
        ("device", "gpu", "cpu | cuda | auto"),
        ("runtime.threads", 0, "1 to 256"),
        ("env.num_envs", 0, "1 to 4096"),
        ("world_model.embed_dim", "wide", "an integer or auto"),
        ("world_model.audio.rate", 44, "1000 to 192000"),
        ("world_model.audio.rate", 16000, "auto, or features: mel"),
        ("replay.capacity", 143, "at least 144, for a batch of 16 sequences of 16"),
        ("collect.steps", 143, "at least 144, for a batch of 16 sequences of 16"),
        ("train.env_steps", 999, "at least collect.steps, 1000"),
        ("imagination.starts", 17, "1 to 16"),
        ("policy.minibatches", 257, "1 to 256"),
        ("policy.goal_every", 4, "one of [1, 3, 5, 15], which divide imagination.horizon, 15"),
        ("policy.goal_every", 30, "one of [1, 3, 5, 15], which divide imagination.horizon, 15"),
        ("policy.goal_every", 0, "1 to 1000"),
        ("policy.critic_lr", 0.1, "1e-06 to 0.01 while meta.enabled"),
        ("world_model.world_lr", 1e-7, "1e-06 to 0.01 while meta.enabled"),
        ("policy.goal_classes", 1, "2 to 64"),
        ("policy.worker.goal", -1.0, "0 to 100"),
        ("policy.worker.goal", 0.0, "above 0, unless another stream drives the worker"),
        ("intrinsic.icm.weight", -0.1, "0 to 100"),
        ("intrinsic.empowerment.kind", "options", "action | option"),
        ("intrinsic.empowerment.steps", 0, "1 to 32"),
        ("evaluate.num_envs", 101, "1 to 100"),
    ],
)
def test_ranges_and_what_sections_demand_of_each_other(key, value, allowed):
    message = error(params.from_raw, params.override(example(), {key: value}))
    assert message.startswith(f"{key}: found {value!r}; allowed: ")
    assert allowed in message


@pytest.mark.parametrize(
    ("changes", "key", "found", "allowed"),
    [
        ({"imagination.horizon": 16}, "policy.goal_every", 5, "one of [1, 2, 4, 8, 16]"),
        ({"policy.actor": "reinforce"}, "policy.actor", "reinforce", "ppo, or hierarchy: false"),
        (
            {"policy.worker.icm": 0.1, "intrinsic.icm.enabled": False},
            "policy.worker.icm",
            0.1,
            "0, or intrinsic.icm.enabled: true",
        ),
        (
            {"policy.worker.empowerment": 0.1, "intrinsic.empowerment.enabled": False},
            "policy.worker.empowerment",
            0.1,
            "0, or intrinsic.empowerment.enabled: true",
        ),
        (
            {"policy.worker.empowerment": 0.1, "intrinsic.empowerment.kind": "option"},
            "policy.worker.empowerment",
            0.1,
            "0, because options are paid by intrinsic.empowerment.weight",
        ),
        (
            {"policy.hierarchy": False, "intrinsic.empowerment.kind": "option"},
            "intrinsic.empowerment.kind",
            "option",
            "action, or option with policy.hierarchy: true",
        ),
    ],
)
def test_what_the_hierarchy_demands_of_other_sections(changes, key, found, allowed):
    message = error(params.from_raw, params.override(example(), changes))
    assert message.startswith(f"{key}: found {found!r}; allowed: ")
    assert allowed in message


@pytest.mark.parametrize(
    "changes",
    [
        {"policy.hierarchy": False, "policy.goal_every": 4},  # nobody sets goals
        {"policy.hierarchy": False, "policy.actor": "reinforce"},
        {"policy.hierarchy": False, "intrinsic.icm.enabled": False, "policy.worker.icm": 0.1},
        {"policy.worker.icm": 0.1, "intrinsic.icm.weight": 0.0},
        {"intrinsic.empowerment.enabled": False, "intrinsic.empowerment.weight": 0.1},
        {"intrinsic.empowerment.kind": "option"},
        {"policy.goal_every": 15},
    ],
)
def test_levels_that_fit_pass(changes):
    params.from_raw(params.override(example(), changes))


def test_the_smallest_allowed_values_pass():
    tight = example(replay__capacity=144, collect__steps=144, train__env_steps=144)
    params.from_raw(tight)
    params.from_raw(example(imagination__starts=16, policy__minibatches=256))
    params.from_raw(example(collect__steps=1, pretrain__updates=0))


def test_files_are_checked_from_the_command_line(tmp_path):
    (tmp_path / "good.yaml").write_text(EXAMPLE)
    (tmp_path / "bad.yaml").write_text(EXAMPLE.replace("seed: 0", "seed: zero"))
    assert main([str(tmp_path / "good.yaml")]) is None
    message = main([str(tmp_path / "good.yaml"), str(tmp_path / "bad.yaml")])
    assert message == "seed: found 'zero'; allowed: an integer"
