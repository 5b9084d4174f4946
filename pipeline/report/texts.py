"""Texts of a dream in columns: what was said, what was read, and what was imagined to be said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer.types import ObsSpec
from pipeline.report.canvas import BLUE, FAINT, INK, ORANGE, RED
from pipeline.report.dream import Dream, spread_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

STRETCHES = 10  # shown
WIDTH, MARGIN = 11.0, 0.15  # inches
STEPS, STATE = 1.6, 1.0  # inches to the first text, and to what its steps are
SIZE = 8.5  # points
GLYPH = 0.602 * SIZE  # points; every glyph of DejaVu Sans Mono is as wide
LEADING = 13.0  # points
ACROSS = int((WIDTH - STEPS - MARGIN) * 72 / 3 / GLYPH) - 2  # glyphs of a column
WRONG = {"facecolor": "#FBE7DC", "edgecolor": "none", "pad": 1.0}
NO_WORD, EMPTY, END = "_", "(nothing)", ""
UNKNOWN = "(missing)"  # not observed, so that nothing can be right or wrong

Word = tuple[str, bool]  # and whether it is right


class Placed(NamedTuple):
    """A word in a column: lines below its top, glyphs from its left."""

    line: int
    glyph: int
    word: str
    right: bool


class Stretch(NamedTuple):
    """Steps `first` to `last` on which the same was said, reconstructed and imagined."""

    first: int
    last: int
    said: tuple[str, str, str]

    def cells(self) -> list[list[Placed]]:
        """The three texts, word by word."""
        return [wrap(marked(text, self.said[0])) for text in self.said]


def read(text: np.ndarray) -> str:
    """(bytes,) UTF-8, zeros after its end -> what it says; what has no letter becomes a box."""
    said = bytes(text).rstrip(b"\0").decode(errors="replace")
    return "".join(c if c.isprintable() and ord(c) < 0x250 else "\u25a1" for c in said)


def stretches(window: Dream, key: str) -> list[Stretch]:
    """All rows of a dream, those together that say the same; none lies on both sides of the end of
    the context.
    """
    missing, found = window.missing(key), list[Stretch]()
    for t in range(window.steps):
        real = UNKNOWN if missing[t] else read(window.truth[key][t])
        said = real, read(window.reconstructed[key][t]), read(window.imagined[key][0][t])
        if found and t != window.context and found[-1].said == said:
            found[-1] = found[-1]._replace(last=t)
        else:
            found.append(Stretch(t, t, said))
    return found


def marked(said: str, real: str) -> list[Word]:
    """Words, and whether each is the word at its place of the real text; a place that was left
    empty is `_`, and the empty text `(nothing)`.
    """
    words, due = said.split(), real.split()
    if real == UNKNOWN:
        return [(word, True) for word in words or [EMPTY]]
    if not words:
        return [(EMPTY, not due)]
    pairs = zip_longest(words, due)
    return [(NO_WORD if word is None else word, word == right) for word, right in pairs]


def share_right(said: np.ndarray, real: np.ndarray) -> float:
    """Share of words, and of ends of texts, that are at their place, in (W, bytes) of both."""
    hits = [
        word == due
        for texts in zip(said, real, strict=True)
        for word, due in zip_longest(*([*read(text).split(), END] for text in texts))
    ]
    return sum(hits) / max(1, len(hits))


def wrap(words: Sequence[Word]) -> list[Placed]:
    """Where each word stands in a column; what is longer than a line is cut."""
    line, glyph, placed = 0, 0, []
    for word, right in words:
        shown = word if len(word) <= ACROSS else word[: ACROSS - 1] + "\u2026"
        if glyph and glyph + len(shown) > ACROSS:
            line, glyph = line + 1, 0
        placed.append(Placed(line, glyph, shown, right))
        glyph += len(shown) + 1
    return placed


def text_height(window: Dream, key: str, spec: ObsSpec) -> float:
    """Inches."""
    del spec
    lines = sum(depth for _, depth in _table(window, key))
    return 0.7 + lines * LEADING / 72


def text_rows(figure: SubFigure, key: str, spec: ObsSpec, window: Dream) -> None:
    """Write what was said on about ten stretches of steps, next to what the model made of it."""
    del spec
    table, total = _table(window, key), len(stretches(window, key))
    axes = figure.subplots()
    axes.set_axis_off()
    some = f"; {len(table)} of {total} stretches of steps" if len(table) < total else ""
    figure.suptitle(f"{key}: one sampled future; red: not the word that is due, _: none{some}")
    for number, title in enumerate(_titles(window, key)):
        _write(axes, _left(number), 0.0, title, INK, weight="bold")
    down = 1.4
    for stretch, depth in table:
        _row(axes, stretch, down, window.context)
        down += depth


def _table(window: Dream, key: str) -> list[tuple[Stretch, float]]:
    """Stretches to show, and the lines that each takes, with the space after it."""
    found = stretches(window, key)
    if len(found) > STRETCHES:
        found = [each for each in found if any(each.said)] or found
    shown = [found[i] for i in spread_out(0, len(found) - 1, STRETCHES)]
    return [(each, 1.4 + max(cell[-1].line for cell in each.cells())) for each in shown]


def _titles(window: Dream, key: str) -> Iterator[str]:
    """Of the three columns."""
    real, there = window.truth[key], ~window.missing(key)
    ahead = there & (np.arange(window.steps) >= window.context)
    again = share_right(window.reconstructed[key][there], real[there])
    imagined = share_right(window.imagined[key][0][ahead], real[ahead])
    yield "real"
    yield f"reconstructed ({100 * again:.0f} % of words right)"
    yield f"imagined ({100 * imagined:.0f} % of words right)"


def _row(axes: Axes, stretch: Stretch, down: float, context: int) -> None:
    """One stretch, so many lines below the top."""
    first, last = stretch.first, stretch.last
    steps = f"step {first}" if first == last else f"steps {first}-{last}"
    _write(axes, 0.0, down, steps, FAINT)
    seen = last < context
    _write(axes, STATE * 72, down, "seen" if seen else "ahead", BLUE if seen else ORANGE)
    for number, cell in enumerate(stretch.cells()):
        for each in cell:
            colour = RED if not each.right else FAINT if each.word in (EMPTY, UNKNOWN) else INK
            style = {} if each.right else {"bbox": WRONG, "weight": "bold"}
            x = _left(number) + each.glyph * GLYPH
            _write(axes, x, down + each.line, each.word, colour, **style)


def _left(column: int) -> float:
    """Points from the left edge."""
    return STEPS * 72 + column * (ACROSS + 2) * GLYPH


def _write(axes: Axes, x: float, down: float, text: str, colour: str, **style: Any) -> None:  # noqa: ANN401
    axes.annotate(
        text,
        (0.0, 1.0),
        (x, -down * LEADING),
        xycoords="axes fraction",
        textcoords="offset points",
        color=colour,
        fontsize=SIZE,
        family="DejaVu Sans Mono",
        va="top",
        parse_math=False,
        in_layout=False,
        **style,
    )
