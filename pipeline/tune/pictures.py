"""Pictures and a table of a study: what matters, what each value gave, how the search went."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.report.canvas import BLUE, FAINT, ORANGE, RED, picture, placard
from pipeline.report.tables import write_bytes
from pipeline.tune.ledger import Ledger, values_of
from pipeline.tune.space import Axis, Range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 4  # complete trials below which importance means nothing
TOO_FEW = f"fewer than {FEW} complete trials, or all of them equally good"


def draw(ledger: Ledger, folder: Path) -> list[Path]:
    """Write `trials.csv` and the pictures; return the paths of the pictures."""
    trials = ledger.standing()
    write_bytes(folder / "trials.csv", table(trials).encode())
    paths = [folder / f"{name}.png" for name in ("history", "importance", "slices")]
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    if not complete:
        for path in paths:
            placard(path, "no trial is complete")
        return paths
    objective = ledger.plan.config.objective
    importance_picture(paths[1], importance(complete))
    slices_picture(paths[2], complete, ledger.axes, objective)
    history_picture(paths[0], trials, objective)
    return paths


def table(trials: list[FrozenTrial]) -> str:
    """One line per trial: number, state, mean, parameters, value of each seed, seconds."""
    rows: list[dict[str, Any]] = [
        {
            "trial": t.number,
            "state": t.state.name,
            "value": "" if t.value is None else t.value,
            **t.params,
            **{f"seed {seed}": value for seed, value in values_of(t).items()},
            "seconds": t.user_attrs.get("seconds", ""),
        }
        for t in trials
    ]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def importance(complete: list[FrozenTrial]) -> dict[str, float]:
    """Parameter -> share of the variance of the values that it explains alone (fANOVA, Hutter et
    al. 2014); empty where that cannot be said.
    """
    if len(complete) < FEW or len({t.value for t in complete}) == 1:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(value) for key, value in found.items()}


def importance_picture(path: Path, shares: dict[str, float]) -> None:
    """Draw one bar per parameter, the most important on top."""
    if not shares:
        placard(path, TOO_FEW)
        return
    keys = sorted(shares, key=lambda key: shares[key])
    with picture(path, 7.0, 1.2 + 0.4 * len(keys)) as figure:
        axes = figure.subplots()
        axes.barh(keys, [shares[key] for key in keys], color=BLUE, height=0.6, zorder=2)
        axes.set(title="What the objective depends on", xlabel="share of its variance (fANOVA)")
        axes.set_xlim(0.0, 1.0)


def slices_picture(
    path: Path, complete: list[FrozenTrial], axes: tuple[Axis, ...], objective: str
) -> None:
    """Draw, for each parameter, the value of every trial against it, means as short lines."""
    with picture(path, 1.0 + 3.2 * len(axes), 3.4) as figure:
        panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            _slice(panel, complete, axis)
        panels[0].set_ylabel(objective)


def history_picture(path: Path, trials: list[FrozenTrial], objective: str) -> None:
    """Draw values by number of the trial, the best so far, and what was given up or failed."""
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    values = [float(t.value or 0.0) for t in complete]
    best = [max(values[: n + 1]) for n in range(len(values))]
    with picture(path, 7.0, 3.4) as figure:
        axes = figure.subplots()
        numbers = [t.number for t in complete]
        axes.step(numbers, best, where="post", color=ORANGE, lw=1.8, label="best so far")
        axes.plot(numbers, values, "o", color=BLUE, ms=5, label="trial")
        for state, mark, word in (
            (TrialState.PRUNED, "x", "given up"),
            (TrialState.FAIL, "^", "failed"),
        ):
            others = [t.number for t in trials if t.state == state]
            if others:
                axes.plot(others, [min(values)] * len(others), mark, color=RED, label=word)
        axes.set(xlabel="trial", ylabel=objective, title="The search")
        axes.locator_params("x", integer=True)
        figure.legend(loc="outside lower center", ncols=4)


def _slice(panel: Axes, complete: list[FrozenTrial], axis: Axis) -> None:
    found = [t.params[axis.key] for t in complete]
    values = [float(t.value or 0.0) for t in complete]
    if isinstance(axis.options, Range):
        panel.plot(found, values, "o", color=BLUE, ms=5)
        panel.axvline(axis.default, color=FAINT, ls="--", lw=1.2, zorder=0)
        if axis.options.log:
            panel.set_xscale("log")
    else:
        choices = list(axis.distribution.choices)  # type: ignore[attr-defined]
        choices = sorted(choices) if _are_numbers(choices) else choices
        places = [choices.index(value) for value in found]
        panel.plot(places, values, "o", color=BLUE, ms=5)
        for place in sorted(set(places)):
            here = [value for p, value in zip(places, values, strict=True) if p == place]
            mean = sum(here) / len(here)
            panel.plot([place - 0.25, place + 0.25], [mean, mean], color=ORANGE, lw=1.8)
        panel.axvline(choices.index(axis.default), color=FAINT, ls="--", lw=1.2, zorder=0)
        panel.set_xticks(range(len(choices)), [str(choice) for choice in choices])
        panel.set_xlim(-0.5, len(choices) - 0.5)
    panel.set_xlabel(f"{axis.key}\n(dashed: as it is now)")


def _are_numbers(values: list[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)
