"""`dvc.yaml` is what the stages declare, and the import closure is what a small tree says."""

from pathlib import Path

from pipeline.closure import import_closure
from pipeline.dvc_file import dvc_yaml
from pipeline.params import parse_yaml
from pipeline.stages.session import STAGES

ROOT = Path(__file__).parents[2]


def test_dvc_yaml_is_up_to_date() -> None:
    assert (ROOT / "dvc.yaml").read_text() == dvc_yaml(), "run python -m pipeline.dvc_file"


def test_stages_declare_params_deps_and_outs() -> None:
    stages = parse_yaml(dvc_yaml(), "dvc.yaml")["stages"]
    assert list(stages)[: len(STAGES)] == list(STAGES)
    for name, stage in STAGES.items():
        assert stages[name]["params"] == list(stage.params)
        assert stages[name]["outs"] == list(stage.outs)
        assert f"pipeline/stages/{name}.py" in stages[name]["deps"]
    written = {out for stage in STAGES.values() for out in stage.outs}
    assert {dep for stage in STAGES.values() for dep in stage.deps} <= written


def test_the_stage_that_repeats_depends_on_all_code_of_a_training() -> None:
    stages = parse_yaml(dvc_yaml(), "dvc.yaml")["stages"]
    code = {dep for name in STAGES for dep in stages[name]["deps"] if dep.endswith(".py")}
    assert code < set(stages["seeds"]["deps"])
    assert {"pipeline/stages/one_seed.py", "reports/train", "reports/evaluate"} <= set(
        stages["seeds"]["deps"]
    )
    assert stages["seeds"]["outs"] == ["reports/seeds"]
    assert "seeds.also" in stages["seeds"]["params"]
    assert not [name for name in STAGES if "seeds.also" in stages[name]["params"]]


def test_the_stage_that_compares_comes_with_its_record(tmp_path: Path) -> None:
    assert "tuned" not in parse_yaml(dvc_yaml(tmp_path), "dvc.yaml")["stages"]
    (tmp_path / "tuned.json").touch()
    stage = parse_yaml(dvc_yaml(tmp_path), "dvc.yaml")["stages"]["tuned"]
    assert {"reports/evaluate", "tuned.json", "pipeline/stages/tuned.py"} <= set(stage["deps"])
    assert "outs" not in stage


def test_the_closure_follows_every_import(tmp_path: Path) -> None:
    files = {
        "dreamer/__init__.py": "",
        "dreamer/a.py": "from dreamer import b\nimport json\n",
        "dreamer/b.py": "def f():\n    from dreamer.deep.c import x\n",
        "dreamer/deep/__init__.py": "",
        "dreamer/deep/c.py": "x = 1\n",
        "dreamer/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [path.as_posix() for path in import_closure("dreamer.a", tmp_path)]
    assert found == sorted(set(files) - {"dreamer/unused.py"})
