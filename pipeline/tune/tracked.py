"""The study in MLflow: one run, its trials below it.

Workers track nothing. Whoever started them writes down the trials that ended, whoever trained them,
so a study on several machines is whole wherever its storage can be read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from pipeline.closure import ROOT
from pipeline.params import leaves
from pipeline.stages.session import EXPERIMENT
from pipeline.tracking import RunIdentity, Tracker, git_commit, project_root
from pipeline.tune.ledger import Ledger, values_of
from pipeline.write_ahead_log import read_events

EXIT_WAIT = 5.0  # seconds that one trial's upload may hold up the next


@dataclass(frozen=True, kw_only=True)
class Diary:
    """The run of a study, open.

    Attributes:
        key: Of the run. root: Project where runs are tracked.
    """

    ledger: Ledger
    tracker: Tracker
    key: str
    root: Path

    def write(self, trial: FrozenTrial) -> None:
        """Track a trial that ended, unless that was done before."""
        key = f"{self.key}-{trial.number}"
        directory = self.root / ".runs" / key
        if any(event.kind == "finish" for event in read_events(directory)):
            return
        tags = {"stage": "trial", "optuna.trial_number": str(trial.number)}
        run = RunIdentity(
            experiment=EXPERIMENT,
            key=key,
            name=f"trial {trial.number}",
            parent_key=self.key,
            tags={**tags, "optuna.state": trial.state.name} | git_commit(ROOT),
        )
        with Tracker(directory, run, root=self.root, exit_wait=EXIT_WAIT) as t:
            t.params(trial.params)
            for seed, curve in _validations(trial).items():
                for step, value in curve:
                    t.metrics(step, {f"seed {seed}/validation/return": value})
            objective = self.ledger.plan.config.objective
            for step, value in enumerate(values_of(trial).values()):
                t.metrics(step, {f"{objective} by seed": value})
            if trial.state == TrialState.COMPLETE:
                t.metrics(0, {objective: float(trial.value or 0.0)})
            t.finish("FAILED" if trial.state == TrialState.FAIL else "FINISHED")

    def close(self, pictures: list[Path]) -> None:
        """Track the outcome: values by number of the trial, the best so far, pictures."""
        best = float("-inf")
        objective = self.ledger.plan.config.objective
        for trial in self.ledger.trials():
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                best = max(best, trial.value)
                self.tracker.metrics(trial.number, {objective: trial.value, "best": best})
        for picture in pictures:
            self.tracker.artifact(picture, "tune")
        self.tracker.artifact(self.ledger.plan.folder / "trials.csv", "tune")


@contextmanager
def open_diary(ledger: Ledger, project: Path) -> Iterator[Diary]:
    """Open the run of a study, or go on with it.

    Args:
        project: Folder where runs are tracked.
    """
    root, key = project_root(project), f"study-{ledger.study.user_attrs['key']}"
    plan = ledger.plan
    run = RunIdentity(
        experiment=EXPERIMENT,
        key=key,
        name=f"tune {plan.study}",
        parent_key=None,
        tags={"stage": "tune", "env": str(plan.raw["env"]["id"])} | git_commit(ROOT),
    )
    with Tracker(root / ".runs" / key, run, root=root) as tracker:
        tracker.params(dict(leaves(plan.raw)))
        yield Diary(ledger=ledger, tracker=tracker, key=key, root=root)


def _validations(trial: FrozenTrial) -> dict[int, list[tuple[int, float]]]:
    """Seed -> (environment step, return) of the validations in training, where they are here."""
    found = {}
    for seed in values_of(trial):
        path = Path(trial.user_attrs.get(f"validation {seed}", ""))
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            found[seed] = [(int(r["env_step"]), float(r["validation/return"])) for r in rows]
    return found
