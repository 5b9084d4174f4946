"""Where an interrupted stage left off: fingerprint, lock, signals.

Checkpoints of a running stage live in `$DVC_ROOT/.scratch/<stage>/<fingerprint>/`, outside the
outs, which DVC deletes before it runs a stage. The fingerprint covers parameters, dependencies and
code, so that a run can only ever resume itself. `DVC_ROOT` is the parent repository even in
`dvc exp run --temp`; without it the current folder is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Self

from dreamer.types import DataError, DreamerError

KEEP = 3  # interrupted runs of a stage whose checkpoints are kept, the newest
LOCK = "lock"
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2  # linux/prctl.h

log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """The stage was asked to stop and wrote its checkpoint; ends the process with 128 + signal."""

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__(128 + signum)


def fingerprint(
    stage: str,
    params: Mapping[str, Any],
    dependencies: Iterable[str | Path],
    code: Iterable[str | Path] = (),
) -> str:
    """Hash everything that a stage's result depends on.

    Only contents and the names below each path count, not where the project lies, so that a copy
    of it (`dvc exp run --temp`) finds the same checkpoints.

    Args:
        stage: Name of the stage.
        params: The parameters it declares, what JSON can hold.
        dependencies: Files and folders it reads, always in the same order.
        code: Files and folders of code, always in the same order.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: if a path is missing or unreadable.
    """
    content = {
        "stage": stage,
        "params": params,
        "dependencies": [_content(Path(path)) for path in dependencies],
        "code": [_content(Path(path)) for path in code],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(path: Path) -> list[list[str]]:
    """List [name, checksum] of a file, or of all files below a folder."""
    try:
        if path.is_dir():
            files = sorted(
                (file.relative_to(path).as_posix(), file)
                for file in path.rglob("*")
                if file.is_file() and "__pycache__" not in file.parts
            )
        else:
            files = [(path.name, path)]
        return [[name, _sha256(file)] for name, file in files]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Scratch:
    """The folder of one interruptible run: `with Scratch("train", fingerprint(...)) as scratch`.

    Inside the block no second process can work on the same folder, SIGTERM and the first SIGINT
    only set `stop_requested` (a second SIGINT kills), and on Linux the death of DVC counts as
    SIGTERM. The stage looks at `stop_requested` between two updates, writes its checkpoint below
    `path` and raises `interrupted()`. After its outs are written it calls `done()`.

    Folders of other runs of the stage are deleted on entry except the newest three and those at
    work. Outside of the main thread signals are left alone: Python allows handlers only there.

    Attributes:
        path: The folder.

    Raises:
        DreamerError: on entry, if another process works on the folder or it cannot be made.
    """

    def __init__(self, stage: str, fingerprint: str, root: str | Path | None = None) -> None:
        root = Path(root or os.environ.get("DVC_ROOT") or Path.cwd())
        self.stage = stage
        self.path = root / ".scratch" / stage / fingerprint[:16]
        self._signum = 0
        self._pid = os.getpid()
        self._exit = contextlib.ExitStack()

    @property
    def stop_requested(self) -> bool:
        """Whether a signal asked the run to stop."""
        return self._signum != 0

    def interrupted(self) -> Interrupted:
        """Return the exception to raise once the checkpoint is written; the exit code tells why."""
        return Interrupted(self._signum or signal.SIGTERM)

    def done(self) -> None:
        """Delete the folder: the stage has written its outs."""
        try:
            _discard(self.path)
        except OSError as error:  # the result is there, so this is no reason to fail
            log.warning("%s: cannot be deleted: %s", self.path, error.strerror)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:  # undone in reverse, also if a step fails
            try:
                lock = _acquire(self.path)
                if lock is None:
                    raise DreamerError(_busy(self.stage, self.path))
                stack.callback(_release, lock)
                _prune(self.path)
            except OSError as error:
                raise DreamerError(f"{self.path}: cannot be used: {error.strerror}") from error
            if threading.current_thread() is threading.main_thread():
                stack.enter_context(self._signals())
                if "DVC_ROOT" in os.environ:  # `nohup dreamer train &` outlives its shell
                    stack.enter_context(self._follow_parent())
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler or signal.SIG_DFL)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker: its owner, still at work, decides
            if signum == signal.SIGTERM:
                _die_of(signum)
            return
        if signum == signal.SIGINT and self.stop_requested:
            _die_of(signum)
        self._signum = signum
        # os.write, because a handler may interrupt a print or a log line half-way
        hint = "; Ctrl-C again to kill" if signum == signal.SIGINT else ""
        os.write(2, f"\nStopping {self.stage} at its next checkpoint{hint}.\n".encode())

    @contextlib.contextmanager
    def _follow_parent(self) -> Iterator[None]:
        """Receive SIGTERM when the parent dies, where the system offers it."""
        if sys.platform != "linux":
            yield
            return
        libc = ctypes.CDLL(None, use_errno=True)
        before, parent = ctypes.c_int(), os.getppid()
        libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(before))
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call, which then tells nothing
            self._signum = signal.SIGTERM
        try:
            yield
        finally:
            libc.prctl(PR_SET_PDEATHSIG, before.value)


def _die_of(signum: int) -> None:
    signal.signal(signum, signal.SIG_DFL)
    signal.raise_signal(signum)


def _acquire(folder: Path) -> IO[str] | None:
    """Create `folder` and lock it; None if somebody else holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        lock = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        # A lock on a file that was deleted between opening and locking would keep nobody out.
        if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return lock
        lock.close()


def _release(lock: IO[str]) -> None:
    # Unlocked by hand: a forked child that still lives holds the same open file.
    fcntl.flock(lock, fcntl.LOCK_UN)
    lock.close()


def _busy(stage: str, folder: Path) -> str:
    pid = (folder / LOCK).read_text(encoding="ascii") or "unknown"
    return f"{stage} is already running (process {pid} holds {folder}); wait for it or stop it"


def _discard(folder: Path) -> None:
    """Delete a folder so that a kill half-way leaves nothing to resume from."""
    aside = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)  # what is left, the next run of the stage deletes


def _prune(own: Path) -> None:
    """Delete what interrupted runs of the same stage left, but for the newest `KEEP`."""
    ages: list[tuple[float, Path]] = []
    for folder in own.parent.iterdir():
        if folder.name.endswith(".removed"):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder != own:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # or just deleted
                ages.append(((folder / LOCK).stat().st_mtime, folder))
    for _, folder in sorted(ages, reverse=True)[KEEP:]:
        lock = _acquire(folder)
        if lock:
            log.info("Deleting %s, left by an older interrupted run", folder)
            _discard(folder)
            _release(lock)
