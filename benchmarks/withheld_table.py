"""The table of agents that had to do without one of their modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.evidence_rows import Row
from benchmarks.markdown import distinct, plus_minus, table

RETURN, COUNT = "return", "count"
OF_EVERY_TASK = ("return", "length", "count")  # and how the names of their spreads begin


def withheld_part(arms: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Variant -> rows, to a line per variant and modality; nothing if no agent was deprived."""
    deprived = {arm: rows for arm, rows in arms.items() if rows and "withheld" in rows[0]}
    if not deprived:
        return
    found = [row["withheld"] for rows in deprived.values() for row in rows]
    names = [
        RETURN,
        *sorted({name for one in found for fig in one.values() for name in fig if is_score(name)}),
    ]
    lines = [
        [
            arm,
            sense,
            *(plus_minus([row["withheld"][sense][name] for row in rows]) for name in names),
        ]
        for arm, rows in deprived.items()
        for sense in rows[0]["withheld"]
    ]
    episodes = distinct(fig[COUNT] for one in found for fig in one.values())
    yield f"The best agents with one modality withheld, {episodes} episodes each:\n"
    yield table(("variant", "withheld", *names), lines)


def is_score(name: str) -> bool:
    """Whether a figure is one that the environment gives."""
    return not name.startswith(OF_EVERY_TASK)
