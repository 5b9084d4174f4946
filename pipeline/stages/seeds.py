"""Stage `seeds`: the whole training again with other seeds, side by side, to see what varies.

Reads what the stages before it read, and the reports of the training with `seed`; writes
reports/seeds. `seeds.also` is empty by default, and then there is nothing to do.

Each training has a folder in `.scratch/seeds/`, named after everything but the list of seeds. What
came of one is kept there, so that a longer list trains only what is new.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dreamer.types import DataError, DreamerError
from pipeline.closure import ROOT, import_closure
from pipeline.params import Raw, from_raw, load_raw, of_stages, override, seeds_config, subset
from pipeline.progress import configure_logging
from pipeline.report.curves import VALIDATION
from pipeline.report.reading import read_json, read_rows
from pipeline.report.tables import write_json
from pipeline.report.variation import Repeat, write_nothing, write_variation
from pipeline.scratch import Scratch, fingerprint
from pipeline.stages.one_seed import log_of, start
from pipeline.stages.session import STAGES, Stage, Workspace, identities
from pipeline.stages.side_by_side import Process, last_line, side_by_side
from pipeline.tracking import Tracker, project_root

NAME = "seeds"
# What any of them reads; `runtime.threads` is in `runtime`.
TRAINED_BY = tuple(
    dict.fromkeys(name for s in STAGES.values() for name in s.params if name != "runtime.threads")
)
SEEDS = Stage(
    params=(*TRAINED_BY, "seeds.also"),
    deps=("reports/train", "reports/evaluate"),
    outs=("reports/seeds",),
)
TELL_SECONDS = 60.0

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What is to be trained, and where.

    Attributes:
        raw: Parameters, of which each training has another `seed`. seeds: Other than `seed`.
        folder: Of all trainings. part_of: Key of the tracked pipeline.
    """

    raw: Raw
    seeds: Sequence[int]
    folder: Path
    part_of: str

    def workspace(self, seed: int) -> Path:
        """Folder of a training."""
        return self.folder / str(seed)

    def outcome(self, seed: int) -> Path:
        """File of what came of a training."""
        return self.folder / f"{seed}.json"


def run(raw: Raw, workspace: Workspace) -> None:
    """Train with every further seed and write what all seeds show.

    Raises:
        DreamerError: A training failed; the others were done before.
        Interrupted: After a signal, once all trainings wrote their checkpoints.
    """
    params, config, others = from_raw(raw), seeds_config(raw), further(raw)
    reports = workspace.reports(NAME)
    if not others:
        log.info("seeds.also names no further seed: nothing to do")
        write_nothing(reports)
        return
    title = f"{params.env.id}, {len(others) + 1} seeds"
    with opened(raw, others, workspace) as (plan, scratch, trackers):
        repeats = train_all(plan, config.workers, scratch)
        figures = write_variation(reports, [repeat_of(params.seed, workspace), *repeats], title)
        for tracker in trackers:
            tracker.metrics(params.train.env_steps, figures)
            tracker.artifact(reports, f"reports/{NAME}")


def further(raw: Raw) -> list[int]:
    """Seeds of `seeds.also` other than `seed`."""
    return [seed for seed in seeds_config(raw).also if seed != raw["seed"]]


@contextmanager
def opened(
    raw: Raw, seeds: Sequence[int], workspace: Workspace
) -> Iterator[tuple[Plan, Scratch, tuple[Tracker, Tracker]]]:
    """Lock the folder of the trainings, and track the stage and its pipeline."""
    root = project_root(workspace.project or workspace.root)
    own, whole = identities(NAME, own_key(raw), raw)
    runs = root / ".runs"
    with (
        Scratch(NAME, key_of(raw), root) as scratch,
        Tracker(runs / own.key, own, root=root) as tracker,
        Tracker(runs / whole.key, whole, root=root) as summary,
    ):
        tracker.params({"seeds.also": seeds})
        yield Plan(raw, seeds, scratch.path, whole.key), scratch, (tracker, summary)


def key_of(raw: Raw) -> str:
    """Fingerprint of all that trainings depend on, but for the seed."""
    files = {path for name in STAGES for path in import_closure(f"pipeline.stages.{name}")}
    code = [ROOT / path for path in sorted(files)] + [ROOT / "requirements.lock"]
    parameters = subset(raw, (name for name in TRAINED_BY if name != "seed"))
    return fingerprint(NAME, parameters, (), code)


def own_key(raw: Raw) -> str:
    """Fingerprint of the stage: of its trainings, and which they are."""
    return fingerprint(NAME, {"trainings": key_of(raw), "seeds": [raw["seed"], *further(raw)]}, ())


def train_all(plan: Plan, workers: int, scratch: Scratch) -> list[Repeat]:
    """Do the trainings that are not done yet; return what came of all.

    Raises:
        DreamerError: Some failed; names each with its last words and its log.
        Interrupted: After a signal, once all of them stopped.
    """
    done = {seed: repeat for seed in plan.seeds if (repeat := kept(plan, seed))}
    missing = [seed for seed in plan.seeds if seed not in done]
    log.info("%d of %d seeds to train, %d at a time", len(missing), len(plan.seeds), workers)
    failed: list[str] = []
    tell = Teller(plan)

    def ended(seed: int, status: int) -> None:
        if status and not scratch.stop_requested:
            path = log_of(plan.workspace(seed))
            failed.append(f"seed {seed}: {last_line(path)} (status {status}; see {path})")
            log.error("%s", failed[-1])
        elif not status:
            done[seed] = keep(plan, seed)

    def meanwhile(at_work: Collection[int]) -> bool:
        tell(at_work)
        return not scratch.stop_requested

    side_by_side(
        missing,
        workers,
        start=lambda seed: begin(plan, seed),
        ended=ended,
        meanwhile=meanwhile,
    )
    if scratch.stop_requested:
        raise scratch.interrupted()
    if failed:
        raise DreamerError("; ".join(failed))
    return [done[seed] for seed in plan.seeds]


class Teller:
    """Says now and then how far the trainings at work are."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._told = plan, time.monotonic()

    def __call__(self, at_work: Collection[int]) -> None:
        """Quote the last line of each log, if it is time to."""
        if time.monotonic() - self._told < TELL_SECONDS:
            return
        self._told = time.monotonic()
        for seed in at_work:
            log.info("seed %d: %s", seed, last_line(log_of(self._plan.workspace(seed))))


def begin(plan: Plan, seed: int) -> Process:
    """Start the training with a seed, or go on with it."""
    folder = plan.workspace(seed)
    log.info("seed %d: at work, see %s", seed, log_of(folder))
    return start(override(of_stages(plan.raw), {"seed": seed}), folder, plan.part_of)


def repeat_of(seed: int, workspace: Workspace) -> Repeat:
    """What the stages of a training wrote.

    Raises:
        DataError: It is missing or damaged.
    """
    figures = read_json(workspace.reports("evaluate") / "metrics.json")
    rows = read_rows(workspace.reports("train") / "validation.csv")
    curve = [(int(row["env_step"]), row[VALIDATION]) for row in rows if VALIDATION in row]
    if not figures or not curve:
        raise DataError(f"{workspace.root}: found no figures or no validations of seed {seed}")
    return Repeat(seed, figures, curve)


def keep(plan: Plan, seed: int) -> Repeat:
    """Note and return what came of a training, and delete the rest of it."""
    found = repeat_of(seed, Workspace(plan.workspace(seed)))
    write_json(plan.outcome(seed), {"figures": found.figures, "curve": found.curve})
    shutil.rmtree(plan.workspace(seed), ignore_errors=True)
    log.info("seed %d: return %.6g", seed, found.figures["episode/return"])
    return found


def kept(plan: Plan, seed: int) -> Repeat | None:
    """What came of a training, or None if it is not done; a damaged note is not one."""
    try:
        found = read_json(plan.outcome(seed))
        return Repeat(seed, found["figures"], found["curve"]) if found else None
    except (DataError, KeyError) as error:
        log.warning("seed %d: trained again: %s", seed, error)
        return None


def main(root: Path) -> None:
    """Run the stage with `params.yaml` of the current folder; mistakes end in one line."""
    configure_logging(os.environ.get("DREAMER_LOG_LEVEL", "info"))
    try:
        run(load_raw("params.yaml"), Workspace(root))
    except DreamerError as error:
        log.error("%s: %s", NAME, error)
        sys.exit(2)


if __name__ == "__main__":
    main(Path.cwd())
