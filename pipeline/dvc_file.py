"""Write `dvc.yaml` from what the stages declare and import, so that it cannot fall behind the code.

`python -m pipeline.dvc_file` rewrites it; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.closure import ROOT, import_closure
from pipeline.stages.seeds import NAME, SEEDS
from pipeline.stages.session import STAGES, Stage
from pipeline.stages.tuned import RECORD, TUNED

HEADER = """\
# The story in four stages, and a fifth that tells it again with other seeds. Written by
# `python -m pipeline.dvc_file`: code dependencies are the import closure of each stage's module and
# the lock file.
"""
PLOTS = """\
plots:
  - learning curve:
      x: env_step
      y:
        reports/train/validation.csv: validation/return
      y_label: mean return of validation episodes
  - seeds, mean and one deviation to each side:
      x: env_step
      y:
        reports/seeds/band.csv: [mean, low, high]
      y_label: mean return of validation episodes
  - world-model losses:
      x: update
      y:
        reports/pretrain/losses.csv:
          [world/recon_loss, world/kl_loss, world/reward_loss, world/cont_loss]
  - policy:
      x: env_step
      y:
        reports/train/metrics.csv: [policy/entropy, policy/approx_kl, policy/clip_fraction]
  - evaluation:
      template: simple
      x: episode/length
      y:
        reports/evaluate/episodes.csv: episode/return
  - reports/train/learning_curve.png
  - reports/train/rates.png
  - reports/seeds/curves.png
  - reports/pretrain/losses.png
  - reports/evaluate/imagined.png
  - reports/evaluate/frames.png
  - reports/evaluate/goals.png
  - reports/evaluate/maps.png
  - reports/evaluate/attention.png
metrics:
  - reports/evaluate/metrics.json
  - reports/seeds/metrics.json
artifacts:
  policy:
    path: models/agent/best
    type: model
    desc: The agent with the best validation, to be played, evaluated or served
  world-model:
    path: models/world_model
    type: model
    desc: The pretrained world model with the state of its optimiser
"""


def dvc_yaml(root: Path = ROOT) -> str:
    """Text of the file; with the stage `tuned` where `root` holds what it compares."""
    stages = STAGES | {NAME: SEEDS} | ({"tuned": TUNED} if (root / RECORD).exists() else {})
    return HEADER + "stages:\n" + "".join(_stage(n, s) for n, s in stages.items()) + PLOTS


def _stage(name: str, stage: Stage) -> str:
    code = [path.as_posix() for path in import_closure(f"pipeline.stages.{name}")]
    deps = [*stage.deps, "requirements.lock", "pipeline/stages/run.sh", *code]
    parts = {"params": list(stage.params), "deps": deps, "outs": list(stage.outs)}
    lines = [f"  {name}:", f"    cmd: sh pipeline/stages/run.sh {name}"]
    for key, values in parts.items():
        if not values:
            continue
        lines.append(f"    {key}:")
        lines += [f"      - {value}" for value in values]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(ROOT) / "dvc.yaml").write_text(dvc_yaml(), encoding="utf-8")
