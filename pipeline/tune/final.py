"""`dreamer tune --apply`: the best trials on seeds that tuning never saw, and what follows.

The finals are a study of their own, `<study>-final`: its trials are the default and the best, its
seeds `tune.final_seeds`, its episodes those of `dvc repro`. So they can be killed and continued.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from optuna.trial import FrozenTrial

from dreamer.types import ConfigError, DataError
from pipeline.commands.settings import PARAMS
from pipeline.commands.summary import cpu_type
from pipeline.dvc_file import dvc_yaml
from pipeline.params import Raw, from_raw, leaves, load_raw, of_stages
from pipeline.presets import Change, apply_values
from pipeline.report.tables import write_bytes, write_json
from pipeline.stages.tuned import RECORD
from pipeline.tune.figures import parameters
from pipeline.tune.ledger import Ledger, values_of
from pipeline.tune.pairs import differences, share_as_low
from pipeline.tune.plan import Plan
from pipeline.tune.space import Point, default_point, name_of, shown

CHANCE = 0.05  # below this share a difference is called shown


class Verdict(NamedTuple):
    """What the finals say.

    Attributes:
        default, others: Their trials; the best of the others first.
        chance: How often flips of signs put a mean difference as high as that of the first of the
            others, times the number of others, at most 1.
    """

    default: FrozenTrial
    others: list[FrozenTrial]
    chance: float

    @property
    def winner(self) -> FrozenTrial | None:
        """The best of the others if its mean is above that of the default, else None."""
        best = next(iter(self.others), None)
        return best if best and (best.value or 0.0) > (self.default.value or 0.0) else None

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        for word, trial in (("default", self.default), *(("finalist", t) for t in self.others)):
            values = ", ".join(f"{value:.5g}" for value in values_of(trial).values())
            yield f"{word:10} {shown(trial.params)}  {trial.value:.6g} ({values})"
        if self.winner is None:
            yield "verdict    the default is not beaten; params.yaml stays as it is"
            return
        pairs = differences(values_of(self.winner), values_of(self.default))
        mean, higher = sum(pairs) / len(pairs), sum(pair > 0 for pair in pairs)
        yield (
            f"verdict    {shown(self.winner.params)} is higher by {mean:.4g} on average, "
            f"on {higher} of {len(pairs)} seeds that tuning never saw"
        )
        found = "it is better" if self.chance <= CHANCE else "that it is better is not shown"
        yield f"           chance alone gives as much in {self.chance:.3f} of cases: {found}"


def final_plan(ledger: Ledger) -> Plan:
    """Plan of the finals of a study.

    Raises:
        ConfigError: No trial is complete.
    """
    plan, first = ledger.plan, default_point(ledger.axes)
    ranked: list[Point] = [t.params for t in ledger.ranked()]
    if not ranked:
        raise ConfigError("study", plan.study, "one with a complete trial; let `dreamer tune` run")
    others = [point for point in ranked if name_of(point) != name_of(first)]
    study = f"{plan.study}-final"
    return dataclasses.replace(
        plan,
        study=study,
        folder=plan.folder.parent / study,
        finalists=(first, *others[: plan.config.finalists]),
    )


def judged(ledger: Ledger) -> Verdict:
    """Compare the finalists with the default.

    Raises:
        DataError: The training of the default failed.
    """
    name = name_of(default_point(ledger.axes))
    ranked = ledger.ranked()
    default = next((t for t in ranked if name_of(t.params) == name), None)
    if default is None:
        raise DataError(f"study {ledger.plan.study}: the training of the default failed, see above")
    others = [t for t in ranked if t is not default]
    chance = 1.0
    if others:
        pairs = differences(values_of(default), values_of(others[0]))
        chance = min(1.0, share_as_low(pairs) * len(others))
    return Verdict(default, others, chance)


def written(plan: Plan, verdict: Verdict, project: Path) -> Iterator[str]:
    """Write the winner into params.yaml, and what `dvc repro` must find.

    Args:
        plan: Of the finals. project: The repository.

    Raises:
        ConfigError: There is no params.yaml, or it cannot be written.
    """
    winner = verdict.winner
    assert winner is not None, "there is something to write"
    raw = parameters(plan.raw, winner.params)
    for change in apply_raw(raw, project / PARAMS):
        yield f"{change.key}: {change.old} -> {change.new}"
    write_json(project / RECORD, record(plan, verdict, winner, raw))
    yield f"record     {project / RECORD}, to be committed"
    if (project / "dvc.yaml").exists():
        write_bytes(project / "dvc.yaml", dvc_yaml(project).encode())
        yield "next       dvc repro; its last stage fails unless the figures are the recorded ones"


def apply_raw(raw: Raw, path: Path) -> list[Change]:
    """Write all parameters of stages that differ into a file, which keeps its comments."""
    if not path.exists():
        raise ConfigError(str(path), "no such file", "the params.yaml of the project, to write to")
    now = dict(leaves(of_stages(load_raw(path))))
    differing = {key: value for key, value in leaves(raw) if repr(now.get(key)) != repr(value)}
    return apply_values(differing, path, from_raw)


def record(plan: Plan, verdict: Verdict, winner: FrozenTrial, raw: Raw) -> dict[str, object]:
    """What `pipeline.stages.tuned` compares, and where it came from."""
    seeds = {t.number: values_of(t) for t in (verdict.default, winner)}
    return {
        "parameters": dict(leaves(raw)),
        "metrics": winner.user_attrs[f"metrics {raw['seed']}"],
        "cpu": cpu_type(),
        "study": plan.study,
        "point": winner.params,
        "objective": plan.config.objective,
        "seeds": [str(seed) for seed in plan.seeds],
        "winner": list(seeds[winner.number].values()),
        "default": list(seeds[verdict.default.number].values()),
        "chance": verdict.chance,
    }
