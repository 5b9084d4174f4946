"""Options of the tasks: one wording for whatever is not allowed."""

from __future__ import annotations

from collections.abc import Iterable

from dreamer.types import EnvError


def check_whole(task: str, name: str, value: object, low: int, high: int) -> None:
    """Raise `EnvError` unless `value` is an int (not a bool) with `low <= value <= high`."""
    if type(value) is not int or not low <= value <= high:
        raise _refused(task, name, value, f"a whole number, {low} to {high}")


def check_share(task: str, name: str, value: object, high: float) -> None:
    """Raise `EnvError` unless `value` is a number with `0 <= value <= high`."""
    if type(value) not in (int, float) or not 0 <= value <= high:  # type: ignore[operator]
        raise _refused(task, name, value, f"a number, 0 to {high:g}")


def check_choice(task: str, name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise `EnvError` unless `value` is one of `allowed`, of the same type too."""
    allowed = tuple(allowed)
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise _refused(task, name, value, ", ".join(str(choice) for choice in allowed))


def _refused(task: str, name: str, value: object, allowed: str) -> EnvError:
    return EnvError(f"{task}: option {name}: found {value!r}; allowed: {allowed}")
