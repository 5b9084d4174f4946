"""The parameters of one `dreamer train`, out of everything that was said about them.

Later ones win: params.yaml, --preset, --config, the options with names of their own, --set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.spaces import spec_of
from dreamer.types import ConfigError, EnvSpec
from pipeline.closure import ROOT
from pipeline.flat_config import read_flat_config
from pipeline.params import Params, Raw, from_raw, load_raw, override, parse_set
from pipeline.presets import preset_overrides

PARAMS = "params.yaml"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says about parameters; None where it says nothing.

    Attributes:
        preset: Name of an overlay. config: Flat JSON file. env: Environment id. device: Its name.
        steps: Environment steps of the whole run. seed: Of everything.
        multimodal: Keep every modality that the environment offers.
        settings: `key=value` of every --set.
    """

    preset: str | None
    config: Path | None
    env: str | None
    device: str | None
    steps: int | None
    seed: int | None
    multimodal: bool
    settings: tuple[str, ...]


class Resolved(NamedTuple):
    """What `resolve` found.

    Attributes:
        raw, params: The parameters as YAML holds them, and built.
        expectations: Sizes that the environment is expected to have.
        notes: Lines that tell the user what was decided on the way.
    """

    raw: Raw
    params: Params
    expectations: dict[str, int]
    notes: tuple[str, ...]


def find_params() -> Path:
    """Return the project's params.yaml: of the current folder, else the one beside this package.

    Raises:
        ConfigError: If there is neither.
    """
    for path in (Path(PARAMS), ROOT / PARAMS):
        if path.exists():
            return path
    raise ConfigError(PARAMS, "no such file", f"a file in {Path.cwd()}, the folder of a project")


def resolve(wishes: Wishes) -> Resolved:
    """Put the parameters together and check them.

    Raises:
        ConfigError: For every mistake, with the dotted key.
    """
    path = find_params()
    overrides, expectations = read_flat_config(wishes.config) if wishes.config else ({}, {})
    raw, layers = layered(wishes, load_raw(path), overrides)
    said = _keys(layers)
    if not said & {"env", "env.active_modalities"} and raw["env"]["active_modalities"] == "all":
        raw = override(raw, {"env.active_modalities": "first"})
    raw, shrunk = _fit_collection(raw, _keys(layers[1:]))
    notes = (f"Parameters: {path}", *shrunk)
    return Resolved(raw, from_raw(raw), expectations, notes)


def layered(
    wishes: Wishes, raw: Raw, overrides: Mapping[str, Any]
) -> tuple[Raw, list[Mapping[str, Any]]]:
    """Lay everything that was said over the parameters, and nothing that was not.

    Args:
        raw: Of params.yaml. overrides: Of the file that `wishes.config` names.

    Returns:
        The parameters, and the layers; the first is the preset's.

    Raises:
        ConfigError: A key or the preset is unknown, or said twice.
    """
    preset = {} if wishes.preset is None else preset_overrides(wishes.preset, raw)
    layers = [preset, overrides, _options(wishes), _settings(wishes.settings)]
    for layer in layers:
        raw = override(raw, layer)
    return raw, layers


def _options(wishes: Wishes) -> dict[str, Any]:
    named = {
        "env.id": wishes.env,
        "device": wishes.device,
        "train.env_steps": wishes.steps,
        "seed": wishes.seed,
        "env.active_modalities": "all" if wishes.multimodal else None,
    }
    return {key: value for key, value in named.items() if value is not None}


def _settings(texts: Iterable[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in map(parse_set, texts):
        if key in settings:
            raise ConfigError(key, "the key twice in --set", "each key once")
        settings[key] = value
    return settings


def _keys(layers: Iterable[Mapping[str, Any]]) -> set[str]:
    """Dotted keys that the layers set, and the sections that they replace as a whole."""
    return {key for layer in layers for key in layer}


def _fit_collection(raw: Raw, said: set[str]) -> tuple[Raw, tuple[str, ...]]:
    """Collect less at first when the user asks for a run no longer than the collection alone.

    Args:
        said: Keys set by hand; a collection among them is left alone.
    """
    steps, collected = _value(raw, "train", "env_steps"), _value(raw, "collect", "steps")
    shorter = type(steps) is int and type(collected) is int and 0 < steps <= collected
    if not shorter or "train.env_steps" not in said or said & {"collect", "collect.steps"}:
        return raw, ()
    quarter = max(1, steps // 4)
    note = f"collect.steps: {quarter} instead of {collected}, a quarter of the {steps} in all"
    return override(raw, {"collect.steps": quarter}), (note,)


def _value(raw: Raw, section: str, key: str) -> Any:  # noqa: ANN401
    """A value that may be missing, which `from_raw` reports."""
    inner = raw.get(section)
    return inner.get(key) if isinstance(inner, Mapping) else None


def observe_spec(env: EnvConfig) -> EnvSpec:
    """Make the environment once, to see what it offers before anything is written.

    Raises:
        EnvError: It is unknown, or has spaces that an agent cannot have.
    """
    made = make_env(env)
    try:
        return spec_of(made, env.view)
    finally:
        made.close()


def write_params(path: Path, raw: Raw) -> None:
    """Write parameters so that `load_raw` and DVC read the same values back."""
    partial = path.with_name(f".{path.name}.new")
    partial.write_text("".join(_lines(raw, "")), encoding="utf-8")
    partial.replace(path)


def _lines(raw: Mapping[str, Any], indent: str) -> Iterable[str]:
    for key, value in raw.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:\n"
            yield from _lines(value, indent + "  ")
        else:  # JSON is YAML 1.2, and leaves no doubt what is text and what a number
            yield f"{indent}{key}: {json.dumps(value, allow_nan=False)}\n"
