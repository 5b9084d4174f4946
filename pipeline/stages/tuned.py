"""Stage `tuned`: does the evaluation show the figures that `dreamer tune --apply` recorded?

It stands in `dvc.yaml` once there is a `tuned.json`, after all others, and writes nothing. Where
parameters were changed since, there is nothing to compare.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from dreamer.types import DataError, DreamerError
from pipeline.params import leaves, load_raw, of_stages
from pipeline.progress import configure_logging
from pipeline.stages.session import STAGES, Stage

RECORD = "tuned.json"
TUNED = Stage(
    params=tuple(dict.fromkeys(name for stage in STAGES.values() for name in stage.params)),
    deps=("reports/evaluate", RECORD),
    outs=(),
)
FEW = 3  # differences that a line has room for

log = logging.getLogger(__name__)


def compare(root: Path) -> str:
    """Compare the figures of the repository in `root` with the record; say what came of it.

    Raises:
        DataError: They differ although the parameters are the same, or one of them is damaged.
    """
    record = _read(root / RECORD, {"parameters", "metrics", "cpu"})
    now = dict(leaves(of_stages(load_raw(root / "params.yaml"))))
    if changed := _differing(record["parameters"], now):
        return f"{RECORD} was made with other parameters ({changed}): nothing to compare"
    metrics = _read(root / "reports" / "evaluate" / "metrics.json", set())
    if differing := _differing(record["metrics"], metrics):
        raise DataError(
            f"reports/evaluate/metrics.json: found other figures than tuning recorded in {RECORD} "
            f"({differing}); allowed: the same ones, unless code, versions or the type of CPU "
            f"changed ({record['cpu']} then): tune again, or delete {RECORD} and "
            "run python -m pipeline.dvc_file"
        )
    return f"the figures are those that tuning recorded: {len(metrics)} of {len(metrics)} equal"


def _differing(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Name what differs, in a line; empty if nothing does."""
    keys = [key for key in {**then, **now} if key not in then or key not in now]
    keys += [key for key in then if key in now and then[key] != now[key]]
    words = [
        f"{key} {now.get(key, 'not there')!r}, was {then.get(key, 'not there')!r}" for key in keys
    ]
    more = f", and {len(words) - FEW} more" if len(words) > FEW else ""
    return "; ".join(words[:FEW]) + more


def _read(path: Path, needed: set[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not needed <= content.keys():
        raise DataError(f"{path}: found no record; allowed: one with {sorted(needed)}")
    return content


def main(root: Path) -> None:
    """Say that figures are equal, or end with one line and status 2."""
    configure_logging("info")
    try:
        log.info("%s", compare(root))
    except DreamerError as error:
        log.error("tuned: %s", error)
        sys.exit(2)


if __name__ == "__main__":
    main(Path.cwd())
