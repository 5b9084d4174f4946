"""What an agent makes of each cell of a gridworld: curiosity, empowerment, value, visits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.spaces import Leaf, codec_of
from dreamer.envs.tasks.pits import Pits, is_pit
from dreamer.nn.noise import Noise
from dreamer.saved_agent import SavedAgent
from pipeline.report.canvas import FAINT, INK, picture, placard, show_image
from pipeline.report.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = tuple[int, int]  # (row, column)

SAMPLES = 16  # posterior samples per cell that are averaged
WIDTH = 11.0  # inches
WALL = "#B8BBC0"
CONTRAST = 0.1  # colours cover at least this share of the largest value ...
LEAST_SPAN = 1e-3  # ... and this much
WRITTEN = 10  # columns of a grid in whose cells there is room for numbers


@runtime_checkable
class Gridworld(Protocol):
    """An environment that can say what is seen in each of its cells, in zeros and ones."""

    shape: tuple[int, int]

    def cells(self) -> list[Cell]:
        """Cells that the agent can be in."""

    def observation_at(self, cell: Cell) -> object:
        """What is seen in a cell, and nothing else that could be seen there too: whoever carries
        keys into it sees these marks and more.
        """


class World(NamedTuple):
    """A gridworld as an agent sees it.

    Attributes:
        shape: Rows and columns. cells: Those that can be reached. pits: Those to mark.
        seen: key -> (cells, *), what is seen there.
    """

    shape: tuple[int, int]
    cells: list[Cell]
    pits: list[Cell]
    seen: dict[str, np.ndarray]


class Map(NamedTuple):
    """A number (cells,) for every cell of a world; `whole` says that it is a count."""

    title: str
    values: np.ndarray
    whole: bool = False


def maps_picture(path_png: Path, agent: SavedAgent, recording: Recording, *, noise: Noise) -> None:
    """Draw curiosity, empowerment, value and visits over the cells of a gridworld.

    What an agent expects of a cell is read off its latent state after seeing the cell as the first
    row of an episode, averaged over samples of that state.

    Args:
        path_png: Where to; a picture that says why if there is nothing to draw.
        agent: On the device of `noise`. recording: An episode of it.
    """
    world = open_world(agent.env)
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


def open_world(config: EnvConfig) -> World | None:
    """Ask an environment for its cells; None if it is no gridworld.

    Raises:
        EnvError: It cannot be made.
    """
    env = make_env(config)
    bare = env.unwrapped
    try:
        if not isinstance(bare, Gridworld):
            return None
        cells = bare.cells()
        leaves = codec_of(env, config.active_modalities).leaves
        pits = [cell for cell in cells if isinstance(bare, Pits) and is_pit(cell)]
        return World(bare.shape, cells, pits, _read(leaves, bare, cells))
    finally:
        env.close()


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
    """Rows of the episode in each cell.

    A row is in the cell all of whose marks it shows; it may show others too, of what is carried.
    """
    rows, cells = (
        np.concatenate([obs[key].reshape(len(obs[key]), -1) for key in world.seen], 1)
        for obs in (recording.obs, world.seen)
    )
    inside = (rows[:, None] >= cells[None]).all(-1)
    visits = inside.sum(0).astype(np.float64)
    return Map(f"visits in {recording.length} steps", visits, whole=True)


@torch.no_grad()
def features(agent: SavedAgent, world: World, noise: Noise) -> Tensor:
    """(SAMPLES, cells, F): latent state after seeing a cell first."""
    model, count = agent.model, SAMPLES * len(world.cells)
    repeated = {
        key: torch.from_numpy(np.tile(seen, (SAMPLES, *[1] * (seen.ndim - 1)))).to(noise.device)
        for key, seen in world.seen.items()
    }
    state = model.observe_step(
        repeated,
        model.rssm.initial(count),
        torch.zeros(count, model.spec.action.dim, device=noise.device),
        torch.ones(count, dtype=torch.bool, device=noise.device),
        noise.uniform("picture/cells", 0, (count, model.rssm.size.groups)),
    )
    return model.feat(state).unflatten(0, (SAMPLES, -1))


def on_grid(world: World, values: np.ndarray) -> np.ndarray:
    """(cells,) -> (rows, columns) float64, NaN in walls."""
    grid = np.full(world.shape, np.nan)
    for cell, value in zip(world.cells, values, strict=True):
        grid[cell] = value
    return grid


def _read(leaves: Sequence[Leaf], world: Gridworld, cells: Sequence[Cell]) -> dict[str, np.ndarray]:
    observations = [world.observation_at(cell) for cell in cells]
    return {leaf.key: leaf.read(observations) for leaf in leaves}


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
        axes.plot(column, row, "x", color="white", ms=16, mew=0.8, alpha=0.8)
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
