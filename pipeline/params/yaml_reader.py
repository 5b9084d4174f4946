"""YAML text -> plain values, with the scalars of YAML 1.2.

DVC's reader follows YAML 1.2 and plain PyYAML does not: `3e-4` is a number and `off`, `no` and
`012:30` are strings (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dreamer.types import ConfigError
from pipeline.params.dotted import Raw, join, shown


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
            _refuse_duplicates(item, join(path, str(index)), name)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            dotted, line = join(path, str(key.value)), key.start_mark.line + 1
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
        raise ConfigError(str(path), shown(raw), "a mapping of sections")
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
