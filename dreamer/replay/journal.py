"""Undo journal: old bytes go here before they are overwritten, so that a crash can be undone.

One append-only file per generation. A generation begins at a checkpoint and holds what is needed
to get back to that checkpoint, so a resumed run rolls back every generation from its own on, newest
first. Because the files are named by the generation, it does not matter whether a crash falls
before or after the moment at which the caller makes its checkpoint durable: old files are deleted
only after it, by `discard_before`.

A record is a header (length of the payload, its crc32, crc32 of these two) and the payload; the
first record of a file is its stamp. A record is handed to the kernel before the overwrite that it
protects. One that is cut short by the death of the process was therefore not followed by its
overwrite and is ignored; any other difference is damage.
"""

from __future__ import annotations

import os
import struct
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from dreamer.types import DataError

_LENGTH_CRC = struct.Struct("<QI")
_HEAD_BYTES = _LENGTH_CRC.size + 4


class UndoJournal:
    """The journal files of one folder; `generation` is the one being written (-1: none yet).

    Args:
        directory: Existing folder.
    """

    def __init__(self, directory: Path) -> None:
        self.generation = -1
        self._directory = directory
        self._fd = -1
        self._close: Callable[[], object] = lambda: None

    def begin(self, generation: int, stamp: bytes) -> None:
        """Start a generation with an empty file.

        Args:
            generation: Its number.
            stamp: Bytes that `rollback` checks, to tell a foreign journal from ours.

        Raises:
            DataError: The file cannot be written; the generation before it goes on.
        """
        path = self._path(generation)
        fd = _open(path, os.O_CREAT | os.O_TRUNC)
        try:
            _write(fd, path, stamp)
        except DataError:
            os.close(fd)
            path.unlink()  # the generation before it goes on
            raise
        self._use(generation, fd)

    def append(self, payload: bytes) -> None:
        """Write one record; when this returns it survives the death of the process.

        Raises:
            DataError: The disk is full or fails; the journal is as it was before the call.
        """
        _write(self._fd, self._path(self.generation), payload)

    def rollback(self, generation: int, stamp: bytes, undo: Callable[[bytes], None]) -> None:
        """Undo everything since a generation began, newest record first, then go on writing it.

        Killed at any moment it can simply be called again: records hold absolute values, and a file
        is removed only after all of them were undone, newest first.

        Args:
            generation: The generation of the checkpoint to return to.
            stamp: What `begin` was given for it.
            undo: Called with each payload.

        Raises:
            DataError: A file of the chain is missing or damaged, or the stamp differs.
        """
        newest = max([-1, *self.generations()])
        if generation > newest:
            raise DataError(f"{self._path(generation)}: undo journal is missing")
        for number in range(newest, generation, -1):
            self._undo_file(number, undo, None, may_be_torn=number == newest)
        end = self._undo_file(generation, undo, stamp, may_be_torn=generation == newest)
        for number in range(newest, generation, -1):
            self._path(number).unlink()
        os.truncate(self._path(generation), end)
        self._use(generation, _open(self._path(generation), 0))

    def discard_before(self, generation: int) -> None:
        """Delete older generations; call it once the checkpoint of `generation` is durable."""
        for number in self.generations():
            if number < generation:
                self._path(number).unlink()

    def generations(self) -> list[int]:
        """Return the generations on disk, oldest first."""
        files = self._directory.glob("undo-*.journal")
        return sorted(int(path.stem.removeprefix("undo-")) for path in files)

    def sync(self) -> None:
        """Wait until the journal and the names in its folder are on the disk."""
        os.fsync(self._fd)
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._close()

    def _path(self, generation: int) -> Path:
        return self._directory / f"undo-{generation:08d}.journal"

    def _use(self, generation: int, fd: int) -> None:
        self.close()
        self._fd, self.generation = fd, generation
        self._close = weakref.finalize(self, os.close, fd)

    def _undo_file(
        self,
        generation: int,
        undo: Callable[[bytes], None],
        stamp: bytes | None,
        *,
        may_be_torn: bool,
    ) -> int:
        """Undo one file, newest record first, and return where its stamp ends."""
        path = self._path(generation)
        try:
            with path.open("rb") as file:
                spans = _scan(file, may_be_torn=may_be_torn)
                if stamp is not None and (not spans or _payload(file, *spans[0]) != stamp):
                    raise DataError(f"{path}: undo journal does not belong to this checkpoint")
                for begin, end in reversed(spans[1:]):
                    undo(_payload(file, begin, end))
        except FileNotFoundError as error:
            raise DataError(f"{path}: undo journal is missing") from error
        return spans[0][1] if spans else 0


def _header(payload: bytes) -> bytes:
    head = _LENGTH_CRC.pack(len(payload), zlib.crc32(payload))
    return head + zlib.crc32(head).to_bytes(4, "little")


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | flags, 0o644)
    except OSError as error:
        raise DataError(f"{path}: cannot write the undo journal: {error.strerror}") from error


def _write(fd: int, path: Path, payload: bytes) -> None:
    record = memoryview(_header(payload) + payload)
    start = os.lseek(fd, 0, os.SEEK_END)
    try:
        while record:
            record = record[os.write(fd, record) :]
    except OSError as error:
        os.ftruncate(fd, start)  # or later records would follow a torn one
        raise DataError(
            f"{path}: cannot write {len(payload)} bytes to the undo journal: {error.strerror}"
        ) from error


def _payload(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _scan(file: BinaryIO, *, may_be_torn: bool) -> list[tuple[int, int]]:
    """Return the (begin, end) of each payload; only the last record of the newest may be torn."""
    spans: list[tuple[int, int]] = []
    while head := file.read(_HEAD_BYTES):
        begin = file.tell()
        length, crc = 0, 0
        if len(head) == _HEAD_BYTES:
            length, crc = _LENGTH_CRC.unpack(head[:-4])
            if zlib.crc32(head[:-4]).to_bytes(4, "little") != head[-4:]:
                raise DataError(f"{file.name}: undo journal is damaged before byte {begin}")
        payload = file.read(length)
        if len(head) < _HEAD_BYTES or len(payload) < length:
            if may_be_torn:
                break
            raise DataError(f"{file.name}: undo journal is cut short after byte {begin}")
        if zlib.crc32(payload) != crc:
            raise DataError(f"{file.name}: undo journal is damaged after byte {begin}")
        spans.append((begin, begin + length))
    return spans
