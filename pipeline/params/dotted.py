"""Raw parameters by dotted key: `policy.lr` is the key `lr` in the section `policy`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dreamer.types import ConfigError

Raw = dict[str, Any]  # what YAML holds, before it is checked
# Values, not sections: their keys are the user's.
MAPPINGS = {"env.modalities", "tune.space", "world_model.modality_scales"}


def leaves(raw: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything that is not a section, in order."""
    for key, value in raw.items():
        dotted = join(path, str(key))
        if isinstance(value, Mapping) and value and dotted not in MAPPINGS:
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
        raise ConfigError(dotted, "an unknown key", guess(dotted, [key for key, _ in leaves(raw)]))
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
                raise ConfigError(name, "an unknown key", guess(name, [k for k, _ in leaves(raw)]))
            if key is not last:
                target = target.setdefault(key, {})
            source = source[key]
        target[last] = source
    return part


def sections(params: Any, names: Iterable[str]) -> Raw:  # noqa: ANN401
    """Like `subset`, from built parameters: the values as the code sees them."""
    return subset(dataclasses.asdict(params), names)


def join(path: str, key: str) -> str:
    """Return the dotted key of `key` in the section `path`, "" for the whole."""
    return f"{path}.{key}" if path else key


def guess(key: str, known: Iterable[str]) -> str:
    """List the known keys, the likely one first."""
    names = list(known)
    tail = key.rsplit(".", 1)[-1]
    tails = {name.rsplit(".", 1)[-1]: name for name in names}
    near = [tails[tail]] if tail in tails else difflib.get_close_matches(key, names, n=1)
    near = near or [tails[t] for t in difflib.get_close_matches(tail, tails, n=1)]
    listed = ", ".join(names if len(names) <= 24 else sorted({n.split(".")[0] for n in names}))
    return (f"{near[0]}, did you mean that? Known: " if near else "") + listed


def shown(value: Any) -> Any:  # noqa: ANN401
    """Keep an error on one short line, whatever was found."""
    return value if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
