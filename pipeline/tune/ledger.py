"""The study as all its workers share it: every point once, none lost, whoever is killed.

A trial is standing while it waits, runs, or has ended for good; one that was only interrupted is
not, and its point is put up again. Of two standing trials with one point the one with the lower
number is valid, and whoever claims the other drops it. A storage hands out numbers and running
trials atomically, so this holds for workers on several machines, too; those of one machine take
turns with a lock, so that there is nothing to drop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from dreamer.types import ConfigError
from pipeline.tune.plan import Plan
from pipeline.tune.presence import Presence, is_present
from pipeline.tune.space import Axis, Point, default_point, grid, name_of, size
from pipeline.tune.storage import open_storage
from pipeline.write_ahead_log import locked

# Ends of a trial that count for nothing.
STALE, INTERRUPTED, DUPLICATE, SURPLUS = "stale", "interrupted", "duplicate", "surplus"
FAILED = "failed"  # ends of one that counts, until the study is taken up again
VOID = (STALE, INTERRUPTED, DUPLICATE, SURPLUS)
AT_WORK = (TrialState.WAITING, TrialState.RUNNING)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
REPEATS = 10  # times that a sampler may draw what was there before a point is drawn by lot
GRACE = 60.0  # seconds in which a claimed trial must say whose it is
POLL = 1.0  # seconds between looks at trials of others

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """A study and the storage that it lies in.

    Attributes:
        plan, axes: What is searched. study, storage: Optuna's.
    """

    plan: Plan
    axes: tuple[Axis, ...]
    study: optuna.Study
    storage: BaseStorage

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def standing(self) -> list[FrozenTrial]:
        """Trials that count, by number."""
        forgiven = set(self.study.user_attrs.get("forgiven", ()))
        return [t for t in self.trials() if _stands(t) and t.number not in forgiven]

    def ranked(self) -> list[FrozenTrial]:
        """Complete trials, the highest value first, the earliest of equals first."""
        complete = [t for t in self.standing() if t.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda t: (-(t.value or 0.0), t.number))

    def forgive(self) -> None:
        """Let points whose training failed be tried again."""
        failed = [t.number for t in self.trials() if t.user_attrs.get("ended") == FAILED]
        self.study.set_user_attr("forgiven", failed)

    def next_trial(self, presence: Presence) -> Trial | None:
        """Claim a trial; waits while others are at work, whose points may come free.

        Returns:
            A running trial with all parameters set, or None when nothing is left to try.
        """
        while True:
            with self._turn():
                self.recover()
                self.fill()
                trial = self._claim(presence) or self._sample(presence)
            if trial is not None:
                presence.holds(self._id(trial.number))
                return trial
            if not any(t.state in AT_WORK for t in self.standing()):
                return None
            presence.check_parent()
            time.sleep(POLL)

    def recover(self) -> None:
        """End the running trials of workers that are gone."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_stale(trial) and self.void(trial.number, STALE):
                log.info("trial %d: its worker is gone; its point is tried again", trial.number)

    def fill(self) -> None:
        """Put up every point that is wanted and not there: finalists, a grid, lost ones."""
        standing = self.standing()
        there = {name_of(point) for point in map(point_of, standing) if point is not None}
        room = self.plan.trials - len(standing)
        for point in self._wanted():
            if room > 0 and name_of(point) not in there:
                self.study.enqueue_trial(point, user_attrs={"point": point})
                there.add(name_of(point))
                room -= 1

    def void(self, number: int, reason: str) -> bool:
        """End a trial so that it counts for nothing; False if it had ended already."""
        try:
            self.storage.set_trial_user_attr(self._id(number), "ended", reason)
            return self.storage.set_trial_state_values(self._id(number), TrialState.FAIL)
        except UpdateFinishedTrialError:  # somebody else saw the same
            return False

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with locked(self.plan.folder / "turn.lock"):
            yield

    def _wanted(self) -> Iterator[Point]:
        if self.plan.finalists:
            yield from self.plan.finalists
            return
        if self.plan.config.search == "grid":
            yield from grid(self.axes)
            return
        yield default_point(self.axes)
        lost = (STALE, INTERRUPTED, FAILED)
        points = (point_of(t) for t in self.trials() if t.user_attrs.get("ended") in lost)
        yield from (point for point in points if point is not None)

    def _claim(self, presence: Presence) -> Trial | None:
        """Take the first waiting trial whose point is not there yet."""
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial_id = self._id(waiting.number)
            with contextlib.suppress(UpdateFinishedTrialError):
                if not self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                    continue  # another worker was faster
                trial = Trial(self.study, trial_id)
                presence.sign(trial)
                self._set_parameters(trial)
                if not self._is_repeated(trial):
                    return trial
                self.void(trial.number, DUPLICATE)
        return None

    def _sample(self, presence: Presence) -> Trial | None:
        """Let the sampler choose a point, while there is room and a point left."""
        for _ in range(REPEATS):
            if not self._has_room():
                return None
            # Equal histories have equal continuations, and no two trials the same draws.
            seed = self.plan.config.sampler_seed + len(self.trials())
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
            trial = self.study.ask()
            presence.sign(trial)
            self._set_parameters(trial)
            if self._rank(trial) >= self.plan.trials:
                self.void(trial.number, SURPLUS)
                return None
            if not self._is_repeated(trial):
                return trial
            self.void(trial.number, DUPLICATE)
        self._draw_by_lot()
        return self._claim(presence)

    def _has_room(self) -> bool:
        standing = self.standing()
        points = {name_of(point) for point in map(point_of, standing) if point is not None}
        room = len(standing) < self.plan.trials and len(points) < size(self.axes)
        return room and self.plan.config.search != "grid" and not self.plan.finalists

    def _draw_by_lot(self) -> None:
        """Put up a point of a space of lists that was not there yet."""
        there = {name_of(point) for point in map(point_of, self.standing()) if point is not None}
        left = [point for point in grid(self.axes) if name_of(point) not in there]
        if left:
            point = random.Random(len(there)).choice(left)
            self.study.enqueue_trial(point, user_attrs={"point": point})

    def _set_parameters(self, trial: Trial) -> None:
        """Ask Optuna for every parameter, in the order of the axes."""
        for axis in self.axes:
            distribution = axis.distribution
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                trial.suggest_categorical(axis.key, distribution.choices)
            elif isinstance(distribution, optuna.distributions.IntDistribution):
                low, high = distribution.low, distribution.high
                trial.suggest_int(axis.key, low, high, log=distribution.log)
            elif isinstance(distribution, optuna.distributions.FloatDistribution):
                bounds = distribution.low, distribution.high
                trial.suggest_float(axis.key, *bounds, log=distribution.log)
        trial.set_user_attr("point", trial.params)

    def _is_repeated(self, trial: Trial) -> bool:
        mine = name_of(trial.params)
        earlier = (point_of(t) for t in self.standing() if t.number < trial.number)
        return any(point is not None and name_of(point) == mine for point in earlier)

    def _rank(self, trial: Trial) -> int:
        return sum(t.number < trial.number for t in self.standing())

    def _is_stale(self, trial: FrozenTrial) -> bool:
        if "worker" in trial.user_attrs:
            return not is_present(self.plan.folder, trial.user_attrs)
        started = trial.datetime_start
        return started is not None and time.time() - started.timestamp() > GRACE

    def _id(self, number: int) -> int:
        study_id = self.storage.get_study_id_from_name(self.plan.study)
        return self.storage.get_trial_id_from_study_id_trial_number(study_id, number)


def open_ledger(plan: Plan, *, create: bool = True) -> Ledger:
    """Open a study, and create it if wanted.

    Raises:
        ConfigError: The storage cannot be opened, or holds another study of this name.
    """
    storage, axes = open_storage(plan.storage), plan.axes
    plan.folder.mkdir(parents=True, exist_ok=True)
    with locked(plan.folder / "turn.lock"):
        if not create and plan.study not in {s.study_name for s in storage.get_all_studies()}:
            allowed = "a study that was begun; `dreamer tune` without --apply begins one"
            raise ConfigError("study", plan.study, allowed)
        study = optuna.create_study(
            study_name=plan.study,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
        )
        subject = json.loads(json.dumps(plan.subject))
        known = study.user_attrs.get("subject", subject)
        if changed := sorted(key for key in subject if known.get(key) != subject[key]):
            same = ", ".join(changed)
            allowed = f"a study with the same {same}; choose another name with --study"
            raise ConfigError("study", plan.study, allowed)
        if "subject" not in study.user_attrs:
            study.set_user_attr("subject", subject)
            study.set_user_attr("key", uuid.uuid4().hex)
    return Ledger(plan=plan, axes=axes, study=study, storage=storage)


def point_of(trial: FrozenTrial) -> Point | None:
    """Where a trial is; None before its worker has said so."""
    point: Any = trial.user_attrs.get("point")
    return point


def values_of(trial: FrozenTrial) -> dict[int, float]:
    """Seed -> value, as far as it was trained."""
    values = trial.user_attrs.get("values", {})
    return {int(seed): float(value) for seed, value in values.items()}


def _stands(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.FAIL or trial.user_attrs.get("ended", STALE) not in VOID
