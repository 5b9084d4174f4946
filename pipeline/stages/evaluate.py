"""Stage `evaluate`: episodes with seeds used nowhere else, figures and pictures.

Reads models/agent; writes reports/evaluate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from dreamer.envs.episode import EpisodeStats
from dreamer.evaluation import play_episodes
from dreamer.nn.noise import Noise
from dreamer.saved_agent import SavedAgent, load_agent
from pipeline.params import EvaluateConfig, Params
from pipeline.report.frames import frame_strip
from pipeline.report.goals import goals_picture
from pipeline.report.listening import attention_picture
from pipeline.report.maps import maps_picture
from pipeline.report.pictures import imagined_against_real
from pipeline.report.pursuit import GoalLog
from pipeline.report.recording import record_episode
from pipeline.report.tables import summarise, write_csv, write_json
from pipeline.stages.command import main
from pipeline.stages.session import Session

PICTURE_STEPS = 500


def run(params: Params, session: Session) -> None:
    """Evaluate the best and the last agent; the best one is the one delivered."""
    reports = session.workspace.reports("evaluate")
    best = load_agent(session.workspace.agent / "best", session.device)
    last = load_agent(session.workspace.agent / "last", session.device)
    config = params.evaluate
    episodes, last_episodes = play(best, config), play(last, config)
    metrics = summary(episodes, config.seed)
    ending = summary(last_episodes, config.seed)
    metrics |= {f"last/{name}": value for name, value in ending.items()}
    write_json(reports / "metrics.json", metrics)
    write_csv(reports / "episodes.csv", [row_of(e) for e in episodes])
    pictures(best, config, reports, session.device)
    step = int(best.facts["env_step"])
    session.tracker.metrics(step, metrics)
    session.tracker.artifact(reports, "reports")
    session.summary.metrics(step, metrics)
    session.summary.artifact(reports, "reports")
    session.summary.model(session.workspace.agent / "best", "model")


def play(
    agent: SavedAgent, config: EvaluateConfig, withheld: Collection[str] = ()
) -> list[EpisodeStats]:
    """Play `evaluate.episodes` episodes, `evaluate.num_envs` side by side.

    Raises:
        ConfigError: The agent has not all the modalities that are withheld.
    """
    env = dataclasses.replace(agent.env, num_envs=config.num_envs)
    return play_episodes(
        agent.model,
        agent.behavior.policy,
        env,
        episodes=config.episodes,
        seed=config.seed,
        choice=config.policy,
        withheld=withheld,
    )


def summary(episodes: list[EpisodeStats], seed: int) -> dict[str, float]:
    """Figures of a set of episodes, and the means of the scores that the environment gives them."""
    figures = summarise([e.ret for e in episodes], [e.length for e in episodes], seed)
    names = sorted({name for e in episodes for name in e.scores})
    return figures | {
        f"episode/{name}": float(np.mean([e.scores[name] for e in episodes if name in e.scores]))
        for name in names
    }


def row_of(episode: EpisodeStats) -> dict[str, float]:
    """One line of the per-episode table."""
    return {
        "env": episode.env,
        "episode": episode.episode,
        "episode/return": episode.ret,
        "episode/length": episode.length,
        **{f"episode/{name}": score for name, score in episode.scores.items()},
    }


def pictures(
    agent: SavedAgent, config: EvaluateConfig, reports: Path, device: torch.device
) -> None:
    """Imagined against real observations, goals, maps, and frames where the environment can draw
    itself; what does not apply to the agent is a picture that says so.
    """
    behavior, noise = agent.behavior.config, Noise(config.seed, device)
    goal_log = GoalLog(behavior.goal_groups)
    recording = record_episode(
        agent.model,
        agent.behavior.policy,
        agent.env,
        seed=config.seed,
        choice=config.policy,
        max_steps=PICTURE_STEPS,
        watch=goal_log,
    )
    pursuit = goal_log.pursuit(behavior.goal_every)
    goals_picture(reports / "goals.png", agent.model, recording, pursuit)
    maps_picture(reports / "maps.png", agent, recording, noise=noise)
    attention_picture(reports / "attention.png", agent.model, recording)
    imagined_against_real(reports / "imagined.png", agent.model, recording, noise=noise)
    if recording.frames is not None:
        frame_strip(reports / "frames.png", recording)


if __name__ == "__main__":
    main("evaluate", run)
