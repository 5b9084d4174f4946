"""Which runs there are, and which of them a command means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.claims import MATRIX, Claim
from benchmarks.evidence_rows import Job
from benchmarks.question import Question
from benchmarks.questions import QUESTIONS
from dreamer.types import ConfigError


def jobs_of(claims: Sequence[Claim], questions: Sequence[Question] = ()) -> list[Job]:
    """Random policies first, because they take seconds; then seed after seed of everything.

    Raises:
        ConfigError: If two questions mean different things by one name.
    """
    jobs = [Job(claim.preset, None) for claim in claims]
    jobs += [Job(claim.preset, seed) for claim in claims for seed in claim.seeds]
    for question in questions:
        jobs += question_jobs(question)
    return sorted(once(jobs), key=lambda job: -1 if job.seed is None else job.seed)


def question_jobs(question: Question, arm: str = "") -> list[Job]:
    """The runs of a question, or of one of its arms on every task that has it."""
    tasks = [task for task in question.tasks if not arm or arm in task.arms]
    return [
        job
        for task in tasks
        for jobs in ([task.random], *(task.jobs(each) for each in task.arms if arm in ("", each)))
        for job in jobs
    ]


def once(jobs: Iterable[Job]) -> list[Job]:
    """Each run once, in order of appearance."""
    found: dict[str, Job] = {}
    for job in jobs:
        known = found.setdefault(job.name, job)
        if dict(known.changes) != dict(job.changes):
            raise ConfigError(job.name, dict(job.changes), f"{dict(known.changes)}, as elsewhere")
    return list(found.values())


def select(only: str | None) -> list[Job]:
    """The runs that `--only` means.

    Args:
        only: Name of a question, `question/arm`, a preset of the matrix, or `preset-variant`.

    Raises:
        ConfigError: If it means nothing.
    """
    everything = jobs_of(MATRIX, QUESTIONS)
    if only is None:
        return everything
    name, _, arm = only.partition("/")
    for question in QUESTIONS:
        if question.name == name:
            meant = question_jobs(question, arm)
            allowed = [each for task in question.tasks for each in task.arms]
            break
    else:
        meant = [job for job in everything if job.stem == only]
        allowed = [*(question.name for question in QUESTIONS), *(job.stem for job in everything)]
    if not meant:
        raise ConfigError("--only", only, ", ".join(dict.fromkeys(allowed)))
    wanted = {job.name for job in meant}
    return [job for job in everything if job.name in wanted]
