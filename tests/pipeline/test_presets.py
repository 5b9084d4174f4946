"""Presets: only the named values change, comments and order stay, nothing is half-written."""

import os
import stat

import pytest

from dreamer.types import ConfigError
from pipeline import params, presets
from pipeline.presets import Change, apply_preset, list_presets, preset_overrides

PARAMS = """\
# The whole experiment.
seed: 0   # any integer

env: {id: CartPole-v1, num_envs: 8, keys: [a, b]}  # which world
world_model:
  # learning
  world_lr: 4.0e-5  # rate
  kl: 3e-1
  note: null
  name: 'quoted'

tune:
  seeds:
    - 1
    - 2
# the end
"""
ATARI = """\
# Pong from pixels
env: {id: ALE/Pong-v5, num_envs: 8, keys: [image]}
world_model: {world_lr: 1.0e-4, note: off}
seed: 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/pong.yaml").write_text(ATARI)
    (tmp_path / "presets/atari.yaml").write_text("# Another\nseed: 1\n")
    return tmp_path / "presets"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path / "params.yaml"


def add(folder, text):
    (folder / "mine.yaml").write_text(text)
    return "mine"


def refused(call, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_presets_are_listed_with_their_description(folder):
    assert list_presets(folder) == {"atari": "Another", "pong": "Pong from pixels"}
    assert list(list_presets(folder)) == ["atari", "pong"]
    add(folder, "seed: 1\n")
    assert refused(list_presets, folder).startswith("mine.yaml: found 'seed: 1';")


def test_only_the_lines_of_changed_values_change(folder, path):
    changes = apply_preset("pong", path, folder=folder)
    assert changes == [
        Change("env.id", "CartPole-v1", "ALE/Pong-v5"),
        Change("env.keys", ["a", "b"], ["image"]),
        Change("world_model.world_lr", 4.0e-5, 1.0e-4),
        Change("world_model.note", None, "off"),
        Change("seed", 0, 3),
    ]
    expected = (
        PARAMS.replace("seed: 0", "seed: 3")
        .replace("id: CartPole-v1", "id: ALE/Pong-v5")
        .replace("[a, b]", "[image]")
        .replace("world_lr: 4.0e-5", "world_lr: 1.0e-4")
        .replace("note: null", "note: off")
    )
    lines = zip(path.read_text().splitlines(), expected.splitlines(), strict=True)
    for (
        found,
        wanted,
    ) in lines:  # comments keep their column, so a changed line may differ in blanks
        assert found == wanted if wanted in PARAMS else found.split() == wanted.split()
    assert sorted(os.listdir(path.parent)) == ["params.yaml", "presets"]


def test_applying_twice_changes_nothing(folder, path):
    apply_preset("pong", path, folder=folder)
    before = path.stat()
    assert apply_preset("pong", path, folder=folder) == []
    assert path.stat().st_ino == before.st_ino


def test_block_lists_and_optional_sections_can_be_replaced(folder, path):
    name = add(folder, "# mine\ntune: {seeds: [5]}\nworld_model: {note: {x: 1}}\n")
    apply_preset(name, path, folder=folder)
    raw = params.load_raw(path)
    assert raw["tune"] == {"seeds": [5]}
    assert raw["world_model"]["note"] == {"x": 1}


def test_numbers_of_another_type_are_a_difference(folder, path):
    name = add(folder, "# mine\nseed: 0.0\n")
    assert apply_preset(name, path, folder=folder) == [Change("seed", 0, 0.0)]
    assert "seed: 0.0 " in path.read_text()


def test_null_is_written(folder, path):
    name = add(folder, "# mine\nworld_model: {name: null}\n")
    apply_preset(name, path, folder=folder)
    assert "name: null\n" in path.read_text()
    assert "note: null\n" in path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# m\nworld_model: {wrld_lr: 1.0}\n", "world_model.wrld_lr: found 'an unknown key'"),
        ("# m\nnew: {a: 1}\n", "new: found 'an unknown key'"),
        ("# m\nenv: Pong\n", "env: found 'Pong'; allowed: a section with id, num_envs, keys"),
        ("# m\nseed: 1\nseed: 2\n", "seed: found 'the key again in line 3"),
        ("# m\nseed: [\n", 'mine.yaml: found "line 3, column 1'),
    ],
)
def test_a_preset_that_does_not_fit_changes_nothing(folder, path, text, message):
    assert message in refused(apply_preset, add(folder, text), path, folder=folder)
    assert path.read_text() == PARAMS


@pytest.mark.parametrize("name", ["pnog", "../params", "pong.yaml", ""])
def test_unknown_presets_are_answered_with_the_known(folder, path, name):
    message = refused(apply_preset, name, path, folder=folder)
    assert message == f"preset: found {name!r}; allowed: atari, pong"


def test_a_refusal_of_the_check_changes_nothing(folder, path):
    def check(raw):
        assert raw["seed"] == 3
        raise ConfigError("seed", 3, "0 to 2")

    assert refused(apply_preset, "pong", path, check, folder).startswith("seed: found 3;")
    assert path.read_text() == PARAMS


def test_shared_yaml_nodes_are_refused_instead_of_changed_twice(folder, path):
    text = "seed: 0\nenv: &e\n  x: 1\nother: *e\n"
    path.write_text(text)
    name = add(folder, "# m\nenv: {x: 2}\n")
    assert "changes when it is rewritten" in refused(apply_preset, name, path, folder=folder)
    assert path.read_text() == text


def test_mode_and_link_survive(folder, path, tmp_path):
    path.chmod(0o640)
    (tmp_path / "link.yaml").symlink_to(path)
    apply_preset("pong", tmp_path / "link.yaml", folder=folder)
    assert (tmp_path / "link.yaml").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "Pong" in path.read_text()


def test_a_failed_write_leaves_the_file(folder, path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(presets.os, "fsync", full)
    assert "No space left" in refused(apply_preset, "pong", path, folder=folder)
    assert path.read_text() == PARAMS
    assert sorted(os.listdir(path.parent)) == ["params.yaml", "presets"]


def test_overrides_are_for_a_run_without_the_file(folder, path):
    raw = params.load_raw(path)
    overrides = preset_overrides("atari", raw, folder)
    assert overrides == {"seed": 1}
    assert params.override(raw, overrides)["seed"] == 1


def test_the_presets_of_this_project_are_described():
    assert "cartpole" in list_presets()
    assert all(len(description) > 10 for description in list_presets().values())
