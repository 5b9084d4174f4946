"""`dreamer report`: one page about a training, and its model card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.page.facts import gather
from pipeline.page.render import write_card, write_page
from pipeline.page.sources import Source, open_source
from pipeline.stages.session import pipeline_key
from pipeline.tracking.attach import attach

PAGE, CARD = "report.html", "model_card.md"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says.

    Attributes:
        folder: The training. beside: Others whose curves and figures to show with it.
        base: Revision whose parameters are the defaults. out: Folder to write to, or None.
    """

    folder: Path
    beside: tuple[Path, ...]
    base: str
    out: Path | None


def run(wishes: Wishes, project: Path) -> Iterator[str]:
    """Write page and card, and log them to the run of the pipeline.

    Args:
        project: The current folder, where runs are tracked.

    Raises:
        DreamerError: There is no training, something is damaged, or it cannot be written.
    """
    source = open_source(wishes.folder, project)
    others = [open_source(folder, project) for folder in wishes.beside]
    facts = gather(source, others, wishes.base)
    out = wishes.out or wishes.folder / "reports"
    write_page(out / PAGE, facts)
    write_card(out / CARD, facts)
    yield f"page       {out / PAGE}"
    yield f"card       {out / CARD}"
    yield from (f"note       {note}" for note in facts.notes)
    yield f"MLflow     {_logged(source, project, [out / PAGE, out / CARD])}"


def _logged(source: Source, project: Path, paths: list[Path]) -> str:
    root = source.workspace.root if source.repository else project
    return attach(root, pipeline_key(source.raw), paths, "report")
