"""What a question is: tasks, variants that are tried on them, and what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.evidence_rows import Job
from benchmarks.measures import Expectation, longest, most_threads

Changes = Mapping[str, Any]

SEEDS = (0, 1, 2)
MOST_MINUTES = 30.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A preset, and what is tried on it.

    Attributes:
        preset: Name in `presets/`. arms: Variant -> what it changes.
        mark: Name of the task among those of the preset, if `changes` make it another one.
        changes: Made for every arm, before its own. seeds: One run each, of every arm.
        deprived: See `Job`.
    """

    preset: str
    arms: Mapping[str, Changes]
    mark: str = ""
    changes: Changes = field(default_factory=dict)
    seeds: tuple[int, ...] = SEEDS
    deprived: int = 0

    @property
    def random(self) -> Job:
        """Random play of the task."""
        return Job(self.preset, None, self.mark, tuple(self.changes.items()))

    def jobs(self, arm: str) -> list[Job]:
        """The runs of one arm, a seed each."""
        variant = f"{self.mark}-{arm}" if self.mark else arm
        changes = (*self.changes.items(), *self.arms[arm].items())
        return [Job(self.preset, seed, variant, changes, self.deprived) for seed in self.seeds]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, where it is tried, what is expected.

    Attributes:
        name: For the command line and the page. text: The question.
        tasks: Where it is tried. expectations: Together they are the claim.
        analysis: What was found out on the way, a paragraph each, above all why a result is bad.
    """

    name: str
    text: str
    tasks: tuple[Task, ...]
    expectations: tuple[Expectation, ...]
    analysis: tuple[str, ...] = ()

    @property
    def claims(self) -> tuple[Expectation, ...]:
        """What is expected here, and of every run of every question."""
        return (*self.expectations, *EVERYWHERE)


EVERYWHERE = (
    Expectation(text="minutes of the longest run", measure=longest, at_most=MOST_MINUTES),
    Expectation(text="threads of a run", measure=most_threads, at_most=1.0),
)
