"""Stage `pretrain`: the world model alone, on the collected episodes.

Reads data/episodes; writes models/world_model (weights and optimiser state) and reports/pretrain.
"""

from __future__ import annotations

from typing import Any

from dreamer import checkpoint
from dreamer.pretraining import Pretraining
from dreamer.trainer import DreamerV3Trainer
from pipeline.params import Params
from pipeline.progress import Progress, log_metrics
from pipeline.report.curves import losses_picture
from pipeline.report.tables import write_csv
from pipeline.stages.buffer import Experience, load_experience
from pipeline.stages.command import main
from pipeline.stages.session import Session

CHECKPOINT_SECONDS = 60.0
LOGGED_ROWS = 20


def run(params: Params, session: Session) -> None:
    """Train for `pretrain.updates` and store the model."""
    saved = session.resume()
    folder = session.scratch.path / "replay"
    experience = load_experience(params, session.workspace.episodes, folder, saved)
    trainer = DreamerV3Trainer(
        experience.spec, world_model=params.world_model, seed=params.seed, device=session.device
    )
    training = Pretraining(
        trainer=trainer,
        buffer=experience.buffer,
        config=params.pretrain,
        schedule=params.optimizer,
    )
    if saved is not None:
        training.load_state_dict(saved["training"])
        session.tracker.rewind(training.updates)
    train(params, session, training, experience)
    store(session, training)


def train(params: Params, session: Session, training: Pretraining, experience: Experience) -> None:
    """Run to the end, telling tracker and terminal, checkpointing on the way."""

    def state() -> dict[str, Any]:
        return {"training": training.state_dict(), "buffer": experience.checkpoint()}

    def after_update() -> None:
        progress.update(training.updates, updates=training.updates)
        session.save_if_due(training.updates, CHECKPOINT_SECONDS, state, experience.discard)

    def on_metrics(update: int, metrics: dict[str, float]) -> None:
        session.tracker.metrics(update, metrics)
        log_metrics(update, metrics)

    log_every = max(1, params.pretrain.updates // LOGGED_ROWS)
    with Progress(params.pretrain.updates, "updates") as progress:
        training.run(log_every=log_every, on_metrics=on_metrics, after_update=after_update)


def store(session: Session, training: Pretraining) -> None:
    """Write the outs."""
    reports = session.workspace.reports("pretrain")
    write_csv(reports / "losses.csv", training.history)
    losses_picture(reports / "losses.png", training.history)
    tensors, meta = checkpoint.flatten(training.trainer.state_dict())
    checkpoint.write(session.workspace.world_model, tensors, {"kind": "world_model", "state": meta})
    session.tracker.artifact(reports, "reports")


if __name__ == "__main__":
    main("pretrain", run)
