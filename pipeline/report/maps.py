"""What an agent makes of each cell of a gridworld: curiosity, empowerment, value, visits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer.nn.noise import Noise
from dreamer.saved_agent import SavedAgent
from pipeline.report.canvas import FAINT, INK, picture, placard, show_image
from pipeline.report.gridworld import World, join, open_world
from pipeline.report.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SAMPLES = 16  # latent states per cell that are averaged
WIDTH = 11.0  # inches
WALL = "#B8BBC0"
CONTRAST = 0.1  # colours cover at least this share of the largest value ...
LEAST_SPAN = 1e-3  # ... and this much
WRITTEN = 10  # columns of a grid in whose cells there is room for numbers


class Map(NamedTuple):
    """A number (cells,) for every cell of a world; `whole` says that it is a count."""

    title: str
    values: np.ndarray
    whole: bool = False


def maps_picture(path_png: Path, agent: SavedAgent, recording: Recording, *, noise: Noise) -> None:
    """Draw curiosity, empowerment, value and visits over the cells of a gridworld.

    What an agent expects of a cell is read off its latent state on arriving there by the shortest
    way, averaged over samples of that state. Seen out of the blue, as the first row of an episode,
    a cell would leave it in a state of which nothing was learned.

    Args:
        path_png: Where to; a picture that says why if there is nothing to draw.
        agent: On the device of `noise`. recording: The first episode of the seed of `noise`.
    """
    world = open_world(agent.env, noise.seed)
    if world is None:
        placard(path_png, f"no maps: {agent.env.id} is no gridworld that knows its cells")
        return
    feat = features(agent, world, noise)
    maps = module_maps(agent, feat)
    if not maps:
        placard(path_png, "no maps: neither curiosity nor empowerment scores single states")
        return
    maps += [value_map(agent, feat), visits_map(world, recording)]
    frame = None if recording.frames is None else recording.frames[0]
    count = len(maps) + (frame is not None)
    rows, columns = world.shape
    across = 3 if columns < 2 * rows else 2 if columns < 6 * rows else 1
    down = -(-count // across)
    height = down * (WIDTH / across * 0.77 * rows / columns + 0.4) + 0.3
    with picture(path_png, WIDTH, height) as figure:
        grid: Any = figure.subplots(down, across, squeeze=False).ravel()
        panels = iter(grid)
        if frame is not None:
            axes = next(panels)
            axes.set_title("the world, at the start")
            show_image(axes, frame)
        for each, axes in zip(maps, panels, strict=False):
            _draw(figure, axes, world, each)
        for axes in grid[count:]:
            axes.remove()
        figure.suptitle(_legend(world))


@torch.no_grad()
def module_maps(agent: SavedAgent, feat: Tensor) -> list[Map]:
    """A map for each intrinsic module that scores states: none for empowerment of options, which is
    a matter of whole segments.

    Args:
        feat: (SAMPLES, cells, F).
    """
    maps = []
    icm, empowerment = agent.intrinsic.icm, agent.intrinsic.empowerment
    if icm is not None:
        surprise = icm.head(feat).mean().clamp_min(0.0)
        maps.append(Map("curiosity (expected surprise)", _average(surprise)))
    if empowerment is not None:
        steps = empowerment.config.steps
        within = f"{steps} action{'s' * (steps > 1)}, nats of {empowerment.ceiling():.3g}"
        maps.append(Map(f"empowerment ({within})", _average(empowerment.value(feat))))
    return maps


@torch.no_grad()
def value_map(agent: SavedAgent, feat: Tensor) -> Map:
    """What the top level's critic expects of the task, for (SAMPLES, cells, F)."""
    top = agent.behavior.top
    task = list(top.streams.weights).index("extrinsic")
    return Map("value (discounted return)", _average(top.critic(feat).mean()[..., task]))


def visits_map(world: World, recording: Recording) -> Map:
    """Rows of the episode in each cell."""
    marks = join(recording.obs, list(world.seen))
    visits = world.inside(marks).sum(0).astype(np.float64)
    return Map(f"visits in {recording.length} steps", visits, whole=True)


@torch.no_grad()
def features(agent: SavedAgent, world: World, noise: Noise) -> Tensor:
    """(SAMPLES, cells, F): latent state on arriving at each cell on the shortest way.

    The ways form a tree; a place follows from the samples of the place before.
    """
    model, rssm = agent.model, agent.model.rssm
    # Zeros: the state before the start, whose parent is the last place, not reached so far.
    feat = torch.zeros(len(world.places), SAMPLES, model.feat_dim, device=noise.device)
    actions = torch.eye(model.spec.action.dim, device=noise.device)
    for depth in range(world.places[-1].depth + 1):
        here = [i for i, place in enumerate(world.places) if place.depth == depth]
        count = len(here) * SAMPLES
        before = feat[[world.places[i].parent for i in here]].flatten(0, 1)
        state = rssm.latent(before[:, : rssm.size.deter], before[:, rssm.size.deter :])
        taken = actions[[world.places[i].action for i in here]].repeat_interleave(SAMPLES, 0)
        obs = {
            key: torch.from_numpy(np.repeat(rows[here], SAMPLES, 0)).to(noise.device)
            for key, rows in world.seen.items()
        }
        first = torch.full((count,), depth == 0, device=noise.device)
        draws = noise.uniform("picture/cells", depth, (count, rssm.size.groups))
        feat[here] = model.feat(model.observe_step(obs, state, taken, first, draws)).unflatten(
            0, (-1, SAMPLES)
        )
    return feat[world.ends].transpose(0, 1)


def on_grid(world: World, values: np.ndarray) -> np.ndarray:
    """(cells,) -> (rows, columns) float64, NaN in walls."""
    grid = np.full(world.shape, np.nan)
    for cell, value in zip(world.cells, values, strict=True):
        grid[cell] = value
    return grid


def _average(values: Tensor) -> np.ndarray:
    """(SAMPLES, cells) -> (cells,) float64."""
    return values.double().mean(0).cpu().numpy()


def _draw(figure: Figure, axes: Axes, world: World, each: Map) -> None:
    low, high = colour_range(each.values)
    image = axes.imshow(on_grid(world, each.values), cmap="viridis", vmin=low, vmax=high)
    axes.set(title=each.title, xticks=[], yticks=[], facecolor=WALL)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)
    for row, column in world.pits:
        axes.plot(column - 0.36, row - 0.36, "x", color="white", ms=5, mew=1.2)
    largest = float(np.abs(each.values).max())
    if world.shape[1] > WRITTEN or largest < 0.01:
        return
    digits = 0 if each.whole or largest >= 100 else 1 if largest >= 10 else 2
    for (row, column), value in zip(world.cells, each.values, strict=True):
        if value or not each.whole:
            colour = INK if (value - low) / (high - low) > 0.6 else "white"
            text = axes.text(column, row, f"{value:z.{digits}f}", ha="center", va="center")
            text.set(color=colour, fontsize=6)


def colour_range(values: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value, apart enough that differences of no account look like none."""
    low, high = float(values.min()), float(values.max())
    short = max(CONTRAST * max(abs(low), abs(high)), LEAST_SPAN) - (high - low)
    return (low, high) if short <= 0 else (low - short / 2, high + short / 2)


def _legend(world: World) -> str:
    walls = len(world.cells) < world.shape[0] * world.shape[1]
    parts = ["grey: out of reach"] * walls + ["x: pit"] * bool(world.pits)
    return "What the agent expects of each cell" + (f" ({', '.join(parts)})" if parts else "")
