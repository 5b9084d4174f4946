"""What questions expect of their runs, as numbers that rows decide.

A measure takes the rows of a question and returns one number, or None while a row that it needs is
missing. Runs are named by their stem: preset and variant, without the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from benchmarks.claims import best_returns, spread
from benchmarks.final_rates import METRIC, distance

Row = Mapping[str, Any]


class Results(NamedTuple):
    """Rows of a question.

    Attributes:
        rows: Stem -> rows of the finished runs. random: Stem of a task -> mean random return.
    """

    rows: Mapping[str, Sequence[Row]]
    random: Mapping[str, float]

    def best(self, stem: str) -> list[float]:
        """Mean return of the best agent of every finished run."""
        return best_returns(self.rows.get(stem, ()))

    def ends(self, stem: str, end: Literal["low", "high"]) -> list[float]:
        """Ends of the intervals of those returns, over the episodes of one agent each."""
        return [float(row["best"][f"return_ci_{end}"]) for row in self.rows.get(stem, ())]


Measure = Callable[[Results], float | None]


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One threshold.

    Attributes:
        text: In words. measure: What is compared. at_least, at_most: With what; one of the two.
    """

    text: str
    measure: Measure
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        """Refuse an expectation without a threshold."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{self.text}: needs one of at_least and at_most")

    def met_by(self, found: float | None) -> bool:
        """Whether what was found is good enough; nothing is not."""
        if found is None:
            return False
        low, high = self.at_least, self.at_most
        return (low is None or found >= low) and (high is None or found <= high)

    @property
    def needed(self) -> str:
        """The threshold in words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return f"at most {self.at_most:g}"


def mean(stem: str) -> Measure:
    """Mean over the seeds of what the best agents return."""

    def measure(results: Results) -> float | None:
        best = results.best(stem)
        return spread(best).mean if best else None

    return measure


def highest(stem: str) -> Measure:
    """Largest return of a best agent of any seed."""
    return lambda results: max(results.best(stem), default=None)


def lowest(stem: str) -> Measure:
    """Smallest return of a best agent of any seed."""
    return lambda results: min(results.best(stem), default=None)


def lead(stem: str, over: str) -> Measure:
    """Mean of one minus mean of the other."""

    def measure(results: Results) -> float | None:
        one, other = mean(stem)(results), mean(over)(results)
        return None if one is None or other is None else one - other

    return measure


def best_lead(stems: Sequence[str], over: str) -> Measure:
    """Largest lead of several, so that one good weight is enough."""

    def measure(results: Results) -> float | None:
        leads = [lead(stem, over)(results) for stem in stems]
        return max((each for each in leads if each is not None), default=None)

    return measure


def gap(stem: str, other: str) -> Measure:
    """Distance of two means, whichever is larger."""

    def measure(results: Results) -> float | None:
        difference = lead(stem, other)(results)
        return None if difference is None else abs(difference)

    return measure


def clearance(stem: str, over: str) -> Measure:
    """Least lower end of one's intervals minus largest upper end of another's."""

    def measure(results: Results) -> float | None:
        ends = [results.ends(stem, "low"), results.ends(over, "high")]
        return min(ends[0]) - max(ends[1]) if all(ends) else None

    return measure


def share(stem: str, of: str, task: str) -> Measure:
    """Share of a mean return that another gets, both counted from what random play gets.

    Args:
        stem: Whose share. of: Who has all of it. task: Stem of the task, for its random return.
    """

    def measure(results: Results) -> float | None:
        part, whole = mean(stem)(results), mean(of)(results)
        floor = results.random.get(task)
        if part is None or whole is None or floor is None or whole <= floor:
            return None
        return (part - floor) / (whole - floor)

    return measure


def farthest_rate(stem: str) -> Measure:
    """Largest factor between the final rate of the acting policy, `meta/lr`, and the tuned one."""
    return lambda results: max(
        (distance(rate) for row in results.rows.get(stem, ()) for rate in acting_rate(row)),
        default=None,
    )


def runs_on_a_bound(stem: str) -> Measure:
    """In how many runs the final rate of the acting policy, `meta/lr`, lies on a bound."""

    def measure(results: Results) -> float | None:
        rows = results.rows.get(stem, ())
        return float(sum(r["on_bound"] for row in rows for r in acting_rate(row))) if rows else None

    return measure


def acting_rate(row: Row) -> list[Mapping[str, Any]]:
    """Final `meta/lr` of a run; empty if it did not tune itself."""
    return [rate for name, rate in row.get("rates", {}).items() if name == METRIC]


def least_score(stem: str, withheld: str, names: Sequence[str]) -> Measure:
    """Smallest of several scores of the deprived agents of any seed, see `Job.deprived`."""
    return lambda results: min(scores(results, stem, withheld, names), default=None)


def mean_score(stem: str, withheld: str, name: str) -> Measure:
    """Mean over the seeds of one score of the deprived agents."""

    def measure(results: Results) -> float | None:
        found = scores(results, stem, withheld, (name,))
        return spread(found).mean if found else None

    return measure


def greatest_score(stem: str, withheld: str, name: str) -> Measure:
    """Largest score of the deprived agents of any seed."""
    return lambda results: max(scores(results, stem, withheld, (name,)), default=None)


def distance_from(value: float, stem: str, withheld: str, name: str) -> Measure:
    """Largest distance of a score of the deprived agents from what it should be."""
    return lambda results: max(
        (abs(each - value) for each in scores(results, stem, withheld, (name,))), default=None
    )


def scores(results: Results, stem: str, withheld: str, names: Sequence[str]) -> list[float]:
    """Figures of the runs of one stem, with one modality or `nothing` withheld."""
    rows = results.rows.get(stem, ())
    return [float(row["withheld"][withheld][name]) for row in rows for name in names]


def longest(results: Results) -> float | None:
    """Minutes of the longest run, all stages together."""
    runs = [row for rows in results.rows.values() for row in rows]
    return max((sum(row["seconds"].values()) / 60 for row in runs), default=None)


def most_threads(results: Results) -> float | None:
    """Threads of the run that had most."""
    runs = [row for rows in results.rows.values() for row in rows]
    return max((float(row["circumstances"]["threads"]) for row in runs), default=None)
