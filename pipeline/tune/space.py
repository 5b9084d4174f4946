"""The space that is searched: parameters, what each may be, and the points of a grid."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from dreamer.types import ConfigError
from pipeline.params import MAPPINGS, Raw, from_raw, override, sections
from pipeline.stages.session import STAGES
from pipeline.tune.config import Range, TuneConfig

Point = dict[str, Any]  # dotted key -> value, of every parameter that is searched

LARGEST_GRID = 10_000
KEPT = {"seed": "tune.seeds", "evaluate": "tune.evaluate_seed"}  # who says them instead


class Axis(NamedTuple):
    """One parameter that is searched.

    Attributes:
        key: Dotted. default: Its value in params.yaml.
        options: The values it may take, or a range. All values are as the code sees them: 1 is 1.0
            for a parameter that is a float.
    """

    key: str
    default: Any
    options: tuple[Any, ...] | Range

    @property
    def distribution(self) -> BaseDistribution:
        """The axis as Optuna knows it; the default is always a choice."""
        if not isinstance(self.options, Range):
            return CategoricalDistribution(list(dict.fromkeys((*self.options, self.default))))
        low, high, log = self.options.low, self.options.high, self.options.log
        if isinstance(self.default, int):
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(float(low), float(high), log=log)


def read_space(config: TuneConfig, raw: Raw) -> tuple[Axis, ...]:
    """Check the space against the parameters.

    Returns:
        Axes; those that early stages read come last, so that in the order of a grid neighbours do
        not wait for the same pretraining.

    Raises:
        ConfigError: A parameter is unknown, not to be searched, or a value is not allowed.
    """
    if not config.space:
        raise ConfigError("tune.space", config.space, "at least one parameter")
    axes = [_axis(key, options, raw) for key, options in config.space.items()]
    axes.sort(key=lambda axis: (-_first_reader(axis.key), axis.key))
    ranges = [axis for axis in axes if isinstance(axis.options, Range)]
    if ranges and config.search == "grid":
        allowed = "a list of values, or tune.search: tpe"
        raise ConfigError(f"tune.space.{ranges[0].key}", "a range in a grid", allowed)
    points = math.prod(len(axis.options) for axis in axes if isinstance(axis.options, tuple))
    if config.search == "grid" and points > LARGEST_GRID:
        raise ConfigError("tune.space", f"{points} points", f"at most {LARGEST_GRID}, or tpe")
    if config.search == "grid":
        for point in grid(axes):
            from_raw(at(raw, point))
    return tuple(axes)


def default_point(axes: Sequence[Axis]) -> Point:
    """The parameters as they are."""
    return {axis.key: axis.default for axis in axes}


def grid(axes: Sequence[Axis]) -> Iterator[Point]:
    """Yield the default, then every combination of the values, each point once."""
    first = default_point(axes)
    yield first
    lists = [axis.options for axis in axes if isinstance(axis.options, tuple)]
    for values in itertools.product(*lists):
        point = dict(zip((axis.key for axis in axes), values, strict=True))
        if name_of(point) != name_of(first):
            yield point


def size(axes: Sequence[Axis]) -> float:
    """Number of points that a sampler can draw; infinite where there is a range."""
    if any(isinstance(axis.options, Range) for axis in axes):
        return math.inf
    return math.prod(len({*axis.options, axis.default}) for axis in axes)  # type: ignore[misc]


def at(raw: Raw, point: Mapping[str, Any]) -> Raw:
    """The parameters at a point."""
    return override(raw, point)


def name_of(point: Mapping[str, Any]) -> str:
    """Text that is equal for equal points and for no others."""
    return json.dumps(point, sort_keys=True)


def shown(point: Mapping[str, Any]) -> str:
    """A point in one line for people."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in point.items())


def _short(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _axis(key: str, options: list[Any] | Range, raw: Raw) -> Axis:
    section = key.partition(".")[0]
    if section in KEPT:
        raise ConfigError(f"tune.space.{key}", options, f"no such axis; {KEPT[section]} says it")
    default = _seen(key, raw)
    if isinstance(options, Range):
        low, high = (_seen(key, at(raw, {key: end})) for end in (options.low, options.high))
        numbers = type(default) in (int, float) and type(low) is type(high) is type(default)
        if not numbers or not low <= default <= high:
            allowed = f"a range of {type(default).__name__} with the present value, {default!r}"
            raise ConfigError(f"tune.space.{key}", f"{low!r} to {high!r}", allowed)
        return Axis(key, default, options)
    values = tuple(dict.fromkeys(_seen(key, at(raw, {key: value})) for value in options))
    if not values:
        raise ConfigError(f"tune.space.{key}", options, "at least one value")
    return Axis(key, default, values)


def _seen(key: str, raw: Raw) -> Any:  # noqa: ANN401
    """A value as the code sees it.

    Raises:
        ConfigError: The key is unknown or a section, or the value is not allowed.
    """
    node: Any = sections(from_raw(raw), [key])
    for part in key.split("."):
        node = node[part]
    if key in MAPPINGS or not isinstance(node, str | int | float | bool | None):
        found = "a section" if isinstance(node, dict) else node
        raise ConfigError(f"tune.space.{key}", found, "a number, a text, true or false")
    return node


def _first_reader(key: str) -> int:
    """Number of the first stage that reads a parameter."""
    for number, stage in enumerate(STAGES.values()):
        if any(key == name or key.startswith(f"{name}.") for name in stage.params):
            return number
    raise ConfigError(f"tune.space.{key}", "a parameter of no stage", "one that a stage reads")
