"""`dreamer evaluate` and `dreamer play`: a saved agent at work.

What is not said on the command line comes from the parameters beside the agent, so that evaluating
a finished run gives the figures of its report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.vector import VectorEnv
from dreamer.saved_agent import SavedAgent, load_agent
from dreamer.types import ConfigError, EnvSpec, check_range
from pipeline.commands.settings import PARAMS, find_params, observe_spec
from pipeline.params import EvaluateConfig, Params, from_raw, leaves, load_raw, override, subset
from pipeline.report.frames import frame_strip, write_gif
from pipeline.report.recording import record_episode
from pipeline.stages import evaluate as stage
from pipeline.stages.session import STAGES, Workspace, prepare

MAX_STEPS = 10_000  # of a recorded episode; an environment may never end
FPS = 30  # of environments that do not say


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says about playing; None where it says nothing.

    Attributes:
        episodes: How many. env: Another environment with the same spaces.
        withhold: Modalities that the agent must do without.
        seed: Of episodes and noise. policy: `sample` actions, or take the `mode`.
    """

    episodes: int | None
    env: str | None
    seed: int | None
    policy: Literal["sample", "mode"] | None
    withhold: tuple[str, ...] = ()


class Player(NamedTuple):
    """An agent in the environment it shall play, how, and on which device."""

    agent: SavedAgent
    config: EvaluateConfig
    device: torch.device


def evaluate(folder: Path, wishes: Wishes) -> Iterator[str]:
    """Play episodes and tell their figures, one a line.

    Raises:
        DreamerError: No agent is in the folder, or the environment does not suit it.
    """
    player = make_player(folder, wishes)
    figures = stage.summary(
        stage.play(player.agent, player.config, wishes.withhold), player.config.seed
    )
    yield f"{agent_folder(folder)} in {player.agent.env.id}"
    width = max(map(len, figures))
    yield from (f"{name:{width}}  {value:.10g}" for name, value in figures.items())


def play(folder: Path, wishes: Wishes, out: Path) -> Iterator[str]:
    """Record episodes as animations, and the first one as a strip of frames, too.

    Args:
        folder: With the agent. wishes: How to play; one episode unless they say more.
        out: Folder to write `episode-<number>.gif` and `frames.png` to.

    Raises:
        DreamerError: As in `evaluate`, or the environment cannot draw itself.
    """
    player = make_player(folder, wishes)
    agent, config = player.agent, player.config
    fps = frames_per_second(agent.env, config.seed)
    for number in range(wishes.episodes or 1):
        recording = record_episode(
            agent.model,
            agent.behavior.policy,
            agent.env,
            seed=config.seed + number,
            choice=config.policy,
            max_steps=MAX_STEPS,
        )
        assert recording.frames is not None, "frames_per_second has drawn one"
        path = out / f"episode-{number:03d}.gif"
        write_gif(path, recording.frames, fps)
        yield f"{path}: return {recording.ret:.6g} after {recording.length} steps"
        if number == 0:
            frame_strip(out / "frames.png", recording)
            yield f"{out / 'frames.png'}: the first of them at a glance"


def make_player(folder: Path, wishes: Wishes) -> Player:
    """Load the agent and put it into its environment, or into the one that is wished for.

    Raises:
        CheckpointError: No readable agent is there. ConfigError: The environment has other spaces.
    """
    folder = agent_folder(folder)
    params = playing_params(folder)
    device = prepare(params)
    agent = load_agent(folder, device)
    if wishes.env is not None:
        env = dataclasses.replace(agent.env, id=wishes.env)
        check_spaces(agent.model.spec, env)
        agent = agent._replace(env=env)
    return Player(agent, playing(params.evaluate, wishes), device)


def playing(config: EvaluateConfig, wishes: Wishes) -> EvaluateConfig:
    """How to play, where the wishes go before `config`."""
    if wishes.episodes is not None:
        check_range("--episodes", wishes.episodes, 1, 10**6)
        count = min(config.num_envs, wishes.episodes)
        config = dataclasses.replace(config, episodes=wishes.episodes, num_envs=count)
    if wishes.seed is not None:
        config = dataclasses.replace(config, seed=wishes.seed)
    return config if wishes.policy is None else dataclasses.replace(config, policy=wishes.policy)


def agent_folder(folder: Path) -> Path:
    """The agent meant by a folder: itself, or the best one of the workspace that it is."""
    if (folder / "models").is_dir():
        return Workspace(folder).agent / "best"
    return folder / "best" if (folder / "best").is_dir() else folder


def playing_params(agent: Path) -> Params:
    """The parameters of the project, but those that `evaluate` reads from the agent's workspace.

    The other sections do not matter here, and an older workspace may have them otherwise.
    """
    raw = load_raw(find_params())
    above = list(agent.resolve().parents)[:3]
    beside = next((path / PARAMS for path in above if (path / PARAMS).exists()), None)
    if beside is not None:
        raw = override(raw, dict(leaves(subset(load_raw(beside), STAGES["evaluate"].params))))
    return from_raw(raw)


def check_spaces(spec: EnvSpec, env: EnvConfig) -> None:
    """Refuse an environment in which an agent cannot see or act.

    Raises:
        ConfigError: It has other observations or actions than `spec`.
        EnvError: It is unknown.
    """
    found = observe_spec(env)
    if found != spec:
        allowed = f"an environment with {spec.words}, as the agent was trained for"
        raise ConfigError("--env", f"{env.id} with {found.words}", allowed)


def frames_per_second(env: EnvConfig, seed: int) -> int:
    """Draw one frame, to see that it can be done, and return the speed of the environment.

    Raises:
        EnvError: The environment cannot draw itself.
    """
    probe = VectorEnv(dataclasses.replace(env, num_envs=1), seed, render=True)
    try:
        probe.reset()
        probe.render()
    finally:
        probe.close()
    made = make_env(env)
    rate = float(made.metadata.get("render_fps") or FPS)
    made.close()
    return max(1, min(50, round(rate / env.action_repeat)))
