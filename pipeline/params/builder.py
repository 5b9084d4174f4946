"""Raw parameters -> any frozen dataclass, by its type hints alone."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from dreamer.types import ConfigError
from pipeline.params.dotted import guess, join, shown

T = TypeVar("T")


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
        raise ConfigError(path or cls.__name__, shown(raw), "a section of key: value lines")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in fields:
            raise ConfigError(join(path, str(key)), "an unknown key", guess(str(key), fields))
    for name, field in fields.items():
        no_default = field.default is field.default_factory is dataclasses.MISSING
        if name not in raw and no_default:
            raise ConfigError(join(path, name), "nothing", _described(hints[name]))
    values = {key: _coerce(hints[key], value, join(path, key)) for key, value in raw.items()}
    try:
        return cls(**values)
    except ConfigError as error:  # from __post_init__, which knows the bare name only
        raise ConfigError(join(path, error.key), error.found, error.allowed) from error


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
                item_hint, item, join(path, str(key))
            )
            for key, item in value.items()
        }
    if hint is float and type(value) in (int, float):
        return float(value)
    if origin is Literal and any(value == arm and type(value) is type(arm) for arm in arms):
        return value
    if (hint is None or isinstance(hint, type)) and type(value) is (hint or type(None)):
        return value
    raise ConfigError(path, shown(value), _described(hint))


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
    raise ConfigError(path, shown(value), _described(hint))


def _coerce_items(hint: Any, value: Sequence[Any], path: str) -> Any:  # noqa: ANN401
    arms = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and (len(arms) != 2 or arms[1] is not Ellipsis):
        if len(value) != len(arms):
            raise ConfigError(path, shown(value), _described(hint))
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
