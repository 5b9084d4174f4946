"""`dreamer tune`: begin a study or go on with it, and say what came of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from dreamer.types import ConfigError
from pipeline.commands.settings import Wishes as Parameters
from pipeline.commands.settings import find_params, layered, observe_spec
from pipeline.flat_config import check_dims, read_search_space
from pipeline.params import from_raw, load_raw, override
from pipeline.stages.session import STAGES
from pipeline.tune.crew import Crew
from pipeline.tune.experiments import check_repository
from pipeline.tune.final import final_plan, judged, written
from pipeline.tune.ledger import ENDED, FAILED, Ledger, open_ledger, values_of
from pipeline.tune.pictures import draw
from pipeline.tune.plan import FOLDER, Plan, default_name
from pipeline.tune.space import shown
from pipeline.tune.tracked import Diary, open_diary

LOOK = 2.0  # seconds between looks at the study
SHOWN = 5  # trials in the closing table


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says; None where it says nothing.

    Attributes:
        parameters: As for `dreamer train`; lists in its file are the space.
        study, storage: Name and place of the study. search, trials: As in params.yaml.
        workers: Processes. backend: Who trains, `inprocess` or `dvc`.
    """

    parameters: Parameters
    study: str | None
    storage: str | None
    search: str | None
    trials: int | None
    workers: int
    backend: str


def run(wishes: Wishes) -> Iterator[str]:
    """Search until all trials have ended.

    Raises:
        DreamerError: On every mistake that can be found before the first training, or when a
            worker gives up.
    """
    plan = planned(wishes)
    ledger = open_ledger(plan)
    ledger.forgive()
    yield f"study      {plan.study} in {plan.folder}, {_progress(ledger)}"
    yield from worked(ledger, wishes.workers)
    yield from _farewell(ledger)


def apply(wishes: Wishes) -> Iterator[str]:
    """Train the best trials and the default with the final seeds; write the winner down.

    Raises:
        DreamerError: On every mistake, or when no trial is complete.
    """
    project = Path.cwd()
    plan = planned(wishes)
    ledger = open_ledger(plan, create=False)
    final = open_ledger(final_plan(ledger))
    final.forgive()
    yield f"study      {plan.study} in {plan.folder}, {_progress(ledger)}"
    yield f"finals     {len(final.plan.finalists)} points, seeds {list(final.plan.seeds)}"
    yield from worked(final, wishes.workers)
    verdict = judged(final)
    yield from verdict.lines()
    if verdict.winner is not None:
        yield from written(final.plan, verdict, project)


def worked(ledger: Ledger, workers: int) -> Iterator[str]:
    """Let workers finish a study, track it and draw it; yield a line for each trial that ends."""
    path = ledger.plan.write()
    with terminated(), open_diary(ledger, Path.cwd()) as diary:
        news = News(ledger, diary, {t.number for t in ledger.trials() if t.state.is_finished()})
        with Crew(path, workers) as crew:
            for _ in crew.watch(LOOK):
                yield from news.told()
        diary.close(draw(ledger, ledger.plan.folder))


def planned(wishes: Wishes) -> Plan:
    """Put the plan together and check it.

    Raises:
        ConfigError: For every mistake, with the dotted key.
    """
    if wishes.backend == "dvc":
        check_repository(Path.cwd())
    if wishes.workers < 1:
        raise ConfigError("--workers", wishes.workers, "1 or more")
    parameters = wishes.parameters
    file = parameters.config
    space, overrides, expectations = read_search_space(file) if file else ({}, {}, {})
    raw, _ = layered(parameters, load_raw(find_params()), overrides)
    said = {"tune.space": space or None, "tune.search": wishes.search, "tune.trials": wishes.trials}
    raw = override(raw, {key: value for key, value in said.items() if value is not None})
    name = wishes.study or default_name(raw)
    folder = FOLDER / name
    if folder.parent != FOLDER or name in ("", ".", "..", "stages", "experiments"):
        raise ConfigError("--study", name, "a name that a folder may have")
    storage = wishes.storage or (folder / "journal.log").as_posix()
    plan = Plan(raw=raw, study=name, storage=storage, folder=folder, backend=wishes.backend)
    check_dims(observe_spec(from_raw(plan.raw).env), expectations)
    return plan


class News(NamedTuple):
    """Tells of every trial that ends, once.

    Attributes:
        known: Numbers of those that were told of.
    """

    ledger: Ledger
    diary: Diary
    known: set[int]

    def told(self) -> Iterator[str]:
        """Track what ended since the last call, and say it."""
        for trial in self.ledger.standing():
            if trial.state.is_finished():
                self.diary.write(trial)
                if trial.number not in self.known:
                    self.known.add(trial.number)
                    yield _line(trial)


@contextmanager
def terminated() -> Iterator[None]:
    """Leave by an exception on SIGTERM, so that workers are stopped, too."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _progress(ledger: Ledger) -> str:
    standing = ledger.standing()
    done = sum(t.state in ENDED for t in standing)
    return f"{done} of at most {ledger.plan.config.trials} trials done"


def _line(trial: FrozenTrial) -> str:
    head = f"trial {trial.number:4}  {shown(trial.params)}"
    if trial.user_attrs.get("ended") == FAILED:
        return f"{head}  failed: {trial.user_attrs['reason']}"
    values = values_of(trial)
    mean = sum(values.values()) / len(values)
    seeds = ", ".join(f"{value:.5g}" for value in values.values())
    pruned = ", given up" if trial.state == TrialState.PRUNED else ""
    return f"{head}  {mean:.6g} ({seeds}){pruned}"


def _farewell(ledger: Ledger) -> Iterator[str]:
    yield f"done       {_progress(ledger)}, {_made(ledger.standing())}"
    yield from (f"best       {_line(trial)}" for trial in ledger.ranked()[:SHOWN])
    yield from (f"picture    {path}" for path in sorted(ledger.plan.folder.glob("*.png")))
    yield f"table      {ledger.plan.folder / 'trials.csv'}"
    yield "next       the same command with --apply trains the best on other seeds"


def _made(trials: list[FrozenTrial]) -> str:
    made = [name for t in trials for name in t.user_attrs.get("made", ())]
    return "stages run: " + ", ".join(f"{name} {made.count(name)}" for name in STAGES)
