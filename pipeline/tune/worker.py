"""One worker: `python -m pipeline.tune.worker PLAN` claims trials and trains until none is left.

`dreamer tune` starts as many as it is told; on another machine with the same code and a storage by
URL, `dreamer tune` with the same words does.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from optuna.trial import Trial, TrialState

from dreamer.types import ConfigError, DreamerError
from pipeline.progress import configure_logging
from pipeline.scratch import Interrupted
from pipeline.tune import experiments, stages
from pipeline.tune.figures import Outcome, objective, parameters, settings
from pipeline.tune.ledger import FAILED, INTERRUPTED, Ledger, open_ledger, values_of
from pipeline.tune.pairs import hopeless
from pipeline.tune.plan import Plan, read_plan
from pipeline.tune.presence import present
from pipeline.tune.space import Point, shown

MISTAKE = 2

log = logging.getLogger(__name__)


def work(plan: Plan) -> None:
    """Try points until there is nothing left to try.

    Raises:
        DreamerError: The storage went away, or no trial can succeed (an unknown objective).
        Interrupted: After a signal; the point of the trial at hand is put up again.
    """
    if plan.backend == "inprocess":
        os.environ["DREAMER_TRACKING"] = "off"  # whoever started the workers tracks their trials
    ledger = open_ledger(plan)
    with present(plan.folder, ledger.storage) as presence:
        while (trial := ledger.next_trial(presence)) is not None:
            log.info("trial %d: %s", trial.number, shown(trial.params))
            try:
                run_trial(ledger, trial)
            finally:
                presence.holds(None)


def run_trial(ledger: Ledger, trial: Trial) -> None:
    """Train a point with every seed, unless it is hopeless before; tell the study."""
    try:
        pruned = _train_seeds(ledger, trial)
    except (KeyboardInterrupt, Interrupted):
        ledger.void(trial.number, INTERRUPTED)
        raise
    except ConfigError as error:
        if error.key == "tune.objective":
            ledger.void(trial.number, INTERRUPTED)
            raise
        _fail(ledger, trial, error)
    # A training that diverges or breaks is a result of its point, and no reason to end the study.
    except Exception as error:
        log.exception("trial %d failed", trial.number)
        _fail(ledger, trial, error)
    else:
        values = ledger.trials()[trial.number].user_attrs["values"].values()
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        ledger.study.tell(trial, None if pruned else sum(values) / len(values), state=state)


def figures(plan: Plan, point: Point, seed: int, evaluate_seed: int) -> Outcome:
    """One training of a point, with the backend of the plan."""
    changes = settings(point, seed, evaluate_seed)
    raw = parameters(plan.raw, changes)
    if plan.backend == "dvc":
        return experiments.train(raw, plan.folder.parent / "experiments", Path.cwd())
    return stages.train(raw, plan.stages)


def _train_seeds(ledger: Ledger, trial: Trial) -> bool:
    """Train with one seed after the other; return whether the rest is not worth it."""
    plan, config = ledger.plan, ledger.plan.config
    values: dict[int, float] = {}
    made: list[str] = []
    started = time.monotonic()
    for step, seed in enumerate(plan.seeds):
        outcome = figures(plan, trial.params, seed, plan.evaluate_seed)
        values[seed] = objective(outcome.metrics, config.objective)
        made += outcome.made
        trial.report(values[seed], step)
        trial.set_user_attr("values", {str(seed): value for seed, value in values.items()})
        trial.set_user_attr("made", made)
        trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
        if outcome.validation is not None:
            trial.set_user_attr(f"validation {seed}", outcome.validation.as_posix())
        if outcome.experiment is not None:
            trial.set_user_attr(f"experiment {seed}", outcome.experiment)
        trial.set_user_attr(f"metrics {seed}", outcome.metrics)
        best = next(iter(ledger.ranked()), None)
        if best and _is_hopeless(ledger.plan, values, values_of(best)):
            return True
    return False


def _is_hopeless(plan: Plan, values: dict[int, float], best: dict[int, float]) -> bool:
    """Whether the seeds that are left are not worth it; finalists are never given up."""
    left = len(values) < len(plan.seeds) and not plan.finalists
    return left and hopeless(values, best, plan.config.prune_below)


def _fail(ledger: Ledger, trial: Trial, error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    trial.set_user_attr("reason", reason)
    ledger.void(trial.number, FAILED)


def main(path: str) -> None:
    """Work by a plan file; mistakes end in one line and status 2."""
    configure_logging(os.environ.get("DREAMER_LOG_LEVEL") or "info")
    if "" not in sys.path:
        sys.path.append("")
    try:
        work(read_plan(Path(path)))
    except DreamerError as error:
        log.error("%s", error)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main(sys.argv[1])
