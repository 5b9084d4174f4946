"""Sections of the page of results: one per question, out of the rows of its runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.claims import best_returns, endings, last_returns
from benchmarks.evidence_rows import COMMAND, Job, Row, overrides_of, preset_raw, read_row
from benchmarks.markdown import distinct, number, plus_minus, table, with_range
from benchmarks.measures import Expectation, Results
from benchmarks.question import Question, Task
from benchmarks.row_notes import commit_of, notes
from benchmarks.withheld_table import withheld_part

OVERVIEW = ("question", "runs", "claims met", "verdict")
VARIANTS = (
    "variant", "seeds", "best agents", "last agents", "last three validations",
    "all validations", "environment steps", "minutes", "commit",
)  # fmt: skip
RATES = ("variant", "rate", "tuned", "start", "final", "within three times", "on a bound")
HOW = """\
## How questions are answered

- A variant is a preset with the changes that are listed below each table; all else is as in
  `params.yaml` and the preset. Every variant has the same seeds.
- Figures are means over seeds, +- their sample standard deviation, in brackets the least and the
  largest. *All validations* is the mean over training, a measure of how early something is learned.
- Environment steps are those of the task: with repeated actions, agent steps times repetitions.
  Minutes are of the whole run, all four stages, for the longest seed.
- A commit with a star: tracked files had been changed when the run was made.
"""


class Answer(NamedTuple):
    """Rows of one question.

    Attributes:
        rows: Of the finished runs. random: Of random play, by stem of the task.
        wanted: How many runs there are to be, random play left out.
    """

    question: Question
    rows: Mapping[Job, Row]
    random: Mapping[str, Row]
    wanted: int

    @property
    def results(self) -> Results:
        """What measures read."""
        by_stem: dict[str, list[Row]] = {}
        for job, row in self.rows.items():
            by_stem.setdefault(job.stem, []).append(row)
        returns = {stem: float(row["random"]["return"]) for stem, row in self.random.items()}
        return Results(by_stem, returns)

    @property
    def found(self) -> list[tuple[Expectation, float | None]]:
        """Every expectation and what was measured."""
        results = self.results
        return [(each, each.measure(results)) for each in self.question.claims]

    @property
    def verdict(self) -> str:
        """`met` or `not met` once every run is finished, until then `open`."""
        if len(self.rows) < self.wanted:
            return "open"
        return "met" if all(each.met_by(found) for each, found in self.found) else "not met"

    def of(self, task: Task, arm: str) -> list[Row]:
        """Rows of one arm, in the order of the seeds."""
        return [self.rows[job] for job in task.jobs(arm) if job in self.rows]


def answer(question: Question, folder: Path) -> Answer:
    """Read the rows of a question."""
    jobs = [job for task in question.tasks for arm in task.arms for job in task.jobs(arm)]
    rows = {job: row for job in jobs if (row := read_row(job, folder)) is not None}
    randoms = [task.random for task in question.tasks]
    random = {job.stem: row for job in randoms if (row := read_row(job, folder)) is not None}
    return Answer(question, rows, random, len(jobs))


def question_lines(answers: Sequence[Answer]) -> list[list[str]]:
    """Lines of the table of questions."""
    return [
        [
            f"[{each.question.name}](#{each.question.name})",
            f"{len(each.rows)} of {each.wanted}",
            f"{sum(one.met_by(found) for one, found in each.found)} of {len(each.found)}",
            each.verdict,
        ]
        for each in answers
    ]


def picture_name(question: Question) -> str:
    """File of a question's curves."""
    return f"question-{question.name}.png"


def question_section(found: Answer) -> Iterator[str]:
    """Tell everything about one question."""
    question = found.question
    yield f"## {question.name}\n"
    yield f"{question.text}\n"
    yield from (say(*each) for each in found.found)
    yield f"\nVerdict: **{found.verdict}** ({len(found.rows)} of {found.wanted} runs finished).\n"
    yield from notes(found.rows)
    yield from (f"{paragraph}\n" for paragraph in question.analysis)
    for task in question.tasks:
        yield from task_part(found, task)
    if lines := rate_lines(found):
        yield "Where rates that tune themselves ended:\n"
        yield table(RATES, lines)
    if found.rows:
        yield f"![Validation return of every variant](results/{picture_name(question)})\n"
    yield f"Make what is missing:\n\n```\n{COMMAND} --only {question.name}\n```\n"


def say(expectation: Expectation, found: float | None) -> str:
    """A threshold and what was found."""
    words = f"- {expectation.text}, {expectation.needed} needed: "
    if found is None:
        return words + "not measured yet"
    return words + f"{number(found)}, {'met' if expectation.met_by(found) else 'not met'}"


def task_part(found: Answer, task: Task) -> Iterator[str]:
    """Variants of one task: what they returned, and what they are."""
    stem = task.random.stem
    row = found.random.get(stem)
    behind = "not measured yet" if row is None else number(row["random"]["return"])
    yield f"### {stem}, for {found.question.name}\n"
    yield f"Random play returns: {behind}.\n"
    yield table(VARIANTS, [variant_line(arm, found.of(task, arm)) for arm in task.arms])
    yield from withheld_part({arm: found.of(task, arm) for arm in task.arms})
    changes = [[arm, said(changes_of(found, task, arm))] for arm in task.arms]
    yield table(("variant", "changes of the preset"), changes)


def variant_line(arm: str, rows: Sequence[Row]) -> list[str]:
    """One line of the table of variants."""
    if not rows:
        return [arm, "none", *["-"] * (len(VARIANTS) - 2)]
    whole = [sum(ret for _, ret in row["validation"]) / len(row["validation"]) for row in rows]
    return [
        arm,
        distinct(row["seed"] for row in rows),
        with_range(best_returns(rows)),
        with_range(last_returns(rows)),
        with_range(endings(rows)),
        plus_minus(whole),
        distinct(f"{row['env_steps'] * repeat(row):,}" for row in rows),
        f"{max(sum(row['seconds'].values()) for row in rows) / 60:.1f}",
        distinct(commit_of(row) for row in rows),
    ]


def repeat(row: Row) -> int:
    """Environment steps of an agent's step."""
    return int(row["parameters"]["env.action_repeat"])


def changes_of(found: Answer, task: Task, arm: str) -> list[Mapping[str, Any]]:
    """What rows say that was changed; without rows, what the table of questions says."""
    if rows := found.of(task, arm):
        return [row["overrides"] for row in rows]
    job = task.jobs(arm)[0]
    return [overrides_of(job, preset_raw(job))]


def said(changes: Sequence[Mapping[str, Any]]) -> str:
    """Changed parameters, each set once."""
    return distinct(
        ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in change.items()) or "nothing"
        for change in changes
    )


def rate_lines(found: Answer) -> list[list[str]]:
    """One line per variant and rate, over the seeds."""
    return [
        [job.stem, name, *rate_cells([row["rates"][name] for row in rows])]
        for task in found.question.tasks
        for arm in task.arms
        for job, rows in [(task.jobs(arm)[0], found.of(task, arm))]
        for name in dict.fromkeys(name for row in rows for name in row.get("rates", {}))
    ]


def rate_cells(rates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Figures of one rate."""
    finals = [rate["final"] for rate in rates]
    return [
        distinct(f"{rate['tuned']:.2g}" for rate in rates),
        distinct(f"{rate['start']:.2g}" for rate in rates),
        f"{min(finals):.2g} .. {max(finals):.2g}",
        f"{sum(rate['near'] for rate in rates)} of {len(rates)}",
        f"{sum(rate['on_bound'] for rate in rates)} of {len(rates)}",
    ]
