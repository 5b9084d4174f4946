"""Stage `train`: act, collect and keep training model and policy, online.

Reads data/episodes and models/world_model; writes models/agent (the best by validation and the
last) and reports/train.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dreamer import checkpoint
from dreamer.compiling import compile_pieces
from dreamer.envs.episode import EpisodeStats
from dreamer.envs.vector import VectorEnv
from dreamer.loop import Hooks, OnlineLoop
from dreamer.saved_agent import save_agent
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import CheckpointError, ConfigError
from pipeline.params import Params
from pipeline.progress import Progress, announce, log_episode, log_metrics
from pipeline.report.canvas import placard
from pipeline.report.curves import learning_curve
from pipeline.report.rates import rates_picture
from pipeline.report.tables import write_csv
from pipeline.stages.buffer import Experience, load_experience
from pipeline.stages.command import main
from pipeline.stages.session import Session


def run(params: Params, session: Session) -> None:
    """Train up to `train.env_steps` environment steps and store the agents."""
    saved = session.resume()
    folder = session.scratch.path / "replay"
    experience = load_experience(params, session.workspace.episodes, folder, saved)
    loop = make_loop(params, session, experience)
    if saved is None:
        loop.trainer.load_state_dict(load_pretrained(session.workspace.world_model))
        loop.start(experience.collected_steps)
    else:
        loop.load_state_dict(saved["loop"])
        session.tracker.rewind(loop.env_steps)
    train(params, session, loop, experience)
    loop.env.close()
    store(session, loop)


def make_loop(params: Params, session: Session, experience: Experience) -> OnlineLoop:
    """Put environments, learner and buffer together.

    Raises:
        ConfigError: If the episodes come from an environment with other spaces, or updates are to
            be compiled and no compiler is here.
    """
    env = VectorEnv(params.env, params.seed)
    if env.spec != experience.spec:
        allowed = "the environment that the episodes in data/episodes came from; run collect again"
        raise ConfigError("env.id", params.env.id, allowed)
    trainer = DreamerV3Trainer(
        env.spec,
        world_model=params.world_model,
        imagination=params.imagination,
        policy=params.policy,
        intrinsic=params.intrinsic,
        meta=params.meta,
        seed=params.seed,
        device=session.device,
    )
    if params.runtime.compile:
        compile_pieces(trainer)
    return OnlineLoop(
        trainer=trainer,
        buffer=experience.buffer,
        env=env,
        config=params.train,
        schedule=params.optimizer,
        validation=params.env,
    )


def load_pretrained(folder: Path) -> dict[str, Any]:
    """State of the world model and its optimiser.

    Raises:
        CheckpointError: If it is missing, damaged or something else.
    """
    tensors, meta = checkpoint.read(folder)
    if meta.get("kind") != "world_model":
        raise CheckpointError(f"{folder}: found {meta.get('kind')!r}, needed a world model")
    return dict(checkpoint.unflatten(tensors, meta["state"]))


def train(params: Params, session: Session, loop: OnlineLoop, experience: Experience) -> None:
    """Run to the end, telling tracker and terminal, checkpointing on the way."""
    owed = int((params.train.env_steps - loop.start_steps) * params.train.updates_per_env_step)
    announce(owed - loop.updates, None)
    started, done = time.monotonic(), loop.updates

    def state() -> dict[str, Any]:
        return {"loop": loop.state_dict(), "buffer": experience.checkpoint()}

    def on_metrics(step: int, metrics: dict[str, float]) -> None:
        rate = (loop.updates - done) / max(1e-9, time.monotonic() - started)
        metrics = metrics | loop.buffer.stats() | {"perf/updates_per_s": rate}
        # Tracking has every episode from `on_episode`; a mean of the last would mix with them.
        single = {name: x for name, x in metrics.items() if name != "episode/return"}
        session.tracker.metrics(step, single)
        log_metrics(step, metrics)

    def on_episode(step: int, episode: EpisodeStats) -> None:
        figures = {"episode/return": episode.ret, "episode/length": float(episode.length)}
        session.tracker.metrics(step, figures)
        log_episode(episode.ret, episode.length)
        progress.update(loop.env_steps, loop.updates, **{"return": episode.ret})

    def on_best() -> None:
        save(session.scratch.path / "best", loop)

    def after_step() -> None:
        progress.update(loop.env_steps, loop.updates)
        session.save_if_due(
            loop.env_steps, params.train.checkpoint_seconds, state, experience.discard
        )

    with Progress(params.train.env_steps, "steps") as progress:
        loop.run(
            Hooks(
                on_metrics=on_metrics,
                on_episode=on_episode,
                on_best=on_best,
                after_step=after_step,
            )
        )


def save(folder: Path, loop: OnlineLoop) -> None:
    """Write the agent as it is now."""
    facts = {"env_step": loop.env_steps, "update": loop.updates, "validation/return": loop.score}
    trainer = loop.trainer
    parts = (trainer.model, trainer.behavior, trainer.intrinsic)
    save_agent(folder, *parts, loop.validation, facts)


def store(session: Session, loop: OnlineLoop) -> None:
    """Write the outs: the best agent by validation, the last one, curves."""
    agent, reports = session.workspace.agent, session.workspace.reports("train")
    save(agent / "last", loop)
    best = agent / "best"
    checkpoint.write(best, *checkpoint.read(session.scratch.path / "best"))
    validations = [row for row in loop.history if "validation/return" in row]
    metrics = [row for row in loop.history if "validation/return" not in row]
    write_csv(reports / "validation.csv", validations)
    write_csv(reports / "metrics.csv", metrics)
    learning_curve(reports / "learning_curve.png", loop.history)
    draw_rates(reports / "rates.png", loop)
    session.tracker.artifact(reports, "reports")
    session.tracker.model(best, "model")


def draw_rates(path_png: Path, loop: OnlineLoop) -> None:
    """Learning rates over the updates, or a picture that says that they were fixed."""
    tuning = loop.trainer.tuning
    if tuning is None:
        placard(path_png, "the learning rates were fixed (meta.enabled: false)")
        return
    starts = {name: loop.trainer.rates[group] for group, name in tuning.names.items()}
    bounds = (tuning.meta.LOWEST, tuning.meta.HIGHEST)
    rates_picture(path_png, loop.history, starts, bounds)


if __name__ == "__main__":
    main("train", run)
