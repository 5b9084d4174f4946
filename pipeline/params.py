"""`params.yaml` and overrides -> frozen dataclasses; the only reader of YAML.

YAML 1.2 scalar rules, because DVC's reader follows them and plain PyYAML does not: `3e-4` is a
number and `off`, `no` and `012:30` are strings (https://yaml.org/spec/1.2.2/#103-core-schema).
Every mistake is one `ConfigError` with the dotted path, what was found and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.envs.make import EnvConfig
from dreamer.loop import TrainConfig
from dreamer.pretraining import PretrainConfig
from dreamer.replay.buffer import ReplayConfig
from dreamer.trainer import OptimizerConfig
from dreamer.types import ConfigError, check_range
from dreamer.world_model.imagination import ImaginationConfig
from dreamer.world_model.model import WorldModelConfig

Raw = dict[str, Any]  # what YAML holds, before it is checked
T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of the YAML 1.2 core schema."""

    # without those of YAML 1.1; those of 1.2 are added below
    yaml_implicit_resolvers = {  # noqa: RUF012
        "<": [("tag:yaml.org,2002:merge", re.compile("<<"))]
    }


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse_yaml(text: str, name: str = "params.yaml") -> Any:  # noqa: ANN401
    """Read one YAML document.

    Args:
        text: The document.
        name: What to call it in errors.

    Raises:
        ConfigError: if it is not YAML, or a key is there twice.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            _refuse_duplicates(root, "", name)
            return loader.construct_document(root) if root else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(name, _one_line(error), "valid YAML") from error


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(str(getattr(error, "problem", None) or error).split())


def _refuse_duplicates(node: yaml.Node | None, path: str, name: str) -> None:
    """Raise if a mapping below `node` has a key twice; YAML readers keep the last in silence."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_duplicates(item, _join(path, str(index)), name)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            dotted, line = _join(path, str(key.value)), key.start_mark.line + 1
            if dotted in lines:
                found = f"the key again in line {line} of {name}, first in line {lines[dotted]}"
                raise ConfigError(dotted, found, "each key once")
            lines[dotted] = line
            _refuse_duplicates(value, dotted, name)


def load_raw(path: str | Path = "params.yaml") -> Raw:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: if it is missing, unreadable, broken or no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), error.strerror, "a readable YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"byte {error.start} that is no UTF-8", "UTF-8") from error
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise ConfigError(str(path), _shown(raw), "a mapping of sections")
    return raw


def parse_set(text: str) -> tuple[str, Any]:
    """Split `key=value` of `--set`; the value is read as YAML.

    Raises:
        ConfigError: if there is no key, no `=`, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set", text, "key=value, e.g. policy.clip_ratio=0.1")
    return key.strip(), parse_yaml(value, f"--set {key.strip()}")


def leaves(raw: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything that is not a non-empty mapping, in order."""
    for key, value in raw.items():
        dotted = _join(path, str(key))
        if isinstance(value, Mapping) and value:
            yield from leaves(value, dotted)
        else:
            yield dotted, value


def override(raw: Raw, values: Mapping[str, Any]) -> Raw:
    """Return a copy of `raw` with the values of dotted keys replaced.

    Raises:
        ConfigError: if a key is not there already; a misspelt one would change nothing.
    """
    for dotted, value in values.items():
        raw = _replaced(raw, dotted.split("."), value, raw, dotted)
    return raw


def _replaced(node: Any, keys: list[str], value: Any, raw: Raw, dotted: str) -> Any:  # noqa: ANN401
    if not keys:
        return value
    if not isinstance(node, dict) or keys[0] not in node:
        raise ConfigError(dotted, "an unknown key", _hint(dotted, [key for key, _ in leaves(raw)]))
    return {**node, keys[0]: _replaced(node[keys[0]], keys[1:], value, raw, dotted)}


def subset(raw: Mapping[str, Any], names: Iterable[str]) -> Raw:
    """Return the part of `raw` that a stage declares in its `params:`, nested as in the whole.

    Args:
        raw: All parameters.
        names: Dotted keys of sections or values, e.g. `seed`, `policy`, `env.id`.

    Raises:
        ConfigError: if a name is not there.
    """
    part: Raw = {}
    for name in names:
        source, target = raw, part
        *parents, last = name.split(".")
        for key in [*parents, last]:
            if not isinstance(source, Mapping) or key not in source:
                raise ConfigError(name, "an unknown key", _hint(name, [k for k, _ in leaves(raw)]))
            if key is not last:
                target = target.setdefault(key, {})
            source = source[key]
        target[last] = source
    return part


def sections(params: Any, names: Iterable[str]) -> Raw:  # noqa: ANN401
    """Like `subset`, from built parameters: the values as the code sees them."""
    return subset(dataclasses.asdict(params), names)


def build(cls: type[T], raw: Any, path: str = "") -> T:  # noqa: ANN401
    """Build a dataclass, and the dataclasses in it, from what YAML holds.

    Args:
        cls: A dataclass; an integer is accepted for a float, a boolean never for a number.
        raw: A mapping with exactly its fields; those with a default may be left out.
        path: Dotted path of the section, for errors.

    Raises:
        ConfigError: naming the dotted key, what was found and what is allowed.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(path or cls.__name__, _shown(raw), "a section of key: value lines")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in fields:
            raise ConfigError(_join(path, str(key)), "an unknown key", _hint(str(key), fields))
    for name, field in fields.items():
        no_default = field.default is field.default_factory is dataclasses.MISSING
        if name not in raw and no_default:
            raise ConfigError(_join(path, name), "nothing", _described(hints[name]))
    values = {key: _coerce(hints[key], value, _join(path, key)) for key, value in raw.items()}
    try:
        return cls(**values)
    except ConfigError as error:  # from __post_init__, which knows the bare name only
        raise ConfigError(_join(path, error.key), error.found, error.allowed) from error


def _coerce(hint: Any, value: Any, path: str) -> Any:  # noqa: ANN401
    """Return `value` as `hint` wants it, or raise `ConfigError`."""
    origin, arms = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, path)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(hint, arms, value, path)
    if origin in (tuple, list, Sequence) and isinstance(value, list | tuple):
        return _coerce_items(hint, value, path)
    if (origin or hint) in (dict, Mapping) and isinstance(value, dict):
        key_hint, item_hint = arms or (str, Any)
        return {
            _coerce(key_hint, key, f"{path}: key {key!r}"): _coerce(
                item_hint, item, _join(path, str(key))
            )
            for key, item in value.items()
        }
    if hint is float and type(value) in (int, float):
        return float(value)
    if origin is Literal and any(value == arm and type(value) is type(arm) for arm in arms):
        return value
    if (hint is None or isinstance(hint, type)) and type(value) is (hint or type(None)):
        return value
    raise ConfigError(path, _shown(value), _described(hint))


def _coerce_union(hint: Any, arms: tuple[Any, ...], value: Any, path: str) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):  # an error inside the one section names its key
        nested = [arm for arm in arms if dataclasses.is_dataclass(arm)]
        arms = tuple(nested) if len(nested) == 1 else arms
        if len(arms) == 1:
            return _coerce(arms[0], value, path)
    for arm in sorted(arms, key=lambda arm: arm is float):  # 1 stays an int in `float | int`
        try:
            return _coerce(arm, value, path)
        except ConfigError:
            continue
    raise ConfigError(path, _shown(value), _described(hint))


def _coerce_items(hint: Any, value: Sequence[Any], path: str) -> Any:  # noqa: ANN401
    arms = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and (len(arms) != 2 or arms[1] is not Ellipsis):
        if len(value) != len(arms):
            raise ConfigError(path, _shown(value), _described(hint))
    else:
        arms = (arms[0],) * len(value)
    items = [_coerce(a, v, f"{path}.{i}") for i, (a, v) in enumerate(zip(arms, value, strict=True))]
    return items if typing.get_origin(hint) is list else tuple(items)


def _described(hint: Any) -> str:  # noqa: ANN401
    """Say in words what a type hint accepts."""
    origin, arms = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(arm) for arm in arms)
    if origin is Literal:
        return " | ".join(str(arm) for arm in arms)
    if origin is tuple and Ellipsis not in arms:
        return "a list of " + ", ".join(_described(arm) for arm in arms)
    if origin in (tuple, list, Sequence):
        return f"a list, each item {_described(arms[0])}"
    if dataclasses.is_dataclass(hint):
        return "a section with " + ", ".join(f.name for f in dataclasses.fields(hint))
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    words |= {type(None): "null", None: "null"}  # type: ignore[dict-item]
    return words.get(hint, "a mapping" if (origin or hint) in (dict, Mapping) else str(hint))


def _shown(value: Any) -> Any:  # noqa: ANN401
    """Keep an error on one short line, whatever was found."""
    return value if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."


def _hint(key: str, known: Iterable[str]) -> str:
    """List the known keys, the likely one first."""
    names = list(known)
    tail = key.rsplit(".", 1)[-1]
    tails = {name.rsplit(".", 1)[-1]: name for name in names}
    near = [tails[tail]] if tail in tails else difflib.get_close_matches(key, names, n=1)
    near = near or [tails[t] for t in difflib.get_close_matches(tail, tails, n=1)]
    listed = ", ".join(names if len(names) <= 24 else sorted({n.split(".")[0] for n in names}))
    return (f"{near[0]}, did you mean that? Known: " if near else "") + listed


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the machine is used.

    Attributes:
        threads: CPU threads of one operation; sums may differ in the last bit between counts.
        compile: Whether the costly pieces of a training update run through torch.compile; results
            differ by rounding.
    """

    threads: int
    compile: bool

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("threads", self.threads, 1, 256)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """The stage `collect`.

    Attributes:
        steps: Environment steps over all environments; a reset is a step.
        policy: Who acts.
    """

    steps: int
    policy: Literal["random"]

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("steps", self.steps, 1, 10**9)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The stage `evaluate`.

    Attributes:
        episodes: Episodes played in all, `num_envs` of them at a time.
        policy: `sample` actions or take the `mode`.
        seed: Of the episodes and of the noise, apart from that of training.
    """

    episodes: int
    num_envs: int
    policy: Literal["sample", "mode"]
    seed: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("episodes", self.episodes, 1, 10**6)
        check_range("num_envs", self.num_envs, 1, 4096)
        check_range("seed", self.seed, 0, 2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class Params:
    """Everything in `params.yaml`, one section per part that it configures."""

    seed: int
    device: Literal["cpu", "cuda", "auto"]
    runtime: RuntimeConfig
    env: EnvConfig
    collect: CollectConfig
    replay: ReplayConfig
    world_model: WorldModelConfig
    pretrain: PretrainConfig
    imagination: ImaginationConfig
    policy: PolicyConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    evaluate: EvaluateConfig

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("seed", self.seed, 0, 2**31 - 1)


def validate(params: Params) -> Params:
    """Check what sections demand of each other; return the parameters.

    Raises:
        ConfigError: naming the key to change.
    """
    replay, rings, starts = params.replay, params.env.num_envs, params.imagination.starts
    # per environment: a window that ends before the write head, and its share of the batch
    rows = rings * (replay.seq_len + -(-replay.batch_size // rings))
    demands = {"replay.capacity": replay.capacity}
    if params.pretrain.updates:
        demands["collect.steps"] = params.collect.steps
    for key, found in demands.items():
        if found < rows:
            allowed = f"at least {rows}, for a batch of {replay.batch_size} sequences of"
            raise ConfigError(key, found, f"{allowed} {replay.seq_len} from {rings} environments")
    if params.train.env_steps < params.collect.steps:
        allowed = f"at least collect.steps, {params.collect.steps}, which it includes"
        raise ConfigError("train.env_steps", params.train.env_steps, allowed)
    if starts != "all" and starts > replay.seq_len:
        raise ConfigError("imagination.starts", starts, f"all, or 1 to {replay.seq_len} (seq_len)")
    per_sequence = replay.seq_len if starts == "all" else starts
    check_range(
        "policy.minibatches", params.policy.minibatches, 1, replay.batch_size * per_sequence
    )
    if params.evaluate.num_envs > params.evaluate.episodes:
        allowed = f"1 to {params.evaluate.episodes} (evaluate.episodes)"
        raise ConfigError("evaluate.num_envs", params.evaluate.num_envs, allowed)
    return params


def from_raw(raw: Raw) -> Params:
    """Build and validate the parameters.

    Raises:
        ConfigError: for every mistake, with the dotted key.
    """
    return validate(build(Params, raw))


def load_params(
    path: str | Path = "params.yaml", overrides: Mapping[str, Any] = types.MappingProxyType({})
) -> Params:
    """Read, override, build and validate the parameters.

    Args:
        path: The YAML file.
        overrides: Dotted key -> value.

    Raises:
        ConfigError: for every mistake, with the dotted key.
    """
    return from_raw(override(load_raw(path), overrides))


def _main(paths: Sequence[str]) -> str | None:
    """Check parameter files, as `python -m pipeline.params params.yaml`; return the first error."""
    try:
        for path in paths:
            load_params(path)
    except ConfigError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
