"""The stages as a pipeline on the seconds-long preset: equal bytes, exact resuming, declared
reads."""

import copy
import hashlib
import signal
from pathlib import Path
from types import ModuleType

import pytest
from read_recorder import record, undeclared, unread

from pipeline.params import Raw, from_raw, leaves, load_raw, of_stages, override
from pipeline.presets import preset_overrides
from pipeline.scratch import Interrupted
from pipeline.stages import collect, evaluate, pretrain, train
from pipeline.stages.command import run_stage
from pipeline.stages.session import STAGES, Session, Workspace, open_session

ROOT = Path(__file__).parents[2]
MODULES: dict[str, ModuleType] = {
    "collect": collect,
    "pretrain": pretrain,
    "train": train,
    "evaluate": evaluate,
}


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMER_TRACKING", "off")


def smoke(**changes: object) -> Raw:
    raw = load_raw(ROOT / "params.yaml")
    raw = override(raw, preset_overrides("smoke", raw))
    return override(raw, changes)


def run_all(raw: Raw, root: Path) -> Workspace:
    root.mkdir()
    for name, module in MODULES.items():
        run_stage(name, module.run, raw, Workspace(root))
    return Workspace(root)


def digests(root: Path) -> dict[str, str]:
    """Path below the outs -> checksum."""
    outs = [root / out for stage in STAGES.values() for out in stage.outs]
    files = sorted(file for out in outs for file in out.rglob("*") if file.is_file())
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pipeline") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMER_TRACKING", "off")
        run_all(smoke(), root)
    return root


def test_two_runs_write_equal_bytes(finished: Path, tmp_path: Path) -> None:
    run_all(smoke(), tmp_path / "second")
    first, second = digests(finished), digests(tmp_path / "second")
    assert first == second
    assert {"models/agent/best/tensors.safetensors", "reports/evaluate/metrics.json"} <= set(first)


def test_another_seed_writes_other_bytes(finished: Path, tmp_path: Path) -> None:
    run_all(smoke(seed=1), tmp_path / "other")
    weights = "models/agent/last/tensors.safetensors"
    assert digests(finished)[weights] != digests(tmp_path / "other")[weights]


@pytest.mark.parametrize("stage", ["pretrain", "train"])
def test_interrupted_and_resumed_equals_uninterrupted(
    stage: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, root = smoke(), tmp_path / "resumed"
    root.mkdir()
    for name, module in MODULES.items():
        if name == stage:
            interrupt_after(2, monkeypatch)
            with pytest.raises(Interrupted) as stopped:
                run_stage(name, module.run, raw, Workspace(root))
            assert stopped.value.code == 128 + signal.SIGTERM
            assert not (root / STAGES[name].outs[0]).exists(), "nothing is half-written"
            monkeypatch.undo()
            monkeypatch.setenv("DREAMER_TRACKING", "off")
        run_stage(name, module.run, raw, Workspace(root))
    assert digests(root) == digests(finished)
    assert not list((root / ".scratch").glob("*/*/checkpoints"))


def interrupt_after(checks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave as if SIGTERM had come before the given call of `save_if_due`."""
    real = Session.save_if_due
    count = [0]

    def stopping(self: Session, *args: object) -> None:
        count[0] += 1
        if count[0] == checks:
            self.scratch._signum = signal.SIGTERM
        real(self, *args)

    monkeypatch.setattr(Session, "save_if_due", stopping)


def test_stages_read_what_they_declare_and_together_everything(tmp_path: Path) -> None:
    raw, seen = override(smoke(), {"meta.warmup": 0}), set()  # or the run ends before a meta step
    for stage, module in MODULES.items():
        watched, reads = record(from_raw(raw))
        reads.clear()
        with open_session(stage, watched, raw, Workspace(tmp_path)) as session:
            module.run(watched, session)
        declared = STAGES[stage].params
        assert undeclared(reads, declared) == set(), stage
        assert unread(reads, declared) == set(), stage
        seen |= reads
    assert {key for key, _ in leaves(of_stages(raw))} - seen == set(), "read by no stage"


def test_collecting_ignores_what_pretraining_is_told(finished: Path, tmp_path: Path) -> None:
    raw = override(copy.deepcopy(smoke()), {"world_model.kl_scale": 2.0})
    root = tmp_path / "scaled"
    root.mkdir()
    run_stage("collect", collect.run, raw, Workspace(root))
    mine = digests(root)
    assert mine == {key: value for key, value in digests(finished).items() if key in mine}
