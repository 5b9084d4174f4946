"""Which files of the project a module depends on, by its import statements alone."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

PACKAGES = ("dreamer", "pipeline")
ROOT = Path(__file__).resolve().parent.parent


def import_closure(module: str, root: Path = ROOT) -> list[Path]:
    """Files that importing `module` may run, of this project only, wherever the statement stands.

    Args:
        module: Dotted name. root: Folder that holds the packages.

    Returns:
        Paths relative to `root`, sorted.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, root)
        if name in found or path is None:
            continue
        found[name] = path.relative_to(root)
        waiting += _imports(path, path.stat().st_mtime_ns)
        # Importing a.b.c runs a and a.b first.
        waiting += [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
    return sorted(found.values())


@functools.cache  # a command asks for the closures of all stages, which are much the same files
def _imports(path: Path, _mtime_ns: int) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _file_of(name: str, root: Path) -> Path | None:
    if name.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
