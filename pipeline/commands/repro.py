"""`dreamer repro`: write what was said into params.yaml, then let DVC make what is missing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dreamer.types import ConfigError, DreamerError
from pipeline.commands import summary
from pipeline.commands.processes import environment_of_stages, stoppable
from pipeline.commands.settings import PARAMS, Wishes, layered, observe_spec
from pipeline.flat_config import check_dims, read_flat_config
from pipeline.params import from_raw, leaves, load_raw
from pipeline.presets import apply_values
from pipeline.scratch import Interrupted

PIPELINE = "dvc.yaml"
LAST = "evaluate"  # the stage whose figures are told


def run(wishes: Wishes, stage: str | None, log_level: str | None) -> Iterator[str]:
    """Run the pipeline of the current folder, or one stage with what it needs.

    Args:
        wishes: About the parameters; DVC sees nothing but params.yaml, so they are written there.
        stage: Its name; all stages if None. log_level: Of the stages.

    Raises:
        ConfigError: On every mistake in the parameters, before anything is written.
        DreamerError: DVC failed, after it said why.
        Interrupted: After a signal; the stage at work writes a checkpoint.
    """
    if not Path(PIPELINE).exists():
        raise ConfigError(PIPELINE, "no such file", "the folder of a project, as the current one")
    yield from _written(wishes)
    status = _dvc(["repro", *([stage] if stage else [])], log_level)
    if status:
        raise DreamerError(f"dvc repro ended with status {status}; the reason is above")
    if stage in (None, LAST):
        yield from summary.run(Path())


def _dvc(words: list[str], log_level: str | None) -> int:
    """Run DVC; when stopped, end it and wait until the stage at work has written its checkpoint.

    They have a process group of their own: a terminal sends Ctrl-C to everybody in the group, and
    DVC would go on with the next stage if the one at work has come to its end just then.
    """
    env = environment_of_stages() | ({"DREAMER_LOG_LEVEL": log_level} if log_level else {})
    process = subprocess.Popen([sys.executable, "-m", "dvc", *words], env=env, process_group=0)
    with stoppable():
        try:
            return process.wait()
        except (KeyboardInterrupt, Interrupted):
            with contextlib.suppress(ProcessLookupError):  # which says that nobody is left
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                while True:
                    os.killpg(process.pid, 0)
                    time.sleep(0.1)
            raise


def _written(wishes: Wishes) -> Iterator[str]:
    """Write what differs into params.yaml, all at once, and show it."""
    before = load_raw(PARAMS)
    overrides, expectations = read_flat_config(wishes.config) if wishes.config else ({}, {})
    raw, _ = layered(wishes, before, overrides)
    check_dims(observe_spec(from_raw(raw).env), expectations)
    old = dict(leaves(before))
    values = {key: new for key, new in leaves(raw) if repr(old.get(key)) != repr(new)}
    for change in apply_values(values, PARAMS, check=from_raw):
        yield f"{PARAMS}: {change.key}: {change.old} -> {change.new}"
