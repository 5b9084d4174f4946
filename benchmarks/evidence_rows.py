"""Rows of the evidence campaign: which there are, what they hold, whether they are still true.

A row is one JSON file in `docs/results/`, written by `benchmarks.evidence_run`, committed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dreamer.types import ConfigError, DataError
from pipeline.closure import ROOT, import_closure
from pipeline.params import Raw, from_raw, leaves, load_raw, of_stages, override, subset
from pipeline.presets import preset_overrides
from pipeline.scratch import fingerprint
from pipeline.stages.session import STAGES

Row = dict[str, Any]

RESULTS = ROOT / "docs" / "results"
ROW_KEYS = {
    "preset", "seed", "changed", "parameters", "best", "last", "last_validations", "validation",
    "env_steps", "updates", "seconds", "restarts", "unmeasured", "circumstances", "fingerprint",
}  # fmt: skip
RANDOM_KEYS = {"preset", "seed", "parameters", "random", "idle", "circumstances"}
COMMAND = ".venv/bin/python -m benchmarks.evidence"


# Switch of a part -> how the names of its parameters begin.
SWITCHES = {
    "policy.hierarchy": ("policy.goal_", "policy.manager_", "policy.worker."),
    "intrinsic.icm.enabled": ("intrinsic.icm.",),
    "intrinsic.empowerment.enabled": ("intrinsic.empowerment.",),
    "meta.enabled": ("meta.",),
}


# Parameters that came later and mean nothing to the agents of rows from before: those have one
# modality, that which its space suggests, and the one that has two is fused by `concat`, which was
# all there was; and the loss of the reward had the default's
# weight 1, its head the default's start from 0.
MEANT_NOTHING = (
    "env.modalities",
    "env.optional_modalities",
    "world_model.audio.",
    "world_model.fusion",
    "world_model.modality_dropout",
    "world_model.modality_scales",
    "world_model.reward_outscale",
    "world_model.reward_scale",
    "world_model.text.",
)


class Times(NamedTuple):
    """Instead of a value: that of the preset, multiplied."""

    factor: float

    def of(self, value: float) -> float:
        """Of a whole number a whole one; else twelve digits, so that 3e-4 * 10 is 3e-3."""
        scaled = value * self.factor
        return round(scaled) if isinstance(value, int) else float(f"{scaled:.12g}")


class Job(NamedTuple):
    """What one process of the campaign does.

    Attributes:
        preset: Name in `presets/`. seed: Of the run; None plays a random policy, for comparison.
        variant: Name of what is changed of the preset; empty for the preset as it is.
        changes: Dotted key and value of everything that the variant changes, in order.
        deprived: Episodes that the trained agent plays with each of its modalities withheld, and
            with none; 0 for none of that.
    """

    preset: str
    seed: int | None
    variant: str = ""
    changes: tuple[tuple[str, Any], ...] = ()
    deprived: int = 0

    def __hash__(self) -> int:
        """Without the changes, which may hold lists."""
        return hash(self.name)

    @property
    def stem(self) -> str:
        """What runs that differ in their seed alone are called."""
        return f"{self.preset}-{self.variant}" if self.variant else self.preset

    @property
    def name(self) -> str:
        """Name of the row and of the working folder."""
        return f"{self.stem}-{'random' if self.seed is None else f'seed{self.seed}'}"


def preset_raw(job: Job, root: Path = ROOT) -> Raw:
    """The parameters of a run without its variant: params.yaml, the preset, the seed."""
    raw = load_raw(root / "params.yaml")
    return override(raw, preset_overrides(job.preset, raw) | {"seed": job.seed or 0})


def raw_of(job: Job, root: Path = ROOT) -> Raw:
    """Return the parameters of a run: params.yaml, the preset, the seed, the variant.

    Raises:
        ConfigError: If a change is of no known key, or they would use more than one thread.
    """
    raw = preset_raw(job, root)
    raw = override(raw, overrides_of(job, raw))
    threads = from_raw(raw).runtime.threads
    if threads != 1:
        raise ConfigError("runtime.threads", threads, "1: runs side by side share the processor")
    return raw


def overrides_of(job: Job, raw: Raw) -> dict[str, Any]:
    """Dotted key -> value of what the variant changes in the parameters of its preset."""
    values: dict[str, Any] = {}
    known = dict(leaves(raw))
    for key, value in job.changes:
        if isinstance(value, Times):
            if key not in known:
                raise ConfigError(key, "an unknown key", "a key of params.yaml that is a number")
            value = value.of(values.get(key, known[key]))
        values[key] = value
    return values


def parameters_of(job: Job, raw: Raw) -> dict[str, Any]:
    """Dotted key -> value of what the row depends on."""
    read = dict.fromkeys(name for stage in STAGES.values() for name in stage.params)
    return dict(leaves(subset(raw, ("env", "evaluate") if job.seed is None else read)))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which parameters have other values now, or are gone; 1, 1.0 and true are three. What
    belongs to a part that was and is switched off does not count.
    """

    def told(values: Mapping[str, Any], key: str) -> str:
        return json.dumps(values[key]) if key in values else "not there"

    keys = [*(key for key in now if key in then), *(key for key in then if key not in now)]
    return [
        f"{key}: then {told(then, key)}, now {told(now, key)}"
        for key in keys
        if told(then, key) != told(now, key) and not idle(key, then, now)
    ]


def newer(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Today's parameters that did not exist when a row was made: it is no less true for them."""
    return [
        key
        for key in now
        if key not in then and not key.startswith(MEANT_NOTHING) and not idle(key, then, now)
    ]


def idle(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a parameter belongs to a part that is switched off on both sides."""
    return any(
        key.startswith(own) and key != switch and not (then.get(switch) or now.get(switch))
        for switch, own in SWITCHES.items()
    )


def changed_by(raw: Raw, root: Path = ROOT) -> dict[str, Any]:
    """Return what preset, variant and seed change for the stages: dotted key -> value."""
    base = dict(leaves(of_stages(load_raw(root / "params.yaml"))))
    return {k: value for k, value in leaves(of_stages(raw)) if repr(base[k]) != repr(value)}


def code_checksum() -> str:
    """Checksum of all files that the stages import."""
    files = {path for name in STAGES for path in import_closure(f"pipeline.stages.{name}")}
    return fingerprint("code", {}, (), [ROOT / path for path in sorted(files)])


def read_row(job: Job, results: Path) -> Row | None:
    """Row of a finished run, or None.

    Raises:
        DataError: The file is not a row of this run.
    """
    path = results / f"{job.name}.json"
    if not path.exists():
        return None
    try:
        row = json.loads(path.read_text(encoding="ascii"))
    except ValueError as error:
        raise DataError(f"{path}: found no JSON ({error}); delete it or restore it") from error
    needed = RANDOM_KEYS if job.seed is None else ROW_KEYS
    missing = sorted(needed - row.keys()) if isinstance(row, dict) else sorted(needed)
    # Rows of presets as they are were written before there were variants.
    if missing or (row["preset"], row["seed"], row.get("variant", "")) != job[:3]:
        found = f"no {', '.join(missing)}" if missing else f"{row['preset']} seed {row['seed']}"
        raise DataError(f"{path}: found {found}; allowed: a row of {job.name}")
    return dict(row)
