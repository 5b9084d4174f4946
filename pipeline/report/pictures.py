"""What a recorded episode looks like: as frames, and against the imagination of the model."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from dreamer.nn.noise import Noise
from dreamer.types import DataError, EnvSpec, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.canvas import BLUE, FAINT, INK, ORANGE, picture, show_image
from pipeline.report.recording import Recording
from pipeline.report.tables import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SAMPLES = 8  # imagined futures
PANELS = 11  # entries of vectors; the reward is the twelfth
MOMENTS, IMAGE_SIDE = 10, 1.3
FRAMES, FRAMES_ACROSS = 12, 6
REWARD = "reward"


class Dream(NamedTuple):
    """A window of an episode, and what the model made of it.

    Attributes:
        truth: key -> (W, *), the recorded observations, and `reward` (W,).
        imagined: key -> (SAMPLES, W, *): decoded from the posterior in the first `context` rows,
            which the model saw, and from the open-loop prior in the others.
        context: Rows seen.
    """

    truth: dict[str, np.ndarray]
    imagined: dict[str, np.ndarray]
    context: int


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

    The model sees the first `context` observations and then only the recorded actions. Images are
    shown at ten moments with their absolute difference, up to eleven entries of the vectors
    (those that vary most) and the reward as curves of several sampled futures and their mean.

    Args:
        path_png: Where to. model: On the device of `noise`. recording: Of its environment.
        context, horizon: Rows seen and rows imagined; both shrink with a short episode.

    Raises:
        DataError: The recording has fewer than two rows.
    """
    window = dream(model, recording, noise, context, horizon)
    images = [key for key, spec in recording.spec.obs.items() if spec.kind == "image"]
    panels, dropped = choose_panels(recording.spec, window.truth)
    heights = [_image_height(window, key) for key in images] + [
        0.9 + 1.75 * -(-len(panels) // _across(panels))
    ]
    with picture(path_png, 11.0, sum(heights)) as figure:
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        for part, key in zip(parts, images, strict=False):
            _image_rows(part, key, window)
        _curves(parts[-1], window, recording.spec.obs, panels, dropped)


@torch.no_grad()
def dream(
    model: MultimodalWorldModel, recording: Recording, noise: Noise, context: int, horizon: int
) -> Dream:
    """Filter the first rows of a recording, then imagine the others from its actions alone.

    Args: See `imagined_against_real`.
    """
    if len(recording) < 2:
        raise DataError(f"recording: found {len(recording)} rows; allowed: at least 2")
    steps = min(len(recording), context + horizon)
    context = min(context, steps // 2)
    feat = _features(model, recording, noise, context, steps)
    imagined = model.decode(feat) | {REWARD: model.reward(feat).mean()}
    keys = recording.spec.obs
    truth = {key: recording.obs[key][:steps] for key in keys} | {REWARD: recording.reward[:steps]}
    host = {key: imagined[key].transpose(0, 1).cpu().numpy() for key in truth}
    return Dream(truth, host, context)


def _features(
    model: MultimodalWorldModel, recording: Recording, noise: Noise, context: int, steps: int
) -> torch.Tensor:
    """-> (steps, SAMPLES, F)."""
    rssm, device = model.rssm, noise.device
    obs = {key: torch.from_numpy(recording.obs[key][:context]).to(device) for key in model.spec.obs}
    # Row t of `taken` is the action that led to row t of the recording.
    taken = torch.from_numpy(recording.action[: steps - 1]).to(device)
    taken = torch.cat([torch.zeros_like(taken[:1]), taken])[:, None].expand(-1, SAMPLES, -1)
    is_first = torch.from_numpy(recording.is_first[:context]).to(device)
    groups = rssm.size.groups
    seen = rssm.observe(
        model.encode(obs)[:, None].expand(-1, SAMPLES, -1),
        taken[:context],
        is_first[:, None].expand(-1, SAMPLES),
        rssm.initial(SAMPLES),
        noise.uniform("picture/seen", 0, (context, SAMPLES, groups)),
    )
    feats = list(torch.cat([seen.deter, seen.stoch], -1))
    deter, stoch = seen.deter[-1], seen.stoch[-1]
    draws = noise.uniform("picture/imagined", 0, (steps - context, SAMPLES, groups))
    for action, draw in zip(taken[context:], draws, strict=True):
        deter, stoch = rssm.imagine_step(deter, stoch, action, draw)
        feats.append(torch.cat([deter, stoch], -1))
    return torch.stack(feats)


def choose_panels(spec: EnvSpec, truth: dict[str, np.ndarray]) -> tuple[list[tuple[str, int]], int]:
    """Pick (key, flat index) of what to draw as curves; also return how many were left out.

    More than eleven entries are thinned out to those whose symlog varies most in `truth`.
    """
    entries = [
        (key, index)
        for key, one in spec.obs.items()
        if one.kind != "image"
        for index in range(math.prod(one.shape))
    ]
    spread = [float(_symlog(_entry(truth[key], i)).std()) for key, i in entries]
    ranked = sorted(range(len(entries)), key=lambda n: -spread[n])[:PANELS]
    return [*(entries[n] for n in sorted(ranked)), (REWARD, 0)], len(entries) - len(ranked)


def frame_strip(path_png: Path, recording: Recording) -> None:
    """Draw about twelve frames of an episode, evenly spread, the first and the last among them.

    Raises:
        DataError: The recording has no frames.
    """
    if recording.frames is None:
        raise DataError("frames: found a recording without; allowed: of an environment that draws")
    moments = spread_out(0, len(recording) - 1, FRAMES)
    across = min(FRAMES_ACROSS, len(moments))
    down = -(-len(moments) // across)
    height, width = recording.frames.shape[1:3]
    side = 11.0 / across
    with picture(path_png, 11.0, 0.6 + down * (side * height / width + 0.2)) as figure:
        grid = figure.subplots(down, across, squeeze=False).ravel()
        ended = "" if recording.is_last[-1] else ", still going on"
        figure.suptitle(f"Return {recording.ret:,.6g} after {recording.length} steps{ended}")
        for axes, moment in zip(grid, moments, strict=False):
            axes.set_title(f"step {moment}", color=INK, fontsize="small")
            show_image(axes, recording.frames[moment])
        for axes in grid[len(moments) :]:
            axes.remove()


def write_gif(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write frames (T, height, width, 3) uint8 as an endless animation.

    Args:
        fps: Frames per second, 1 to 50; GIF counts in hundredths of a second.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    images[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=10 * round(100 / fps),
        loop=0,
    )
    write_bytes(path, content.getvalue())


def spread_out(first: int, last: int, count: int) -> list[int]:
    """At most `count` different integers from `first` to `last`, both among them."""
    return sorted({round(x) for x in np.linspace(first, last, min(count, last - first + 1))})


def _curves(
    figure: SubFigure,
    window: Dream,
    specs: Mapping[str, ObsSpec],
    panels: Sequence[tuple[str, int]],
    dropped: int,
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
    categories = {key for key, spec in specs.items() if spec.kind == "categorical"}
    for axes, (key, index) in zip(flat, panels, strict=False):
        name = key if window.truth[key][0].size == 1 else f"{key}[{index}]"
        truth, imagined = _entry(window.truth[key], index), _entries(window.imagined[key], index)
        _curve(axes, truth, imagined, categorical=key in categories)
        axes.set_title(name)
        axes.axvline(window.context - 0.5, color=FAINT, lw=1, ls=":")
    for axes in flat[len(panels) :]:
        axes.remove()
    for axes in flat[: len(panels)][-across:]:
        axes.xaxis.set_tick_params(labelbottom=True)
        axes.set_xlabel("steps")
    handles, labels = flat[len(panels) - 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3)


def _image_height(window: Dream, key: str) -> float:
    height, width = window.truth[key].shape[1:3]
    side = min(IMAGE_SIDE, 11.0 / len(_moments(window)))
    return 1.0 + 3 * side * height / width


def _moments(window: Dream) -> list[int]:
    return spread_out(window.context - 1, len(window.truth[REWARD]) - 1, MOMENTS)


def _across(panels: Sequence[object]) -> int:
    return len(panels) if len(panels) <= 5 else 4


def _curve(axes: Axes, truth: np.ndarray, imagined: np.ndarray, *, categorical: bool) -> None:
    style = "steps-mid" if categorical else "default"
    for i, future in enumerate(imagined):
        label = f"{len(imagined)} sampled futures" if i == 0 else None
        axes.plot(future, color=ORANGE, lw=0.7, alpha=0.55, label=label, drawstyle=style)
    if not categorical:  # classes have no mean
        axes.plot(imagined.mean(0), color=ORANGE, lw=2, label="their mean")
    axes.plot(truth, color=BLUE, lw=1.6, label="truth", drawstyle=style)
    axes.margins(x=0.02)


def _image_rows(figure: SubFigure, key: str, window: Dream) -> None:
    truth, imagined = window.truth[key], window.imagined[key][0]
    error = np.abs(truth.astype(np.float32) - imagined.astype(np.float32)).mean(-1) / 255
    moments = _moments(window)
    grid: Any = figure.subplots(3, len(moments), squeeze=False)
    figure.suptitle(f"{key}: one sampled future, and its mean absolute difference")
    for column, moment in enumerate(moments):
        ahead = moment - window.context + 1
        grid[0, column].set_title(f"+{ahead}" if ahead else "seen", fontsize="small")
        show_image(grid[0, column], truth[moment])
        show_image(grid[1, column], imagined[moment])
        show_image(grid[2, column], error[moment], cmap="magma", vmin=0.0, vmax=0.5)
        grid[2, column].set_xlabel(f"{100 * error[moment].mean():.1f} %", fontsize="small")
    for axes, name in zip(grid[:, 0], ("truth", "imagined", "difference"), strict=True):
        axes.set_ylabel(name)


def _entry(values: np.ndarray, index: int) -> np.ndarray:
    """(W, *) -> (W,) as float64."""
    return values.reshape(len(values), -1)[:, index].astype(np.float64)


def _entries(values: np.ndarray, index: int) -> np.ndarray:
    """(S, W, *) -> (S, W)."""
    return values.reshape(*values.shape[:2], -1)[..., index].astype(np.float64)


def _symlog(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.log1p(np.abs(values))
