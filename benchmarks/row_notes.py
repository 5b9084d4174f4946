"""What a page has to say about rows that today's parameters, or committed code, would not make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.evidence_rows import Job, Row, differences, newer, parameters_of, raw_of


def notes(rows: Mapping[Job, Row]) -> Iterator[str]:
    """Name rows of other parameters, and those that are older than some parameters."""
    older: dict[tuple[str, str], list[str]] = {}
    for job, row in rows.items():
        now = parameters_of(job, raw_of(job))
        if changes := differences(row["parameters"], now):
            yield f"Stale: {job.name} was made with other parameters ({'; '.join(changes)}).\n"
        if later := newer(row["parameters"], now):
            commit = row["circumstances"]["commit"][:10] or "unknown"
            key = commit, shortened(later, row["parameters"])
            older.setdefault(key, []).append(job.name)
    for (commit, new), names in older.items():
        yield (
            f"Earlier: {', '.join(names)} are of commit {commit}, when there was no {new} yet; "
            "they are figures of the agent as it was then.\n"
        )


def shortened(keys: Sequence[str], known: Iterable[str]) -> str:
    """New parameters in short: of a section that is new as a whole, the section alone."""
    old = {prefix for key in known for prefix in prefixes(key)}
    first = {next(p for p in prefixes(key) if p not in old): key for key in keys}
    return ", ".join(f"`{p}`" if p == key else f"`{p}.*`" for p, key in first.items())


def prefixes(key: str) -> list[str]:
    """`a.b.c` -> a, a.b, a.b.c."""
    parts = key.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def commit_of(row: Row) -> str:
    """Short commit; a star says that tracked files were changed."""
    here = row["circumstances"]
    return f"{here['commit'][:10] or 'unknown'}{'*' if here['dirty'] else ''}"
