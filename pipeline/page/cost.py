"""What each stage cost, from the logs of its run; nothing of it is ever in the outs of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.page.sources import Source
from pipeline.stages.seeds import NAME, further, own_key
from pipeline.stages.session import STAGES, fingerprint_of, run_key, upstream_keys
from pipeline.tracking import project_root
from pipeline.write_ahead_log import read_events

SPEED = "perf/updates_per_s"


class Cost(NamedTuple):
    """Wall-clock of one stage.

    Attributes:
        stage: Name. run: Key of its tracked run. seconds: At work, without the time between starts.
        starts: 1, and 1 more for every time that it was interrupted. begun: Day, UTC.
        updates_per_s: As logged last, or None. commit: Of the code, with a star if it was changed.
    """

    stage: str
    run: str
    seconds: float
    starts: int
    begun: str
    updates_per_s: float | None
    commit: str

    @property
    def words(self) -> str:
        """Hours, minutes and seconds."""
        return duration(self.seconds)


def costs(source: Source) -> Iterator[Cost]:
    """Costs of the stages whose runs are known here, in order."""
    runs = project_root(source.workspace.project or source.workspace.root) / ".runs"
    keys = run_keys(source)
    if NAME in source.raw and further(source.raw):
        keys[NAME] = run_key(NAME, own_key(source.raw))
    for stage, key in keys.items():
        found = read_cost(stage, runs / key)
        if found is not None:
            yield found


def run_keys(source: Source) -> dict[str, str]:
    """Stage -> key of the run that made its outs, if these parameters and this code did."""
    last = list(STAGES)[-1]
    keys = upstream_keys(last, source.raw, source.workspace)
    if all((source.workspace.root / dep).exists() for dep in STAGES[last].deps):
        keys[last] = run_key(last, fingerprint_of(last, source.raw, source.workspace))
    return keys


def read_cost(stage: str, directory: Path) -> Cost | None:
    """Sum up the log of a run; None if there is none."""
    seconds, begun, starts, speed = 0.0, 0, 0, None
    previous, commit = 0, ""
    for event in read_events(directory):
        if event.kind == "damaged":
            continue
        if event.kind == "start":
            starts += 1
            begun = begun or event.time_ms
            commit = _commit(event.body.get("tags", {}))
        else:
            seconds += max(0, event.time_ms - previous) / 1000
        previous = event.time_ms
        if event.kind == "metrics":
            speed = event.body["values"].get(SPEED, speed)
    if not starts:
        return None
    day = datetime.fromtimestamp(begun / 1000, UTC).strftime("%Y-%m-%d")
    return Cost(stage, directory.name, seconds, starts, day, speed, commit)


def _commit(tags: dict[str, str]) -> str:
    changed = "*" if tags.get("git_dirty") == "true" else ""
    return tags.get("git_commit", "")[:12] + changed


def duration(seconds: float) -> str:
    """1 h 05 min, 3 min 20 s or 4.2 s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {int(rest):02d} s" if minutes else f"{rest:.1f} s"
