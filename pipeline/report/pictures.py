"""A recorded episode against the imagination of the model, every sense in a way of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer.nn.noise import Noise
from dreamer.types import EnvSpec, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.canvas import BLUE, FAINT, GREEN, INK, ORANGE, picture
from pipeline.report.dream import REWARD, Dream, dream
from pipeline.report.grids import grid_height, grid_rows
from pipeline.report.recording import Recording
from pipeline.report.sounds import sound_height, sound_rows
from pipeline.report.strips import image_height, image_rows
from pipeline.report.texts import text_height, text_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

PREFACE = 0.35  # inches
PANELS = 11  # entries of vectors; the reward is the twelfth


class Rows(NamedTuple):
    """How the keys of one kind are drawn, one below the other, instead of as curves.

    Attributes:
        height: (window, key, spec) -> inches. draw: (figure, key, spec, window).
    """

    height: Callable[[Dream, str, ObsSpec], float]
    draw: Callable[[SubFigure, str, ObsSpec, Dream], None]


ROWS = {
    "image": Rows(image_height, image_rows),
    "grid": Rows(grid_height, grid_rows),
    "audio": Rows(sound_height, sound_rows),
    "text": Rows(text_height, text_rows),
}


def imagined_against_real(
    path_png: Path,
    model: MultimodalWorldModel,
    recording: Recording,
    *,
    noise: Noise,
    context: int = 5,
    horizon: int = 45,
) -> None:
    """Draw what the model expected to see next to what came.

    The model sees the first `context` observations and then only the recorded actions. Next to that
    stands what it reconstructs if it sees all of them, which tells whether a mistake is one of
    foresight. Of images and grids about ten moments are shown, of sounds the spectrum over time, of
    texts the words; up to eleven entries of the vectors (those that vary most) and the reward are
    curves of several sampled futures and their mean. Reconstructions of these are left out where
    the picture has nothing else: before the end of the context the futures are reconstructions.

    Args:
        path_png: Where to. model: On the device of `noise`. recording: Of its environment.
        context, horizon: Rows seen and rows imagined; both shrink with a short episode.

    Raises:
        DataError: The recording has fewer than two rows.
    """
    window, specs = dream(model, recording, noise, context, horizon), recording.spec.obs
    keys = [key for kind in ROWS for key, spec in specs.items() if spec.kind == kind]
    panels, dropped = choose_panels(recording.spec, window.truth)
    heights = [PREFACE] * bool(keys)
    heights += [ROWS[specs[key].kind].height(window, key, specs[key]) for key in keys]
    heights.append(0.9 + 1.75 * -(-len(panels) // _across(panels)))
    with picture(path_png, 11.0, sum(heights)) as figure:
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        if keys:
            _preface(parts[0], window)
        for part, key in zip(parts[1:], keys, strict=False):
            ROWS[specs[key].kind].draw(part, key, specs[key], window)
        _curves(parts[-1], window, specs, panels, dropped, reconstructed=bool(keys))


def _preface(figure: SubFigure, window: Dream) -> None:
    """What the words of all rows mean."""
    figure.text(
        0.5,
        0.4,
        "real: what came.  reconstructed: what the model makes of it when it sees it.  "
        f"imagined: {window.context} steps seen, {window.steps - window.context} foreseen from the "
        "actions alone.",
        ha="center",
        va="center",
        color=INK,
        fontsize="small",
    )


def choose_panels(spec: EnvSpec, truth: dict[str, np.ndarray]) -> tuple[list[tuple[str, int]], int]:
    """Pick (key, flat index) of what to draw as curves; also return how many were left out.

    More than eleven entries are thinned out to those whose symlog varies most in `truth`.
    """
    entries = [
        (key, index)
        for key, one in spec.obs.items()
        if key in truth and one.kind not in ROWS
        for index in range(math.prod(one.shape))
    ]
    spread = [float(_symlog(_entry(truth[key], i)).std()) for key, i in entries]
    ranked = sorted(range(len(entries)), key=lambda n: -spread[n])[:PANELS]
    return [*(entries[n] for n in sorted(ranked)), (REWARD, 0)], len(entries) - len(ranked)


def _curves(
    figure: SubFigure,
    window: Dream,
    specs: Mapping[str, ObsSpec],
    panels: Sequence[tuple[str, int]],
    dropped: int,
    *,
    reconstructed: bool,
) -> None:
    across = _across(panels)
    grid: Any = figure.subplots(-(-len(panels) // across), across, squeeze=False, sharex=True)
    left_out = f"; {dropped} more entries vary less" if dropped else ""
    steps = len(window.truth[REWARD])
    figure.suptitle(
        f"{window.context} steps seen, {steps - window.context} imagined from the actions alone"
        f"{left_out}"
    )
    flat = grid.ravel()
    categories = {key for key, spec in specs.items() if spec.kind in ("categorical", "grid")}
    for axes, (key, index) in zip(flat, panels, strict=False):
        name = key if window.truth[key][0].size == 1 else f"{key}[{index}]"
        truth, imagined = _entry(window.truth[key], index), _entries(window.imagined[key], index)
        truth[window.missing(key)] = np.nan  # a gap
        _curve(axes, truth, imagined, categorical=key in categories)
        if reconstructed:
            again = _entry(window.reconstructed[key], index)
            style = _style(categorical=key in categories)
            axes.plot(again, color=GREEN, lw=1.2, ls="--", label="reconstructed", drawstyle=style)
        axes.set_title(name)
        axes.axvline(window.context - 0.5, color=FAINT, lw=1, ls=":")
    for axes in flat[len(panels) :]:
        axes.remove()
    for axes in flat[: len(panels)][-across:]:
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel("steps")
    handles, labels = flat[len(panels) - 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=len(labels))


def _across(panels: Sequence[object]) -> int:
    return len(panels) if len(panels) <= 5 else 4


def _curve(axes: Axes, truth: np.ndarray, imagined: np.ndarray, *, categorical: bool) -> None:
    style = _style(categorical=categorical)
    for i, future in enumerate(imagined):
        label = f"{len(imagined)} sampled futures" if i == 0 else None
        axes.plot(future, color=ORANGE, lw=0.7, alpha=0.55, label=label, drawstyle=style)
    if not categorical:  # classes have no mean
        axes.plot(imagined.mean(0), color=ORANGE, lw=2, label="their mean")
    axes.plot(truth, color=BLUE, lw=1.6, label="truth", drawstyle=style)
    axes.margins(x=0.02)


def _style(*, categorical: bool) -> str:
    """Between two classes there is nothing."""
    return "steps-mid" if categorical else "default"


def _entry(values: np.ndarray, index: int) -> np.ndarray:
    """(W, *) -> (W,) as float64."""
    return values.reshape(len(values), -1)[:, index].astype(np.float64)


def _entries(values: np.ndarray, index: int) -> np.ndarray:
    """(S, W, *) -> (S, W)."""
    return values.reshape(*values.shape[:2], -1)[..., index].astype(np.float64)


def _symlog(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))
