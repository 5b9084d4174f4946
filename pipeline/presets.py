"""Presets: overlays on `params.yaml`, one file per task in `presets/`.

DVC sees nothing but `params.yaml`, so `dreamer use NAME` writes a preset into it. That is done with
ruamel.yaml, which DVC brings along, because it is the one library that keeps comments, order and
the notation of numbers (`3.0e-4`). Values are read and compared by `pipeline.params`, and what
ruamel wrote is read back before it replaces the file: both must agree.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from dreamer.types import ConfigError
from pipeline.params import MAPPINGS, Raw, load_raw, override, parse_yaml

PRESETS = Path(__file__).parents[1] / "presets"
# ruamel's reader and the document to change -> dotted key -> value as it is to be written
Notation = Callable[[YAML, Mapping[str, Any]], Mapping[str, Any]]


class Change(NamedTuple):
    """One value that a preset changes."""

    key: str
    old: Any
    new: Any


def list_presets(folder: Path = PRESETS) -> dict[str, str]:
    """Return name -> description, sorted; the description is the comment in the first line.

    Raises:
        ConfigError: if a preset has no description.
    """
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        if not first.startswith("# "):
            raise ConfigError(path.name, first, "a first line '# what the preset is for'")
        found[path.stem] = first.removeprefix("# ").strip()
    return found


def preset_overrides(name: str, raw: Raw, folder: Path = PRESETS) -> dict[str, Any]:
    """Return dotted key -> value of everything a preset sets, for `params.override`.

    Args:
        name: Name of the preset.
        raw: All parameters; the preset may only set what is there.
        folder: Where the presets are.

    Raises:
        ConfigError: if there is no such preset, or it sets an unknown key or replaces a section.
    """
    known = list_presets(folder)
    if name not in known:
        raise ConfigError("preset", name, ", ".join(known) or f"no preset is in {folder}")
    overrides = dict(_overlay(load_raw(folder / f"{name}.yaml"), raw, ""))
    override(raw, overrides)  # refuses unknown keys
    return overrides


def apply_preset(
    name: str,
    params_path: str | Path = "params.yaml",
    check: Callable[[Raw], object] | None = None,
    folder: Path = PRESETS,
) -> list[Change]:
    """Write a preset into `params.yaml`, atomically, keeping comments and order.

    Args:
        name: Name of the preset.
        params_path: The file to change; a file that already agrees is left alone.
        check: Called with the new parameters before they are written, to refuse them.
        folder: Where the presets are.

    Returns:
        The values that differed, in the order of the preset.

    Raises:
        ConfigError: if the preset is unknown, does not fit or the file cannot be written.
    """
    path = Path(params_path)
    overrides = preset_overrides(name, load_raw(path), folder)

    def as_written(yaml: YAML, document: Mapping[str, Any]) -> Mapping[str, Any]:
        preset = folder / f"{name}.yaml"
        return dict(_overlay(yaml.load(preset.read_text(encoding="utf-8")), document, ""))

    return _apply(overrides, path, check, as_written)


def apply_values(
    values: Mapping[str, Any],
    params_path: str | Path = "params.yaml",
    check: Callable[[Raw], object] | None = None,
) -> list[Change]:
    """Write single values into `params.yaml`, as `apply_preset` does.

    Args:
        values: Dotted key -> value.

    Raises:
        ConfigError: if a key is unknown, `check` refuses or the file cannot be written.
    """
    return _apply(values, Path(params_path), check, lambda *_: values)


def _apply(
    values: Mapping[str, Any],
    path: Path,
    check: Callable[[Raw], object] | None,
    as_written: Notation,
) -> list[Change]:
    raw = load_raw(path)
    override(raw, values)  # refuses unknown keys
    settings = [Change(key, _value(raw, key), new) for key, new in values.items()]
    changes = [change for change in settings if _differ(change.old, change.new)]
    wanted = override(raw, {change.key: change.new for change in changes})
    if check:
        check(wanted)
    if changes:
        text = _edited(path, [change.key for change in changes], as_written)
        if _differ(parse_yaml(text, str(path)), wanted):
            raise ConfigError(str(path), "YAML that changes when it is rewritten", "plain YAML")
        _replace(path, text)
    return changes


def _overlay(node: Mapping[str, Any], raw: Mapping[str, Any], path: str) -> Iterator[Any]:
    """Yield (dotted key, value): an overlay merges into sections and replaces all other values."""
    for key, value in node.items():
        dotted, below = f"{path}.{key}" if path else str(key), raw.get(key)
        if dotted in MAPPINGS or not (isinstance(below, Mapping) and below):
            yield dotted, value
        elif isinstance(value, Mapping):
            yield from _overlay(value, below, dotted)
        else:
            raise ConfigError(dotted, value, "a section with " + ", ".join(below))


def _edited(path: Path, keys: list[str], as_written: Notation) -> str:
    """Return the text of `path` with other values of `keys`, in the notation of their source."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 4096  # never folds a line
    yaml.indent(mapping=2, sequence=4, offset=2)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"))
        overlay = as_written(yaml, document)
    except YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(str(path), line, "YAML that ruamel.yaml can read, too") from error
    for key in keys:
        *parents, last = key.split(".")
        functools.reduce(lambda node, parent: node[parent], parents, document)[last] = overlay[key]
    text = io.StringIO()
    yaml.dump(document, text)
    return text.getvalue()


class _Representer(RoundTripRepresenter):
    """Writes `null`; ruamel leaves the value out."""

    def represent_none(self, data: None) -> Any:  # noqa: ANN401, ARG002
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _value(raw: Raw, key: str) -> Any:  # noqa: ANN401
    return functools.reduce(lambda node, part: node[part], key.split("."), raw)


def _differ(old: Any, new: Any) -> bool:  # noqa: ANN401
    """Compare plain YAML values; 1, 1.0 and true are three."""
    return repr(old) != repr(new)


def _replace(path: Path, text: str) -> None:
    path = path.resolve()  # a link keeps pointing at the file
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(str(path), error.strerror, "a file that can be written") from error
