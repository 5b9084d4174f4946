"""Tags about where an agent came from are there only where they are shown to be true."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from pipeline.closure import import_closure
from pipeline.page.lineage import read_lock
from pipeline.page.sources import open_source
from pipeline.params import leaves, load_raw, subset
from pipeline.registry.lineage import dvc_md5, lineage_of
from pipeline.stages.session import STAGES, fingerprint_of, pipeline_key, run_key


@pytest.fixture
def repository(trained, tmp_path):
    """A finished training as if DVC had run it."""
    shutil.copytree(trained, tmp_path / "repo", ignore=shutil.ignore_patterns(".stages"))
    root = tmp_path / "repo"
    (root / "dvc.yaml").write_text("stages: {}\n")
    raw = load_raw(root / "params.yaml")
    lines = ["schema: '2.0'", "stages:"]
    for name, stage in STAGES.items():
        lines += [f"  {name}:", "    params:", "      params.yaml:"]
        lines += [
            f"        {key}: {json.dumps(value)}"
            for key, value in leaves(subset(raw, stage.params))
        ]
        lines += ["    outs:"]
        for out in stage.outs:
            lines += [f"    - path: {out}", f"      md5: {dvc_md5(root / out)}"]
    (root / "dvc.lock").write_text("\n".join(lines) + "\n")
    assert read_lock(root / "dvc.lock").keys() == STAGES.keys()
    return root


def tell(root):
    return lineage_of(root / "models/agent/best", open_source(root, root))


def test_the_digest_of_a_folder_is_that_of_dvc(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(b"one\n")
    (tmp_path / "sub" / "a.txt").write_bytes(b"two\n")
    (tmp_path / "a b").write_bytes(b"")
    # What `dvc add` 3.67.1 wrote for these files.
    assert dvc_md5(tmp_path) == "2608080965dcfb8df4e67b9531149a13.dir"


def test_an_agent_that_dvc_lock_names_has_its_digests(repository):
    found = tell(repository)
    md5 = hashlib.md5((repository / "dvc.lock").read_bytes(), usedforsecurity=False).hexdigest()
    assert found.tags["dvc_lock_md5"] == md5
    assert found.tags["dvc_md5.agent"] == dvc_md5(repository / "models/agent")
    assert found.tags["dvc_md5.episodes"] == dvc_md5(repository / "data/episodes")
    assert found.tags["dvc_md5.world_model"] == dvc_md5(repository / "models/world_model")
    assert "evaluate.episode/return" in found.tags
    assert len(found.tags["params_sha256"]) == 64
    assert found.note == ""


def test_of_an_agent_that_dvc_lock_does_not_name_nothing_is_told(repository):
    path = repository / "models/agent/best/meta.json"
    path.write_text(path.read_text() + "\n")
    found = tell(repository)
    assert found.note.startswith("dvc.lock does not tell of this agent")
    assert found.tags.keys() <= {"git_commit", "git_dirty"}
    assert found.training is None


def test_figures_that_dvc_lock_does_not_name_are_not_told(repository):
    (repository / "reports/evaluate/metrics.json").write_text("{}\n")
    found = tell(repository)
    assert "dvc_md5.agent" in found.tags
    assert not [key for key in found.tags if key.startswith("evaluate.")]


def test_parameters_that_changed_since_are_not_told(repository):
    path = repository / "params.yaml"
    text = path.read_text()
    path.write_text(
        text.replace('"clip_ratio": 0.2', '"clip_ratio": 0.1').replace(
            "clip_ratio: 0.2", "clip_ratio: 0.1"
        )
    )
    assert path.read_text() != text
    found = tell(repository)
    assert found.note == "params.yaml changed since; parameters are not known"
    assert "params_sha256" not in found.tags
    assert "dvc_md5.agent" in found.tags


def test_a_training_names_its_runs(trained):
    found = tell(trained)
    source = open_source(trained, trained)
    assert found.note == ""
    assert len(found.tags["params_sha256"]) == 64
    key = fingerprint_of("train", source.raw, source.workspace)
    assert found.training == run_key("train", key)
    assert found.pipeline == pipeline_key(source.raw)


def test_no_stage_imports_the_registry():
    files = {path for name in STAGES for path in import_closure(f"pipeline.stages.{name}")}
    assert not [path for path in files if Path("pipeline/registry") in path.parents]
    assert Path("pipeline/serving/package.py") not in files
