"""What a stage holds: a tracked run to which it tells everything, and waits for nothing.

Environment: `DREAMER_TRACKING=off` (log only).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from dreamer.types import ConfigError
from pipeline.tracking.place import QUIET, adopt_mlflow_run, environment, http_patience
from pipeline.tracking.uploader import Background, Uploader
from pipeline.write_ahead_log import LogWriter, keep_copy

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What makes a run the same run after a restart, on any machine.

    Attributes:
        experiment: MLflow experiment, created if needed.
        key: Chosen by the client, equal for equal work (the fingerprint of a stage).
        name: Shown in the interface.
        parent_key: Key of the run that it belongs to, created by whoever comes first.
        tags: Set at every start.
    """

    experiment: str
    key: str
    name: str
    parent_key: str | None
    tags: Mapping[str, str]

    def __post_init__(self) -> None:
        for label, key in (("run key", self.key), ("parent key", self.parent_key or "none")):
            if not re.fullmatch(r"[\w.-]{1,200}", key):
                raise ConfigError(label, key, "1 to 200 letters, digits, '_', '-' and '.'")


class Tracker:
    """One tracked run, as a context manager; nothing it does waits for a server.

    Leaving it by an exception marks the run FAILED, or KILLED for KeyboardInterrupt and SystemExit.

    Args:
        directory: `.runs/<run key>/`.
        run: Which run this is.
        root: Project root, for the default tracking URI.
        interval: Seconds between uploads.
        exit_wait: Longest time that leaving waits for the last upload, in seconds.
    """

    def __init__(
        self,
        directory: Path,
        run: RunIdentity,
        *,
        root: Path,
        interval: float = 5.0,
        exit_wait: float = 10.0,
    ) -> None:
        self._directory, self._run, self._root = directory, run, root
        self._interval, self._exit_wait = interval, exit_wait
        self._cleanup = ExitStack()
        self._finished = False

    def __enter__(self) -> Self:
        self._log = LogWriter(self._directory)
        self._log.append("start", asdict(self._run) | {"parent_run_id": adopt_mlflow_run()})
        self._cleanup.callback(self._log.close)
        if os.environ.get("DREAMER_TRACKING", "").lower() != "off":
            # Here, not in the thread: changing the environment while others read it is unsafe.
            for name, value in QUIET.items():
                os.environ.setdefault(name, value)
            self._cleanup.enter_context(environment(http_patience(5)))
            background = Background(Uploader(self._directory, self._root), self._interval)
            self._cleanup.callback(background.stop, self._exit_wait)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._finished:
            killed = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
            self.finish("FINISHED" if kind is None else "KILLED" if killed else "FAILED")
        self._cleanup.close()

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters (dotted keys); MLflow keeps the first value of each."""
        self._log.append("params", {"values": {k: str(v) for k, v in values.items()}})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics at an environment step; the steps of a key never fall, but by `rewind`."""
        floats = {key: float(value) for key, value in values.items()}
        self._log.append("metrics", {"step": int(step), "values": floats})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; a later value replaces an earlier one."""
        self._log.append("tags", {"values": {k: str(v) for k, v in values.items()}})

    def artifact(self, path: Path, folder: str) -> None:
        """Record a file, or the contents of a directory, under a folder of the run's artifacts."""
        try:
            kept = keep_copy(self._directory, path)
        except OSError as error:
            logger.warning("tracking: cannot keep %s: %s", path, error)
        else:
            self._log.append("artifact", {"path": kept, "folder": folder})

    def dataset(self, name: str, digest: str, tags: Mapping[str, str]) -> None:
        """Record data that the run read, by its DVC digest."""
        self._log.append("dataset", {"name": name, "digest": digest, "tags": dict(tags)})

    def model(self, directory: Path, name: str) -> None:
        """Record a directory of weights as artifacts in the folder `name`, tagged as the model."""
        self.artifact(directory, name)
        self.tags({"dreamer.model": name})

    def rewind(self, step: int) -> None:
        """Say that the run goes on after `step`: metrics of later steps will come again."""
        self._log.append("rewind", {"step": int(step)})

    def finish(self, status: Status) -> None:
        """Record how the run ended; implied by leaving the context."""
        self._log.append("finish", {"status": status})
        self._finished = True
