"""Draw what the manager asked for in a recorded episode: decoded goals, and which one when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer.types import ObsSpec
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.canvas import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    class_colours,
    picture,
    placard,
    show_image,
)
from pipeline.report.dream import spread_out
from pipeline.report.pursuit import Pursuit, decode_goals
from pipeline.report.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WIDTH = 11.0  # inches
COLUMNS, SIDE = 8, 1.3  # goals shown as images, and how large at most
CURVES = 6  # entries drawn as curves; keys with more entries than that become heat maps
BANDS = 24  # entries of a heat map
LEGEND = 8
NUMBERED = 30  # goals whose codes are written out
RULED = 120  # goals between which there is a line


def goals_picture(
    path_png: Path, model: MultimodalWorldModel, recording: Recording, pursuit: Pursuit | None
) -> None:
    """Draw which goal the manager picked when, how near the worker came, and what goals look like.

    Images stand in columns: what was there when a goal was chosen, the goal, and what was there
    when it was given up. Of the vectors the entries that vary most are drawn along the episode,
    each goal over the steps on which it was pursued.

    Args:
        path_png: Where to. model: That recorded. recording: The episode. pursuit: From a `GoalLog`
            that watched; None writes a picture that says so.
    """
    if pursuit is None:
        placard(path_png, "no goals: this agent acts without a hierarchy (policy.hierarchy: false)")
        return
    decoded = decode_goals(model, pursuit.goal)
    specs = recording.spec.obs
    images = [key for key, spec in specs.items() if spec.kind == "image"]
    tracks = choose_tracks(specs, recording.obs, decoded)
    heights = [_strip_height(specs[key]) for key in images] + [_panel_height(tracks, pursuit)]
    with picture(path_png, WIDTH, sum(heights)) as figure:
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        for part, key in zip(parts, images, strict=False):
            _strip(part, key, recording.obs[key], decoded[key], pursuit)
        _timeline(parts[-1], recording, decoded, tracks, pursuit)


class Track(NamedTuple):
    """Entries of one key that share a panel, as flat indices; `total` is how many it has."""

    key: str
    entries: tuple[int, ...]
    total: int

    @property
    def wide(self) -> bool:
        """Drawn as a heat map instead of a curve."""
        return self.total > CURVES

    @property
    def name(self) -> str:
        """For a title."""
        if self.wide:
            most = f"the {len(self.entries)} of its {self.total} entries that vary most"
            return f"{self.key} ({most if len(self.entries) < self.total else 'all entries'})"
        return self.key if self.total == 1 else f"{self.key}[{self.entries[0]}]"


def choose_tracks(
    specs: dict[str, ObsSpec], seen: Mapping[str, np.ndarray], goal: Mapping[str, np.ndarray]
) -> list[Track]:
    """Pick what to draw of vectors: a heat map per long key, and up to six curves of the others.

    Args:
        specs: By key. seen: key -> (T, *). goal: key -> (G, *).
    """
    tracks: list[Track] = []
    narrow: list[tuple[float, int, str, int, int]] = []
    for key, spec in specs.items():
        if spec.kind in ("image", "text", "audio") or key not in goal:
            continue
        total = math.prod(spec.shape)
        spread = _symlog(np.concatenate([_flat(seen[key]), _flat(goal[key])])).std(0)
        if total > CURVES:
            most = np.sort(np.argsort(-spread, kind="stable")[:BANDS])
            tracks.append(Track(key, tuple(int(i) for i in most), total))
        else:
            narrow += [(-float(x), len(narrow) + i, key, i, total) for i, x in enumerate(spread)]
    chosen = sorted(sorted(narrow)[:CURVES], key=lambda entry: entry[1])
    return [*(Track(key, (i,), total) for _, _, key, i, total in chosen), *tracks]


def _strip_height(spec: ObsSpec) -> float:
    return 1.0 + 3 * SIDE * spec.shape[0] / spec.shape[1]


def _strip(
    figure: SubFigure, key: str, seen: np.ndarray, decoded: np.ndarray, pursuit: Pursuit
) -> None:
    """Three rows of images."""
    chosen = spread_out(0, len(pursuit.start) - 1, COLUMNS)
    grid: Any = figure.subplots(3, len(chosen), squeeze=False)
    figure.suptitle(f"{key}: what the manager wanted to see, between what was there and what came")
    for column, g in enumerate(chosen):
        first, last = int(pursuit.start[g]), int(pursuit.ends[g])
        grid[0, column].set_title(f"step {first}", fontsize="small")
        show_image(grid[0, column], seen[first])
        show_image(grid[1, column], decoded[g])
        for spine in grid[1, column].spines.values():
            spine.set(color=ORANGE, lw=2)
        show_image(grid[2, column], seen[last])
        grid[2, column].set_xlabel(
            f"step {last}\nlikeness {pursuit.likeness[last - 1]:z.2f}", fontsize="small"
        )
    names = ("goal chosen", "the goal", "goal given up")
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(name)


def _code_height(pursuit: Pursuit) -> float:
    return min(2.4, max(0.7, 0.18 * pursuit.code.shape[1]))


def _ratios(tracks: Sequence[Track], pursuit: Pursuit) -> list[float]:
    """Heights of the panels in inches."""
    ratios = [_code_height(pursuit), 0.8]
    for track in tracks:
        ratios += 2 * [max(0.4, 0.07 * len(track.entries))] if track.wide else [0.75]
    return ratios


def _panel_height(tracks: Sequence[Track], pursuit: Pursuit) -> float:
    ratios = _ratios(tracks, pursuit)
    return 1.1 + sum(ratios) + 0.3 * len(ratios)


def _timeline(
    figure: SubFigure,
    recording: Recording,
    decoded: dict[str, np.ndarray],
    tracks: Sequence[Track],
    pursuit: Pursuit,
) -> None:
    """Panels on one axis of time: codes, likeness, then vectors."""
    ratios = _ratios(tracks, pursuit)
    grid: Any = figure.subplots(len(ratios), 1, height_ratios=ratios, sharex=True)
    different = len(np.unique(pursuit.code, axis=0))
    figure.suptitle(
        f"{len(pursuit.start)} goals over {pursuit.steps} steps, {different} different ones"
    )
    panels = list(grid)
    _codes(panels.pop(0), pursuit)
    _likeness(panels.pop(0), pursuit)
    for track in tracks:
        seen = _flat(recording.obs[track.key][: pursuit.steps + 1])[:, track.entries]
        goal = _flat(decoded[track.key])[:, track.entries]
        if track.wide:
            _bands(panels.pop(0), panels.pop(0), track, seen, goal, pursuit)
        else:
            _levels(panels.pop(0), track, seen[:, 0], goal[:, 0], pursuit)
    grid[-1].set_xlabel("steps")
    grid[-1].set_xlim(0, pursuit.steps)
    for axes in grid:
        axes.title.set(fontsize="small", color=INK)
    keys = _keys(tracks, pursuit)
    style = {"handlelength": 1.2, "columnspacing": 1.2}
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), **style)


def _codes(axes: Axes, pursuit: Pursuit) -> None:
    """Which goal when: a row per choice, its colour the class."""
    from matplotlib.colors import ListedColormap

    groups, classes = pursuit.code.shape[1], pursuit.classes
    edges = np.append(pursuit.start, pursuit.steps)
    colours = ListedColormap(class_colours(classes))
    axes.pcolormesh(
        edges, np.arange(groups + 1), pursuit.code.T, cmap=colours, vmin=-0.5, vmax=classes - 0.5
    )
    if len(pursuit.start) <= RULED:
        axes.vlines(pursuit.start[1:], 0, groups, color="white", lw=1.2)
    if len(pursuit.start) <= NUMBERED:
        middles = (edges[1:] + edges[:-1]) / 2
        for (g, row), which in np.ndenumerate(pursuit.code):
            colour = _readable(colours(int(which)))
            where = middles[g], row + 0.5
            axes.text(*where, str(which), ha="center", va="center", color=colour, fontsize=6)
    axes.set(ylim=(groups, 0), yticks=[], ylabel="code")
    axes.set_title(f"goal code: {groups} choices among {classes}", loc="left")
    axes.grid(visible=False)


def _readable(rgb: Sequence[float]) -> str:
    """Black or white, on a colour."""
    return INK if 0.3 * rgb[0] + 0.6 * rgb[1] + 0.1 * rgb[2] > 0.55 else "white"


def _likeness(axes: Axes, pursuit: Pursuit) -> None:
    arrivals = np.arange(1, pursuit.steps + 1)
    axes.axhline(0.0, color=FAINT, lw=0.8)
    axes.plot(arrivals, pursuit.likeness, color=BLUE, lw=1.2)
    final = pursuit.likeness[pursuit.ends - 1]
    axes.plot(pursuit.ends, final, "o", color=ORANGE, ms=3, clip_on=False)
    axes.set(ylim=(-1.05, 1.05), yticks=(-1, 0, 1))
    axes.set_title(
        f"likeness of state and goal, 1 is the goal itself: {final.mean():z.2f} when given up, "
        f"{pursuit.likeness.mean():z.2f} on the way",
        loc="left",
    )


def _levels(axes: Axes, track: Track, seen: np.ndarray, goal: np.ndarray, pursuit: Pursuit) -> None:
    axes.plot(seen, color=BLUE, lw=1.4)
    axes.hlines(goal, pursuit.start, pursuit.ends, color=ORANGE, lw=1.8, capstyle="butt")
    axes.margins(y=0.15)
    axes.set_title(track.name, loc="left")


def _bands(
    above: Axes,
    below: Axes,
    track: Track,
    seen: np.ndarray,
    goal: np.ndarray,
    pursuit: Pursuit,
) -> None:
    """Heat maps of what was seen and of the goals, both by the range of what was seen."""
    low, high = _symlog(seen).min(0), _symlog(seen).max(0)
    rows = np.arange(len(track.entries) + 1)
    style: dict[str, Any] = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0, "rasterized": True}
    width = np.where(high > low, high - low, 1.0)
    seen, goal = (_symlog(seen) - low) / width, (_symlog(goal) - low) / width
    above.pcolormesh(np.arange(len(seen)), rows, seen[:-1].T, **style)
    below.pcolormesh(np.append(pursuit.start, pursuit.steps), rows, goal.T, **style)
    above.set_title(f"{track.name}: what was there", loc="left")
    below.set_title(f"{track.key}: the goals", loc="left")
    ticks = [0.5, len(rows) - 1.5]
    labels = [str(track.entries[0]), str(track.entries[-1])]
    for axes in (above, below):
        axes.set(ylim=(len(rows) - 1, 0))
        axes.set_yticks(ticks, labels)
        axes.grid(visible=False)


def _keys(tracks: Sequence[Track], pursuit: Pursuit) -> list[Any]:
    """Handles of the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colours = class_colours(pursuit.classes)
    shown = spread_out(0, pursuit.classes - 1, LEGEND)
    keys: list[Any] = [
        Patch(color=colours[i], label=f"class {i}" if i == 0 else f"{i}") for i in shown
    ]
    if any(not track.wide for track in tracks):
        keys.append(Line2D([], [], color=BLUE, lw=1.4, label="what was there"))
        keys.append(Line2D([], [], color=ORANGE, lw=1.8, label="the goal"))
    keys.append(Line2D([], [], color=ORANGE, marker="o", ms=3, ls="", label="goal given up"))
    return keys


def _flat(values: np.ndarray) -> np.ndarray:
    """(n, *) -> (n, entries) float64."""
    return values.reshape(len(values), -1).astype(np.float64)


def _symlog(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))
