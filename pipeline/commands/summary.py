"""`dreamer summary`: what `make repro` learned, and where to look."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from dreamer.types import DataError
from pipeline.page.lineage import stages_of
from pipeline.page.seeds import variation
from pipeline.page.sources import LOCK
from pipeline.stages.session import Workspace

# What decides about the content of dvc.lock, besides the type of CPU.
SOURCES = ("params.yaml", "dvc.yaml", "requirements.lock", "dreamer", "pipeline")


def run(root: Path) -> Iterator[str]:
    """Summarise the pipeline of the repository in `root`.

    Raises:
        DataError: Nothing was evaluated yet, or the figures are damaged.
    """
    workspace = Workspace(root)
    reports = root / "reports"
    yield from figures_lines(read_figures(workspace.reports("evaluate") / "metrics.json"))
    if (over := variation(workspace)) is not None:
        yield (
            f"seeds      {over.mean:.6g} +- {over.std:.4g} over {over.seeds} seeds, each its mean "
            f"return ({over.lowest:.6g} to {over.highest:.6g})"
        )
    yield f"agent      {_short(workspace.agent / 'best', root)}"
    yield from (f"picture    {_short(path, root)}" for path in sorted(reports.rglob("*.png")))
    yield "play it    dreamer play models/agent/best"
    yield "curves     make ui, or dvc plots show"
    if other_bits(root) and not any(differs(root, source) for source in SOURCES):
        yield (
            f"note       this CPU ({cpu_type()}) gives other bits than the one of the committed "
            "dvc.lock: same parameters, same code, other last digits"
        )


def read_figures(path: Path) -> dict[str, float]:
    """Read the figures that the stage `evaluate` wrote.

    Raises:
        DataError: They are missing or damaged.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: nothing was evaluated yet; run `make repro` first") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    needed = set(FIGURES)
    if not isinstance(figures, dict) or not needed <= figures.keys():
        raise DataError(f"{path}: found no evaluation; allowed: figures with {sorted(needed)}")
    return {str(key): float(value) for key, value in figures.items()}


FIGURES = (
    "episode/return",
    "episode/return_std",
    "episode/return_min",
    "episode/return_ci_low",
    "episode/return_ci_high",
    "episode/count",
)


def figures_lines(figures: Mapping[str, float]) -> Iterator[str]:
    """Say in words how good the best agent is, and the last one."""
    mean, std, low, ci_low, ci_high, count = (figures[key] for key in FIGURES)
    yield (
        f"return     {mean:.6g} +- {std:.4g} over {count:.0f} episodes "
        f"(95% interval of the mean {ci_low:.6g} to {ci_high:.6g}, worst episode {low:.6g})"
    )
    if "last/episode/return" in figures:
        last, spread = figures["last/episode/return"], figures.get("last/episode/return_std", 0.0)
        yield f"last agent {last:.6g} +- {spread:.4g}, without choosing by validation"


def differs(root: Path, path: str) -> bool:
    """Whether git knows another content of `path` at HEAD; False without git."""
    command = ["git", "-C", str(root), "diff", "--quiet", "HEAD", "--", path]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 1
    except OSError:  # no git here
        return False


def other_bits(root: Path) -> bool:
    """Whether a stage of the dvc.lock at HEAD has other outs here; False without git or lock."""
    command = ["git", "-C", str(root), "show", f"HEAD:{LOCK}"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
        now = (root / LOCK).read_text(encoding="utf-8")
    except OSError:
        return False
    if shown.returncode:
        return False
    committed, here = stages_of(shown.stdout, f"HEAD:{LOCK}"), stages_of(now, LOCK)
    both = committed.keys() & here.keys()
    return any(committed[name].get("outs") != here[name].get("outs") for name in both)


def cpu_type() -> str:
    """Name of the CPU as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
