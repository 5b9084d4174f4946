"""Everything that is known about a training, gathered once for the page and the model card."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.page.cost import Cost, costs, duration
from pipeline.page.curves import DURING, PRETRAINING, STEPS, UPDATES, Chart, charts, returns_chart
from pipeline.page.evaluation import Evaluation, evaluations
from pipeline.page.gate import gate_facts
from pipeline.page.lineage import Difference, base_params, differences, lineage, outdated
from pipeline.page.seeds import Variation, other_curves, other_evaluations, variation
from pipeline.page.sources import Source
from pipeline.page.trained import FACT, described, read_saved
from pipeline.report.reading import Row, read_json, read_rows
from pipeline.stages.session import STAGES

PLACARD = 72  # pixels: height of a picture that only says why it is empty (`canvas.placard`)
PICTURES = {
    "frames.png": ("Frames", "An evaluation episode, as its environment draws itself."),
    "imagined.png": (
        "Imagined against real",
        "What the model imagines from the first observations on, beside what really came.",
    ),
    "goals.png": ("Goals", "Which goal the manager set when, and how near the worker came."),
    "maps.png": ("Maps", "Curiosity, empowerment, value and visits, cell by cell."),
    "attention.png": ("Attention", "Which modality listens to which, step by step."),
}


class Picture(NamedTuple):
    """A picture of the stage `evaluate`, with what to say about it."""

    title: str
    caption: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A training as its page tells it.

    Attributes:
        env, seed: Of the training. trained: What, in words.
        charts: Curves. evaluations: Of its agents. others: Best agents of other seeds, and of
            trainings beside it. variation: Over the seeds, where there are several.
        gate: What the gate of the registry said of its best agent, if it did.
        pictures: That show something. base: What parameters are compared with.
        differences: From there. params: All, by dotted key.
        lineage: What it was made from. costs: Of stages whose runs are known here.
        notes: What is not there, and why, one line each.
    """

    env: str
    seed: int
    trained: tuple[FACT, ...]
    charts: tuple[Chart, ...]
    evaluations: tuple[Evaluation, ...]
    others: tuple[Evaluation, ...]
    variation: Variation | None
    gate: tuple[FACT, ...]
    pictures: tuple[Picture, ...]
    base: str
    differences: tuple[Difference, ...]
    params: dict[str, object]
    lineage: tuple[FACT, ...]
    costs: tuple[Cost, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Environment and seed."""
        return f"{self.env}, seed {self.seed}"

    @property
    def worked(self) -> str:
        """How long the stages known here were at work in all."""
        return duration(sum(cost.seconds for cost in self.costs))

    @property
    def all_known(self) -> bool:
        """Whether these are all stages of the training."""
        return set(STAGES) <= {cost.stage for cost in self.costs}


def gather(source: Source, beside: Sequence[Source], base: str) -> Facts:
    """Read a training, and the curves and figures of others to show beside it.

    Args:
        base: Revision whose parameters are the defaults, for the repository.

    Raises:
        DreamerError: What is there is damaged, or the base is unknown.
    """
    reports = source.workspace.reports("evaluate")
    saved = read_saved(source.workspace.agent / "best")
    name, raw = base_params(source, base)
    found = tuple(evaluations(read_json(reports / "metrics.json"), f"{reports}/metrics.json"))
    known = tuple(costs(source))
    pictures = tuple(shown_pictures(reports))
    return Facts(
        env=str(source.flat.get("env.id")),
        seed=int(source.flat.get("seed", 0)),
        trained=tuple(described(source.flat, saved)),
        charts=tuple(all_charts(source, beside)),
        evaluations=found,
        others=(*other_evaluations(source), *best_of(beside)),
        variation=variation(source.workspace),
        gate=tuple(gate_facts(source)),
        pictures=pictures,
        base=name,
        differences=tuple(differences(raw, source.raw)),
        params=source.flat,
        lineage=tuple(lineage(source)),
        costs=known,
        notes=tuple(missing(source, saved is not None, found, known)),
    )


def label(source: Source) -> str:
    """A short name of a training among others."""
    return f"seed {source.flat.get('seed')} ({source.workspace.root.resolve().name})"


def best_of(sources: Sequence[Source]) -> Iterator[Evaluation]:
    """Evaluation of the best agent of each training that has one, under its name."""
    for source in sources:
        path = source.workspace.reports("evaluate") / "metrics.json"
        for found in list(evaluations(read_json(path), str(path)))[:1]:
            yield found._replace(agent=label(source))


def all_charts(source: Source, beside: Sequence[Source]) -> Iterator[Chart]:
    """Curves of a training; returns also of other seeds and of those beside it."""
    metrics = read_rows(source.workspace.reports("train") / "metrics.csv")
    own = label(source) if beside else f"seed {source.flat.get('seed')}"
    trainings = {own: _validations(source)} | other_curves(source)
    yield from returns_chart(trainings | {label(s): _validations(s) for s in beside}, metrics)
    losses = read_rows(source.workspace.reports("pretrain") / "losses.csv")
    yield from charts(PRETRAINING, losses, UPDATES, "updates")
    yield from charts(DURING, metrics, STEPS, "environment steps")


def _validations(source: Source) -> list[Row]:
    return read_rows(source.workspace.reports("train") / "validation.csv")


def shown_pictures(folder: Path) -> Iterator[Picture]:
    """Pictures in a folder that show something."""
    for name, (title, caption) in PICTURES.items():
        path = folder / name
        if path.exists() and png_size(path)[1] > PLACARD:
            yield Picture(title, caption, path)


def png_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels (https://www.w3.org/TR/png-3/#11IHDR)."""
    with path.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:24])
    return int(width), int(height)


def missing(
    source: Source, trained: bool, found: Sequence[Evaluation], known: Sequence[Cost]
) -> Iterator[str]:
    """Say what the page lacks."""
    if not trained:
        yield "No agent was trained yet."
    if not found:
        yield "No agent was evaluated yet."
    elsewhere = [name for name in STAGES if name not in {cost.stage for cost in known}]
    if elsewhere:
        yield f"What these stages cost is not known here: {', '.join(elsewhere)}."
    stale = outdated(source)
    if stale:
        yield (
            f"dvc.lock was not made with these parameters, in {', '.join(stale)}: what is shown "
            "may be older than they are; `dvc repro` makes it anew."
        )
