"""`docs/results.md` and its pictures, out of the rows in `docs/results/`.

Every figure on the page is computed from rows; what no row tells is not on it. The page is the same
bytes for the same rows, parameters and presets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.claims import (
    Claim,
    Condition,
    best_returns,
    conditions,
    endings,
    last_returns,
    verdict,
)
from benchmarks.evidence_rows import COMMAND, Job, Row, read_row
from benchmarks.markdown import distinct, number, plus_minus, table
from benchmarks.question import Question
from benchmarks.question_page import (
    HOW,
    Answer,
    answer,
    picture_name,
    question_lines,
    question_section,
)
from benchmarks.question_page import OVERVIEW as QUESTIONS_HEAD
from benchmarks.question_picture import draw_question
from benchmarks.row_notes import commit_of, notes
from pipeline.report.curves import compare_seeds
from pipeline.report.tables import write_bytes

HEAD = f"""\
# Results

What agents of this project learn, task by task, and what each of their parts is good for.
`make evidence` makes the runs that are missing, and this page is written from their rows in
`docs/results/` by `{COMMAND} --page`. All figures are computed from these
rows.
"""
MEASURED = """\
## How it was measured

- A run is the whole pipeline (collect, pretrain, train, evaluate) with the parameters of
  `params.yaml`, overlaid with those of its preset, and one seed for everything.
- *Best* is the agent of the highest validation during training, the one that the pipeline delivers;
  *last* is the agent at the end of training. Both are evaluated afterwards, on episodes whose seeds
  neither training nor validation has seen.
- *Last three validations* is their mean, a sign of whether training stays where it got.
- CI is the 95 percent bootstrap interval of the mean over the evaluation episodes of one agent.
  Behind +- is the sample standard deviation over seeds.
- *Random* is the mean return of uniformly random actions on the evaluation episodes, *idle* that of
  no force at all, where actions are continuous. A claim needs the better one of both at least.
- Environment steps count resets and the collected steps. Minutes are wall-clock time of the stage
  `train`, validations included. In brackets: how often a run was interrupted and resumed. > marks
  one of which a process was killed, so that some time is unknown.
"""


class Findings(NamedTuple):
    """Rows of one preset.

    Attributes:
        claim: What they have to show. rows: Of the finished runs, by seed.
        random: The row of the random policy, or None.
    """

    claim: Claim
    rows: list[Row]
    random: Row | None

    @property
    def baseline(self) -> float | None:
        """Mean return of a random policy, if it was measured."""
        return None if self.random is None else float(self.random["random"]["return"])

    @property
    def idle(self) -> float | None:
        """Mean return without any force, if it was measured and actions are continuous."""
        figures = self.random and self.random["idle"]
        return float(figures["return"]) if figures else None

    @property
    def untaught(self) -> float | None:
        """The better one of both."""
        known = [value for value in (self.baseline, self.idle) if value is not None]
        return max(known, default=None)


def write_page(
    claims: Sequence[Claim], questions: Sequence[Question], results: Path, page: Path
) -> None:
    """Write the page and a picture per preset and question that has rows.

    Args:
        claims: Of presets as they are. questions: About variants.
        results: Folder of rows, where pictures go. page: The Markdown file, in the folder above.
    """
    found = [find(claim, results) for claim in claims]
    for findings in found:
        if findings.rows:
            draw(findings, results / f"{findings.claim.preset}.png")
    answers = [answer(question, results) for question in questions]
    for each in answers:
        if each.rows:
            draw_question(each, results / picture_name(each.question))
    write_bytes(page, render(found, answers).encode("ascii"))


def find(claim: Claim, results: Path) -> Findings:
    """Read the rows of a claim."""
    jobs = [Job(claim.preset, None), *(Job(claim.preset, seed) for seed in claim.seeds)]
    rows = {job: row for job in jobs if (row := read_row(job, results)) is not None}
    return Findings(claim, [rows[job] for job in jobs[1:] if job in rows], rows.get(jobs[0]))


def draw(findings: Findings, path: Path) -> None:
    """Draw the validations of every seed."""
    curves = {f"seed {row['seed']}": row["validation"] for row in findings.rows}
    compare_seeds(path, curves, f"{findings.claim.preset}: validation", findings.baseline)


def render(found: Sequence[Findings], answers: Sequence[Answer] = ()) -> str:
    """Return the text of the page."""
    parts = [HEAD, table(OVERVIEW, [overview(findings) for findings in found])]
    if answers:
        parts.append(table(QUESTIONS_HEAD, question_lines(answers)))
    rows = [row for findings in found for row in findings.rows]
    rows += [row for each in answers for row in each.rows.values()]
    parts += [MEASURED + "\n".join(circumstances(rows)) + "\n", table(SETTINGS, settings(found))]
    parts += ["\n".join(section(findings)) for findings in found]
    parts += [HOW] if answers else []
    return "\n".join([*parts, *("\n".join(question_section(each)) for each in answers)])


OVERVIEW = ("task", "runs", "best agents", "last agents", "random", "idle", "claim")
SETTINGS = ("task", "environment steps", "validation", "evaluation")
RUNS = (
    "seed", "best: mean", "CI", "min", "last: mean", "last three validations",
    "minutes", "updates", "commit",
)  # fmt: skip


def overview(findings: Findings) -> list[str]:
    """One line of the first table."""
    claim, rows = findings.claim, findings.rows
    return [
        f"[{claim.preset}](#{claim.preset})",
        f"{len(rows)} of {len(claim.seeds)}",
        plus_minus(best_returns(rows)),
        plus_minus(last_returns(rows)),
        number(findings.baseline),
        number(findings.idle),
        verdict(claim, rows, findings.untaught),
    ]


def circumstances(made: Sequence[Row]) -> Iterator[str]:
    """Say where the runs were made, as far as rows tell."""
    rows = [row["circumstances"] for row in made]
    if not rows:
        yield "- No run is finished yet."
        return
    threads = distinct(row["threads"] for row in rows)
    yield f"- Threads of a run: {threads}. Runs at a time, at most: " + (
        f"{distinct(row['side_by_side'] for row in rows)}."
    )
    devices = distinct(row["device"] for row in rows)
    yield f"- Processor: {distinct(row['cpu'] for row in rows)}. Tensors on: {devices}."
    tuned = distinct("yes" if row["malloc_tuned"] else "no" for row in rows)
    yield f"- PyTorch {distinct(row['torch'] for row in rows)}, " + (
        f"Python {distinct(row['python'] for row in rows)}; memory allocation tuned: {tuned}."
    )


def settings(found: Sequence[Findings]) -> list[list[str]]:
    """How long the runs were and what they are judged by."""
    lines = []
    for findings in found:
        said = [say_settings(row["parameters"]) for row in findings.rows]
        columns = [distinct(column) for column in zip(*said, strict=True)]
        lines.append([findings.claim.preset, *(columns or ["-", "-", "-"])])
    return lines


def say_settings(p: Mapping[str, Any]) -> tuple[str, str, str]:
    """Environment steps, validation and evaluation of one run."""
    validation = (
        f"every {p['train.eval_every']:,} steps, {p['train.eval_episodes']} episodes, "
        f"{p['train.eval_policy']} of the policy, seed {p['train.eval_seed']}"
    )
    evaluation = (
        f"{p['evaluate.episodes']} episodes, {p['evaluate.policy']} of the policy, "
        f"seed {p['evaluate.seed']}"
    )
    return f"{p['train.env_steps']:,}", validation, evaluation


def section(findings: Findings) -> Iterator[str]:
    """Tell everything about one preset."""
    claim, rows = findings.claim, findings.rows
    yield f"## {claim.preset}\n"
    yield f"Claim: {claim.text}\n"
    for condition in conditions(claim, rows, findings.untaught):
        yield f"- {say_condition(condition)}"
    finished = f"{len(rows)} of {len(claim.seeds)} runs finished"
    yield f"\nVerdict: **{verdict(claim, rows, findings.untaught)}** ({finished}).\n"
    yield from warnings(findings)
    if rows:
        yield table(RUNS, [*(run_line(row) for row in rows), all_line(rows)])
        yield from changed_parameters(rows)
        yield f"![Validation return of every seed](results/{claim.preset}.png)\n"
    names = " ".join(f"docs/results/{claim.preset}-{what}.json" for what in ("seed*", "random"))
    yield f"Repeat it:\n\n```\nrm -f {names}\n{COMMAND} --only {claim.preset}\n```\n"


def say_condition(condition: Condition) -> str:
    """Return a threshold and what was found."""
    text = f"{condition.text}, at least {condition.needed:g} needed: "
    if condition.found is None:
        return text + "not measured yet"
    return text + f"{number(condition.found)}, {'met' if condition.met else 'not met'}"


def warnings(findings: Findings) -> Iterator[str]:
    """Name rows of other parameters, older ones, and those of uncommitted code."""
    rows = [*findings.rows, *([findings.random] if findings.random else [])]
    yield from notes({Job(row["preset"], row["seed"]): row for row in rows})
    dirty = [str(row["seed"]) for row in findings.rows if row["circumstances"]["dirty"]]
    if dirty:
        yield f"Made with changes that were not committed: seed {', '.join(dirty)}.\n"


def changed_parameters(rows: Sequence[Row]) -> Iterator[str]:
    """Say what the preset changed of params.yaml, apart from the seed."""
    changes = [{k: v for k, v in row["changed"].items() if k != "seed"} for row in rows]
    said = distinct(
        ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in change.items()) or "nothing"
        for change in changes
    )
    yield f"Changed in `params.yaml`: {said}.\n"


def run_line(row: Row) -> list[str]:
    """One line of the table of runs."""
    best = row["best"]
    return [
        str(row["seed"]),
        number(best["return"]),
        f"{number(best['return_ci_low'])} to {number(best['return_ci_high'])}",
        number(best["return_min"]),
        number(row["last"]["return"]),
        number(row["last_validations"]),
        minutes(row),
        f"{row['updates']:,}",
        commit_of(row),
    ]


def minutes(row: Row) -> str:
    """How long training took, as far as it is known."""
    known = f"{'> ' if row['unmeasured'] else ''}{row['seconds']['train'] / 60:.1f}"
    return known + (f" ({row['restarts']})" if row["restarts"] else "")


def all_line(rows: Sequence[Row]) -> list[str]:
    """Last line of the table of runs: mean and spread over the seeds."""
    return [
        "all",
        plus_minus(best_returns(rows)),
        "",
        number(min(row["best"]["return_min"] for row in rows)),
        plus_minus(last_returns(rows)),
        plus_minus(endings(rows)),
        f"{sum(row['seconds']['train'] for row in rows) / 60:.1f}",
        f"{sum(row['updates'] for row in rows):,}",
        "",
    ]
