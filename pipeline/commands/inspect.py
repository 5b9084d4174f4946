"""`dreamer inspect`: what is in a checkpoint."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dreamer import checkpoint
from pipeline.commands.agents import agent_folder

UNITS = ("B", "kB", "MB", "GB", "TB")


def run(folder: Path) -> Iterator[str]:
    """Verify a checkpoint and tell what it is, tensor by tensor.

    Raises:
        CheckpointError: It is missing, damaged or of an unknown format.
    """
    folder = agent_folder(folder)
    tensors, meta = checkpoint.read(folder)
    yield from (*_head(folder, meta), "", *_parts(tensors), "", *_tensors(tensors))


def _head(folder: Path, meta: Mapping[str, Any]) -> Iterator[str]:
    yield f"folder: {folder}"
    yield f"kind: {meta.get('kind', 'state of an interrupted run')}"
    for key in ("env", "spec", "world_model", "policy", "facts"):
        yield from (f"{key}.{name}: {text}" for name, text in _facts(meta.get(key, {})))
    for path in sorted(folder.glob("*")):
        yield f"file {path.name}: {size(path.stat().st_size)}"
    yield "checksums: ok"


def _facts(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        if name in ("obs", "action"):  # a spec, one line per key
            inner = value.items() if name == "obs" else [("", value)]
            yield from ((f"{name}.{key}".rstrip("."), json.dumps(item)) for key, item in inner)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Numbers per part, the first two words of a tensor's name."""
    counts: Counter[str] = Counter()
    for name, tensor in tensors.items():
        counts[".".join(name.split(".")[:2])] += tensor.numel()
    rows = [(part, f"{count:,}") for part, count in counts.items()]
    rows.append(("all", f"{sum(counts.values()):,}"))
    yield from table(["part", "numbers"], rows)


def _tensors(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    rows = []
    for name, tensor in sorted(tensors.items()):
        shape, dtype = "x".join(map(str, tensor.shape)) or "-", str(tensor.dtype)
        rows.append((name, shape, dtype.removeprefix("torch."), size(tensor.nbytes)))
    yield from table(["tensor", "shape", "dtype", "size"], rows)


def table(header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def size(count: int) -> str:
    """Bytes in words: 1.2 MB."""
    power = min(len(UNITS) - 1, int(math.log(count, 1000))) if count else 0
    return f"{count / 1000**power:.4g} {UNITS[power]}"
