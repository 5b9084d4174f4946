"""What a long command says while it works.

On a terminal it is one line rewritten in place, in a pipe plain log lines. Nothing here
goes into a DVC out: times and rates belong to the reader at the screen.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from dreamer.types import ConfigError

LEVELS = ("debug", "info", "warning", "error")
OURS = ("dreamer", "pipeline", "__main__")  # other libraries speak from `warning` on
FORMAT = "%(levelname)s - %(message)s"
ERASE = "\r\x1b[K"  # to the start of the line, and clear it
INTERVAL = 0.2  # seconds between two drawings
WINDOW = 30.0  # seconds over which rates are measured, long enough to contain a validation

log = logging.getLogger(__name__)


def configure_logging(level: str) -> None:
    """Write log records to stderr as `LEVEL - message`; calling it again replaces the first call.

    Args:
        level: `debug`, `info`, `warning` or `error`, for this project's own records; those of
            libraries appear from `warning` on.

    Raises:
        ConfigError: It is none of these.
    """
    if level not in LEVELS:
        raise ConfigError("log_level", level, f"one of {list(LEVELS)}")
    number = getattr(logging, level.upper())
    # On a terminal a record takes the place of the progress line, which the next update redraws.
    prefix = ERASE if on_terminal(sys.stderr) else ""
    logging.basicConfig(
        stream=sys.stderr, format=prefix + FORMAT, level=max(number, logging.WARNING), force=True
    )
    for name in OURS:
        logging.getLogger(name).setLevel(number)


def log_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """Log one row of metrics: `Step 1000: {'world/recon_loss': 0.1234}`.

    On a terminal, where the progress line stands, it is a matter for `debug`.
    """
    if log.isEnabledFor(level := _level()):
        log.log(level, "Step %d: %s", step, {key: _short(value) for key, value in metrics.items()})


def log_episode(ret: float, length: int) -> None:
    """Log a finished episode: `Episode return: 150.5, length: 200`; see `log_metrics`."""
    if log.isEnabledFor(level := _level()):
        log.log(level, "Episode return: %s, length: %d", _short(float(ret)), length)


def announce(updates: int, seconds_per_update: float | None) -> None:
    """Say at the start how many updates a run owes and about how long that takes.

    Args:
        updates: Still to do. seconds_per_update: Measured or known cost, None if neither.
    """
    if updates <= 0:
        log.info("No update is left to do.")
    elif seconds_per_update is None:
        log.info("This run owes %s updates.", f"{updates:,}")
    else:
        log.info(
            "This run owes %s updates, about %s at %s s each.",
            f"{updates:,}",
            duration(updates * seconds_per_update),
            f"{seconds_per_update:.2g}",
        )


def on_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can rewrite a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """Words for a time: `45 s`, `3 min 20 s`, `2 h 05 min`, `4 d 3 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


class Progress:
    """How far a command has come: `with Progress(20000, "steps") as progress: progress.update(8)`.

    On a terminal it is one line, drawn at most five times a second and once more at the end;
    elsewhere nothing is written. An update that draws nothing costs about a microsecond.

    Args:
        total: What `done` will be at the end.
        unit: Of both, in the plural (`steps`).
        stream: Where the line goes; standard error unless given.
        clock: Seconds since any moment, never going back.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.unit = total, unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._live = on_terminal(self._stream)
        self._drawn = False
        self._next = -float("inf")
        self._numbers: dict[str, float] = {}
        # (seconds, done, updates) of the drawings in the window; the first sets where it began,
        # so that a resumed run does not count what was done before.
        self._seen: deque[tuple[float, int, int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def update(self, done: int, updates: int | None = None, **numbers: float) -> None:
        """Say how far the command is.

        Args:
            done: Of `total`, counted from the start of the run and not of the process.
            updates: Training updates made so far, shown as a rate.
            numbers: Shown as they are named (`**{"return": 150.5}`), `x_per_s` as `x/s`, until
                they are given again.
        """
        if not self._live:
            return
        if numbers:
            self._numbers |= numbers
        now = self._clock()
        if now < self._next and done < self.total:
            return
        self._next = now + INTERVAL
        self._draw(now, done, updates)

    def close(self) -> None:
        """Leave the line as it is and go to the next one."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()
            self._drawn = False

    def _draw(self, now: float, done: int, updates: int | None) -> None:
        count = done if updates is None else updates
        while self._seen and now - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        self._seen.append((now, done, count))
        since, first_done, first_count = self._seen[0]
        share = 100 * done // self.total if self.total > 0 else 100
        parts = [f"{done:,}/{self.total:,} {self.unit}", f"{share}%"]
        parts += [_named(name, value) for name, value in self._numbers.items()]
        if now > since:
            rated = self.unit if updates is None else "updates"
            parts.append(f"{_plain((count - first_count) / (now - since))} {rated}/s")
        if now > since and done > first_done:
            left = (self.total - done) * (now - since) / (done - first_done)
            parts.append(f"{duration(left)} left")
        # One column stays free: a full line would wrap and could not be rewritten.
        line = "  ".join(parts)[: self._width() - 1]
        self._stream.write(ERASE + line)
        self._stream.flush()
        self._drawn = True

    def _width(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError, AttributeError):  # a pseudo-terminal that has no size
            columns = 0
        return columns or shutil.get_terminal_size().columns


def _level() -> int:
    return logging.DEBUG if on_terminal(sys.stderr) else logging.INFO


def _named(name: str, value: float) -> str:
    rate = name.removesuffix("_per_s")
    return f"{name} {_plain(value)}" if rate == name else f"{_plain(value)} {rate}/s"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(value: float) -> float:
    """Four digits are enough to read: 4 behind the point, or 4 significant ones below 1."""
    return float(f"{value:.4g}") if abs(value) < 1 else round(value, 4)
