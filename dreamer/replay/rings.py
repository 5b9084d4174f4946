"""Ring storage: one contiguous ring per environment and field, in memory-mapped files or in RAM."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from dreamer.types import DataError

Field = tuple[tuple[int, ...], str]  # shape and numpy dtype of one row

_HEADER_SLACK = 4096  # bytes per file for the .npy header, rounded up to a page


class RingStore:
    """Named arrays of `num_envs` rings of `ring` rows each.

    A row is addressed by its slot, `env * ring + position`; `flat[name]` is (num_envs * ring, *).
    On disk a field is one `.npy` file shaped (num_envs, ring, *), so that the ring of an
    environment is contiguous and any tool that reads `.npy` can look at it. The files are
    allocated, not sparse: a disk that is too small is refused here and not hours later.

    Args:
        fields: name -> (shape, dtype) of one row.
        num_envs: Number of rings.
        ring: Rows per ring.
        directory: Folder of the files, made if needed; None keeps the arrays in RAM.
        create: Make new files (replacing old ones) instead of opening those that are there.

    Raises:
        DataError: The folder cannot be written, has too little room, or a file to be opened is
            missing, cut short or of another layout.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        num_envs: int,
        ring: int,
        directory: Path | None,
        *,
        create: bool,
    ) -> None:
        self._shapes = {
            name: (num_envs, ring, *shape) for name, (shape, _) in sorted(fields.items())
        }
        self._dtypes = {name: np.dtype(fields[name][1]) for name in self._shapes}
        self.slots = num_envs * ring
        self.nbytes = sum(self._size(name) for name in self._shapes)
        self._maps: dict[str, np.memmap[Any, Any]] = {}
        if directory is None:
            arrays = {n: np.zeros(s, self._dtypes[n]) for n, s in self._shapes.items()}
        else:
            if create:
                self._allocate(directory)
            self._maps = {name: self._open(directory, name) for name in self._shapes}
            arrays = {name: np.asarray(array) for name, array in self._maps.items()}
        # Plain views: indexing through the memmap subclass costs more than the copy of a small row.
        self.flat = {
            name: array.reshape(self.slots, *array.shape[2:]) for name, array in arrays.items()
        }

    @property
    def layout(self) -> dict[str, Any]:
        """Shape (num_envs, ring, *) and dtype of every field, ready for JSON."""
        return {n: [list(shape), self._dtypes[n].name] for n, shape in self._shapes.items()}

    def pack(self, names: Iterable[str], slots: np.ndarray) -> bytes:
        """Return the bytes of these slots, field after field."""
        return b"".join(self.flat[name].take(slots, axis=0).tobytes() for name in names)

    def unpack(self, names: Iterable[str], slots: np.ndarray, data: memoryview) -> None:
        """Put back what `pack` returned for the same names and slots."""
        offset = 0
        for name in names:
            array = self.flat[name]
            count = len(slots) * (array.nbytes // len(array))
            values = np.frombuffer(data[offset : offset + count], array.dtype)
            array[slots] = values.reshape(len(slots), *array.shape[1:])
            offset += count

    def flush(self) -> None:
        """Wait until everything written so far is on the disk."""
        for array in self._maps.values():
            array.flush()

    def checksums(self, counts: np.ndarray) -> dict[str, int]:
        """Return a crc32 per field over the first `counts[env]` rows of every ring."""
        ring = self.slots // len(counts)
        spans = [slice(env * ring, env * ring + int(count)) for env, count in enumerate(counts)]
        sums = dict.fromkeys(self.flat, 0)
        for name, flat in self.flat.items():
            for span in spans:
                sums[name] = zlib.crc32(flat[span].data, sums[name])
        return sums

    def _size(self, name: str) -> int:
        return int(np.prod(self._shapes[name], dtype=np.int64)) * self._dtypes[name].itemsize

    def _allocate(self, directory: Path) -> None:
        needed = self.nbytes + _HEADER_SLACK * len(self._shapes)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name in self._shapes:
                ring_path(directory, name).unlink(missing_ok=True)
            free = shutil.disk_usage(directory).free
        except OSError as error:
            raise DataError(f"replay folder {directory}: {error.strerror or error}") from error
        if needed > free:
            raise DataError(_no_room(directory, needed, free, "capacity is too large for the disk"))
        try:
            for name in self._shapes:
                self._create(ring_path(directory, name), name)
        except OSError as error:
            free = shutil.disk_usage(directory).free
            for name in self._shapes:
                ring_path(directory, name).unlink(missing_ok=True)
            reason = error.strerror or str(error)
            raise DataError(_no_room(directory, needed, free, reason)) from error

    def _create(self, path: Path, name: str) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtypes[name]),
            "fortran_order": False,
            "shape": self._shapes[name],
        }
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            os.posix_fallocate(file.fileno(), file.tell(), self._size(name))

    def _open(self, directory: Path, name: str) -> np.memmap[Any, Any]:
        path = ring_path(directory, name)
        try:
            with path.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                offset, size = file.tell(), os.fstat(file.fileno()).st_size
        except FileNotFoundError as error:
            raise DataError(f"{path}: replay ring is missing") from error
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: replay ring is damaged: {reason}") from error
        if shape != self._shapes[name] or dtype != self._dtypes[name]:
            raise DataError(
                f"{path}: replay ring holds {dtype.name} {shape}, "
                f"needed {self._dtypes[name].name} {self._shapes[name]}"
            )
        # Checked here, since numpy would quietly lengthen a file that was cut short.
        if size != offset + self._size(name):
            raise DataError(
                f"{path}: replay ring is damaged: {size} bytes, needed {offset + self._size(name)}"
            )
        return np.memmap(path, dtype, "r+", offset, shape)


def ring_path(directory: Path, name: str) -> Path:
    """Return the file of a field; names that are no file names are percent-encoded."""
    return directory / f"{quote(name, safe='')}.npy"


def _no_room(directory: Path, needed: int, free: int, reason: str) -> str:
    return f"replay folder {directory}: needs {needed} bytes, {free} available: {reason}"
