"""The rules of the house: who may import whom, how long a function may be, which words stay out."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room is a file or a folder of a package. It imports rooms of a lower floor, and itself.
FLOORS = {
    "dreamer": [
        {"types"},
        {"nested_state", "modality_configs"},
        {"nn", "checkpoint", "envs"},
        {"modalities", "replay"},
        {"world_model"},
        {"behavior"},
        {"agent", "meta_gradient", "intrinsic"},
        {"self_tuning", "schedule"},
        {"trainer", "evaluation", "saved_agent"},
        {"exchange"},
        {"compiling", "loop", "pretraining"},
        {"__init__"},
    ],
    "pipeline": [
        {"params", "write_ahead_log"},
        {"tracking", "scratch", "presets", "flat_config", "closure", "progress"},
        {"report", "serving"},
        {"stages"},
        {"dvc_file", "page"},
        {"registry"},
        {"commands"},
        {"tune", "cluster"},
        {"arguments"},
        {"cli"},
        {"mlproject"},
        {"__init__"},
    ],
}
FLOOR = {
    (p, room): i for p, floors in FLOORS.items() for i, rooms in enumerate(floors) for room in rooms
}
BESIDE = {"checkpoint", "envs"}  # of dreamer: for the loop and what it needs, not for the agent
USERS = {"loop", "evaluation", "saved_agent", "__init__"}
HOMES = {  # library -> the only modules that import it
    "dvc": set(),
    "jinja2": {"pipeline.page"},
    "mlflow": {"pipeline.registry", "pipeline.serving", "pipeline.tracking"},
    "optuna": {"pipeline.tune"},
    "ray": {"pipeline.cluster"},
    "ruamel": {"pipeline.presets"},
    "yaml": {"pipeline.params"},
}
LONGEST = 60
# Written so that this file does not contain what it looks for.
FORBIDDEN = re.compile(
    r"/(home|root|work|farm|Users)/|/opt/whee[l]s|py[p]i\.org|pythonhos[t]ed|registry\.np[m]js|deb\.deb[i]an"
)


def modules() -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module of both packages."""
    files = [f for package in FLOORS for f in sorted((ROOT / package).rglob("*.py"))]
    dotted = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return {n: ast.parse(f.read_text(), f) for n, f in zip(dotted, files, strict=True)}


MODULES = modules()


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that a module imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"relative import of {node.module or '.'}"
            elif node.module in FLOORS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def fault(importer: str, name: str) -> str | None:
    """Say what is wrong with `importer` importing `name`, or None."""
    (package, room), (target, *rest) = importer.split(".")[:2], name.split(".")
    if target.startswith("relative"):
        return f"{importer}: {name}; write the absolute one"
    if target in HOMES:
        at_home = any(importer == h or importer.startswith(f"{h}.") for h in HOMES[target])
        return None if at_home else f"{importer} imports {target}; allowed: {sorted(HOMES[target])}"
    if target not in FLOORS or (package, target) == ("pipeline", "dreamer"):
        return None
    inner = rest[0] if rest else "__init__"
    if target != package or (target, inner) not in FLOOR:
        return f"{importer} imports {name}, which is no room of {package}"
    if inner == room or FLOOR[target, inner] < FLOOR[package, room]:
        beside = package == "dreamer" and inner in BESIDE - {room} and room not in USERS
        return f"{importer} imports {name}; allowed: {sorted(USERS)}" if beside else None
    return f"{importer} imports {name}, which is not on a lower floor"


def test_every_module_has_a_floor():
    rooms = {tuple(name.split(".")[:2]) for name in MODULES}
    unknown = sorted(".".join(room) for room in rooms - FLOOR.keys())
    assert not unknown, f"add {unknown} to FLOORS in {Path(__file__).name}, or find a room for them"


def test_imports_point_downwards():
    known = {n: tree for n, tree in MODULES.items() if tuple(n.split(".")[:2]) in FLOOR}
    faults = [fault(n, name) for n, tree in known.items() for name in imported(tree)]
    assert not [f for f in faults if f]


@pytest.mark.parametrize(
    ("importer", "name"),
    [
        ("dreamer.nn.math", "dreamer.world_model.rssm"),
        ("dreamer.replay.buffer", "dreamer.modalities"),
        ("dreamer.trainer", "dreamer.envs.make"),
        ("dreamer.envs.make", "dreamer.checkpoint"),
        ("dreamer.agent", "pipeline.params"),
        ("dreamer.agent", "mlflow"),
        ("dreamer.agent", "dreamer.unheard_of"),
        ("pipeline.report", "mlflow.tracking"),
        ("pipeline.presets", "yaml"),
        ("pipeline.params", "pipeline.tracking"),
        ("pipeline.stages.train", "pipeline.cli"),
        ("pipeline.cli", "relative import of params"),
    ],
)
def test_a_forbidden_import_is_found(importer, name):
    assert fault(importer, name)


@pytest.mark.parametrize(
    ("importer", "name"),
    [
        ("dreamer.nn.layers", "dreamer.nn.math"),
        ("dreamer.loop", "dreamer.checkpoint"),
        ("dreamer.envs.make", "dreamer.types"),
        ("pipeline.stages.train", "dreamer.envs.make"),
        ("pipeline.tracking", "mlflow"),
        ("pipeline.cli", "pipeline.stages.train"),
    ],
)
def test_an_allowed_import_passes(importer, name):
    assert fault(importer, name) is None


def test_functions_are_short():
    lengths = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST}


def test_no_machine_is_named():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    found = []
    for path in (p for p in paths if p.is_file()):
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {m.group()}" for m in FORBIDDEN.finditer(text)]
    assert not found
