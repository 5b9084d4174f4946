"""`runtime.compile` reaches the trainer, and only training depends on it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreamer.envs.vector import VectorEnv
from dreamer.trainer import DreamerV3Trainer
from pipeline.params import from_raw, load_raw, override, subset
from pipeline.presets import preset_overrides
from pipeline.stages import train
from pipeline.stages.session import STAGES

ROOT = Path(__file__).parents[2]


def raw_with(*, compiled: bool) -> dict[str, Any]:
    raw = load_raw(ROOT / "params.yaml")
    return override(override(raw, preset_overrides("smoke", raw)), {"runtime.compile": compiled})


@pytest.mark.parametrize("compiled", [False, True])
def test_the_trainer_is_compiled_when_asked_for(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[DreamerV3Trainer] = []
    monkeypatch.setattr(train, "compile_pieces", told.append)
    params = from_raw(raw_with(compiled=compiled))
    env = VectorEnv(params.env, params.seed)
    env.close()
    session: Any = SimpleNamespace(device=torch.device("cpu"))
    experience: Any = SimpleNamespace(spec=env.spec, buffer=None)
    loop = train.make_loop(params, session, experience)
    loop.env.close()
    assert told == ([loop.trainer] if compiled else [])


@pytest.mark.parametrize("stage", list(STAGES))
def test_only_training_depends_on_it(stage: str) -> None:
    plain, compiled = (
        subset(raw_with(compiled=flag), STAGES[stage].params) for flag in (False, True)
    )
    assert (plain != compiled) == (stage == "train")
