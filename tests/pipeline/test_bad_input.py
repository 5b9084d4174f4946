"""Every mistake that a user can make: one clear line, an error status, nothing half-written."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import counter_env  # noqa: F401  (registers Counter-v0)
import pytest
import torch
from command_line import TINY, checksums, dreamer, own_logging

from dreamer import checkpoint
from dreamer.types import DreamerError
from pipeline.presets import list_presets
from pipeline.stages import command, evaluate, pretrain, train
from pipeline.stages.session import Session

ROOT = Path(__file__).parents[2]
STAGES = {"pretrain": pretrain, "train": train, "evaluate": evaluate}
PARAMS = (ROOT / "params.yaml").read_text()
AFTER = (
    PARAMS[: PARAMS.index("policy:")].count("\n") + 2
)  # number of the line after `policy: random`


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.delenv("DREAMER_LOG_LEVEL", raising=False)


@pytest.fixture
def copy(trained, tmp_path):
    """A finished training to damage."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def mistake(capsys, *words):
    """Run `dreamer WORDS`, expect one line of error and no file touched, and return the line."""
    before = checksums(Path())
    answer = dreamer(capsys, *words)
    assert answer.status == 2, answer
    assert answer.out == []
    assert len(answer.err) == 1, answer.err
    assert answer.err[0].startswith("dreamer: error: ")
    assert checksums(Path()) == before
    return answer.err[0].removeprefix("dreamer: error: ")


# Words of the command line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian' (choose from 'train', 'repro', "),
        (["train", "--prset", "smoke"], "unknown argument '--prset', did you mean --preset?"),
        (["train", "--step", "500"], "unknown argument '--step', did you mean --steps?"),
        (["train", "--nope", "1"], "unknown argument '--nope'; see `dreamer train --help`"),
        (["train", "CartPole-v1"], "unknown argument 'CartPole-v1'"),
        (["train", "--steps"], "argument --steps: expected one argument"),
        (["train", "--steps", "many"], "--steps: found 'many'; allowed: a whole number"),
        (["train", "--steps", "1.5"], "--steps: found '1.5'; allowed: a whole number"),
        (["train", "--steps", "nan"], "--steps: found 'nan'; allowed: a whole number"),
        (["train", "--steps", "1e99"], "--steps: found '1e99'; allowed: a whole number"),
        (["train", "--log-level", "loud"], "invalid choice: 'loud'"),
        (["evaluate"], "the following arguments are required: CHECKPOINT"),
        (["evaluate", "x", "--policy", "best"], "invalid choice: 'best'"),
        (["play", "x", "--env", "CartPole-v1"], "unknown argument '--env'"),
        (["use"], "the following arguments are required: NAME"),
        (["sync", "now"], "unknown argument 'now'"),
        (["promote", "x", "--agian"], "unknown argument '--agian', did you mean --again?"),
        (["rollback", "x"], "unknown argument 'x'; see `dreamer rollback --help`"),
    ],
)
def test_words(capsys, words, expected):
    assert expected in mistake(capsys, *words)


def test_a_log_level_of_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("DREAMER_LOG_LEVEL", "loud")
    assert mistake(capsys, "use", "list").startswith("log_level: found 'loud'; allowed: one of ")


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "policy.clip_rato=0.1",
            "policy.clip_rato: found 'an unknown key'; allowed: policy.clip_r",
        ),
        ("polcy={}", "polcy: found 'an unknown key'"),
        ("seed.inner=1", "seed.inner: found 'an unknown key'"),
        ("seed", "--set: found 'seed'; allowed: key=value"),
        ("=1", "--set: found '=1'; allowed: key=value"),
        ("seed=", "seed: found None; allowed: an integer"),
        ("seed=abc", "seed: found 'abc'; allowed: an integer"),
        ("seed=1.5", "seed: found 1.5; allowed: an integer"),
        ("seed=true", "seed: found True; allowed: an integer"),
        ("seed='1'", "seed: found '1'; allowed: an integer"),
        ("seed=[1, 2]", "seed: found [1, 2]; allowed: an integer"),
        ("seed=[1", "--set seed: found "),
        ("seed=-1", "seed: found -1; allowed: 0 to "),
        ("runtime.compile=1", "runtime.compile: found 1; allowed: true or false"),
        ("runtime.threads=0", "runtime.threads: found 0; allowed: 1 to 256"),
        ("env={id: CartPole-v1}", "env.num_envs: found 'nothing'; allowed: an integer"),
        ("env=CartPole-v1", "env: found 'CartPole-v1'; allowed: a section"),
        ("env.num_envs='8'", "env.num_envs: found '8'; allowed: an integer"),
        ("env.num_envs=0", "env.num_envs: found 0; allowed: 1 to "),
        ("env.id=", "env.id: found None; allowed: text"),
        ("env.active_modalities=some", "env.active_modalities: found 'some'"),
        ("env.modalities=vector", "env.modalities: found 'vector'; allowed: a mapping"),
        ("env.modalities={image: 3}", "env.modalities.image: found 3; allowed: text"),
        ("env.modalities={image: ''}", "env.modalities.image: found ''; allowed: a modality"),
        (
            "env.modalities.image=grid",
            "env.modalities.image: found 'an unknown key'; allowed: ",
        ),
        ("policy.actor=sac", "policy.actor: found 'sac'; allowed: "),
        ("policy.clip_ratio=-0.1", "policy.clip_ratio: found -0.1; allowed: "),
        ("policy.clip_ratio=.nan", "policy.clip_ratio: found nan; allowed: "),
        ("policy.actor_lr=.inf", "policy.actor_lr: found inf; allowed: "),
        ("policy.minibatches=100000", "policy.minibatches: found 100000; allowed: 1 to "),
        ("policy.goal_every=4", "policy.goal_every: found 4; allowed: one of [1, 3, 5, 15]"),
        ("imagination.horizon=16", "policy.goal_every: found 5; allowed: one of [1, 2, 4, 8, 16]"),
        ("policy.actor=reinforce", "policy.actor: found 'reinforce'; allowed: ppo, or hierarchy"),
        ("policy.worker.gaol=1", "policy.worker.gaol: found 'an unknown key'; allowed: policy.w"),
        ("intrinsic.icm.weight=-1", "intrinsic.icm.weight: found -1.0; allowed: 0 to 100"),
        ("imagination.horizon=0", "imagination.horizon: found 0; allowed: "),
        ("imagination.starts=some", "imagination.starts: found 'some'; allowed: "),
        ("world_model.size=huge", "world_model.size: found 'huge'; allowed: one of ['tiny', "),
        ("replay.batch_size=0", "replay.batch_size: found 0; allowed: 1 to "),
        ("replay.capacity=50", "replay.capacity: found 50; allowed: at least "),
        ("collect.steps=10", "collect.steps: found 10; allowed: at least "),
        ("collect.steps=1000000", "train.env_steps: found "),
        ("evaluate.num_envs=1000", "evaluate.num_envs: found 1000; allowed: 1 to "),
        ("train.checkpoint_seconds=-1", "train.checkpoint_seconds: found -1"),
    ],
)
def test_settings(capsys, setting, expected):
    assert mistake(capsys, "train", "--set", setting).startswith(expected)


def test_a_setting_twice(capsys):
    line = mistake(capsys, "train", "--set", "seed=1", "--set", "seed=2")
    assert line == "seed: found 'the key twice in --set'; allowed: each key once"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "0"], "train.env_steps: found 0; allowed: "),
        (["--steps", "40"], "collect.steps: found 10; allowed: at least "),
        (["--seed", "-3"], "seed: found -3; allowed: 0 to "),
        (["--device", "gpu"], "device: found 'gpu'; allowed: cpu | cuda | auto"),
        (["--preset", "cartpol"], "preset: found 'cartpol'; allowed: "),
        (["--preset", "../presets/smoke"], "preset: found '../presets/smoke'; allowed: "),
    ],
)
def test_options(capsys, words, expected):
    assert mistake(capsys, "train", *words).startswith(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(capsys):
    line = mistake(capsys, "train", "--device", "cuda")
    assert line == ("device: found 'cuda'; allowed: cpu or auto: no CUDA device is visible here")


def without(text, key):
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{key}:")]
    assert len(kept) == len(lines) - 1
    return "".join(kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PARAMS + "seed: 1\n", "seed: found 'the key again in line "),
        (PARAMS.replace("  clip_ratio", "  clip_ratio: 0.1\n  clip_ratio"), "policy.clip_ratio: "),
        (PARAMS + "sed: 1\n", "sed: found 'an unknown key'; allowed: seed, did you mean that?"),
        (PARAMS.replace("  clip_ratio", "  clip_rato"), "policy.clip_rato: found 'an unknown key'"),
        (without(PARAMS, "  clip_ratio"), "policy.clip_ratio: found 'nothing'; allowed: a number"),
        (without(PARAMS, "seed"), "seed: found 'nothing'; allowed: an integer"),
        (PARAMS.replace("seed: 0", "seed: off"), "seed: found 'off'; allowed: an integer"),
        (PARAMS.replace("policy:", "policy: {"), f'params.yaml: found "line {AFTER}, column 7: '),
        (
            PARAMS.replace("policy:", "policy"),
            f'params.yaml: found "line {AFTER}, column 1: could ',
        ),
        (PARAMS + "\tx: 1\n", 'params.yaml: found "line '),
        ("", "params.yaml: found None; allowed: a mapping of sections"),
        ("- seed\n", "params.yaml: found ['seed']; allowed: a mapping of sections"),
        ("a: &a [*a]\n", "params.yaml: found 'maximum recursion depth exceeded"),
        ("a: !!python/object:os.system x\n", 'params.yaml: found "line 1, column 4: could'),
    ],
)
def test_a_broken_params_yaml(capsys, text, expected):
    Path("params.yaml").write_text(text)
    assert mistake(capsys, "train").startswith(expected)


def test_a_params_yaml_that_is_no_text_or_no_file(capsys):
    Path("params.yaml").write_bytes(b"seed: \xff\n")
    assert mistake(capsys, "train") == (
        "params.yaml: found 'byte 6 that is no UTF-8'; allowed: UTF-8"
    )
    Path("params.yaml").unlink()
    Path("params.yaml").mkdir()
    assert mistake(capsys, "train").startswith("params.yaml: found 'Is a directory'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"batch_sise": 8}', "batch_sise: found 'an unknown key'; allowed: batch_size, did you "),
        ('{"seed": 1, "seed": 2}', "seed: found 'the key twice'; allowed: each key once"),
        ('{"seed": 1, "seed": 1}', "seed: found 'the key twice'; allowed: each key once"),
        ('{"batch_size": 8, "replay.batch_size": 9}', "replay.batch_size: found "),
        ('{"polcy.clip_ratio": 0.1}', "polcy.clip_ratio: found 'an unknown key'"),
        ('{"kl_scale": [0.5, 1.0]}', "world_model.kl_scale: found [0.5, 1.0]; allowed: one value"),
        ('{"batch_size": "8"}', "replay.batch_size: found '8'; allowed: an integer"),
        ('{"clip_ratio": 2.0}', "policy.clip_ratio: found 2.0; allowed: "),
        ('{"obs_dim": 5}', "obs_dim: found 5; allowed: 4: the environment observes vector 4"),
        ('{"action_dim": 3}', "action_dim: found 3; allowed: 2: "),
        ('{"obs_dim": 4.5}', "obs_dim: found 4.5; allowed: a positive integer"),
        ('{"use_wandb": "yes"}', "use_wandb: found 'yes'; allowed: true or false"),
        ('{"world_lr": NaN}', "flat.json: found 'NaN is no JSON number'; allowed: valid JSON"),
        ('{"seed": 1', "flat.json: found "),
        ("", "flat.json: found "),
        ("[]", "flat.json: found []; allowed: one JSON object"),
    ],
)
def test_a_broken_flat_configuration(capsys, text, expected):
    Path("flat.json").write_text(text)
    assert mistake(capsys, "train", "--config", "flat.json").startswith(expected)


def test_no_flat_configuration(capsys):
    line = mistake(capsys, "train", "--config", "flat.json")
    assert line == "flat.json: found 'No such file or directory'; allowed: a readable JSON file"


# Presets ---------------------------------------------------------------------------------------


def test_presets_where_there_is_no_project(capsys):
    line = mistake(capsys, "use", "smoke")
    assert line == "params.yaml: found 'No such file or directory'; allowed: a readable YAML file"


def test_unknown_presets_are_answered_with_the_known(capsys):
    Path("params.yaml").write_text(PARAMS)
    line = mistake(capsys, "use", "cartpol")
    assert line == f"preset: found 'cartpol'; allowed: {', '.join(list_presets())}"


def test_a_preset_into_broken_parameters(capsys):
    Path("params.yaml").write_text(PARAMS.replace("clip_ratio: 0.2", "clip_ratio: 7"))
    assert mistake(capsys, "use", "smoke").startswith("policy.clip_ratio: found 7")


# Environments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("CartPoll-v1", "CartPoll"),
        ("CartPole-v77", "CartPole"),
        ("", "env.id: found ''; allowed: the name of an environment"),
        ("no_such_module:Env-v0", "no_such_module"),
        ("CartPole-v1?gravitas=1", "gravitas"),
        ("CartPole-v1?gravity", "option 'gravity'; allowed: name=value"),
        ("dmc_walker", "dmc_walker"),
        ("dmc_walker_fly", "dmc_walker_fly"),
    ],
)
def test_unknown_environments(capsys, env, expected):
    if env.startswith("dmc_"):
        pytest.importorskip("dm_control")
    assert expected in mistake(capsys, "train", "--env", env)


@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        ("{smell: vector}", "allowed: keys ['count', 'floats']"),
        ("{floats: touch}", "observation 'floats': found 'touch'; allowed: one of ['audio', "),
        (
            "{floats: 'mine:touch'}",
            "found \"mine:touch (No module named 'mine')\"; allowed: an imp",
        ),
        ("{floats: image}", "observation 'floats' as image: found 'a Box of shape (8, 8, 3) and "),
    ],
)
def test_modalities_that_cannot_be(capsys, modalities, expected):
    words = ["--env", "Counter-v0?keys=count,floats", "--set", f"env.modalities={modalities}"]
    line = mistake(capsys, "train", *words)
    assert line.startswith("Counter-v0: ")
    assert expected in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            "keys=pair&multimodal",
            "observation 'pair' is a Tuple space; allowed: Box of rank 0 to 2",
        ),
        ("keys=floats", "has no observation; allowed: Box of rank 0 to 2"),
        ("keys=pair", "has no observation; allowed: Box of rank 0 to 2"),
        ("action=pair", "allowed: Discrete, MultiDiscrete, MultiBinary and float Box"),
        ("action=infinite", "allowed: Discrete, MultiDiscrete, MultiBinary and float Box"),
        ("action=integers", "allowed: Discrete, MultiDiscrete, MultiBinary and float Box"),
    ],
)
def test_unsupported_spaces(capsys, options, expected):
    options, _, multimodal = options.partition("&")
    words = ["--multimodal"] if multimodal else []
    line = mistake(capsys, "train", "--env", f"Counter-v0?{options}", *words)
    assert expected in line


# Folders ---------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_folder(capsys):
    Path("taken").write_text("mine")
    for folder in ("taken", "taken/below"):
        line = mistake(capsys, "train", *TINY, "--checkpoint", folder)
        assert line == f"{folder}: cannot be made or written: Not a directory"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder here that root cannot write")
def test_a_folder_that_cannot_be_made(capsys):
    line = mistake(capsys, "train", *TINY, "--checkpoint", "/proc/agents")
    assert line.startswith("/proc/agents: cannot be made or written: ")


def test_a_folder_with_other_things_in_it(capsys):
    Path("thesis.txt").write_text("mine")
    line = mistake(capsys, "train", *TINY, "--checkpoint", ".")
    assert line.startswith(".: found a folder with other things in it; allowed: a new or empty ")


def test_a_file_in_the_way_of_a_stage(capsys):
    """Found while the stage writes: what was there before stays, and no record says it is done."""
    Path("run/.stages").mkdir(parents=True)
    Path("run/data").write_text("mine")
    answer = dreamer(capsys, "train", *TINY, "--checkpoint", "run")
    assert answer.status == 2
    errors = [line for line in answer.err if not line.startswith("INFO - ")]
    assert errors == ["dreamer: error: run/data/episodes: cannot write episodes: Not a directory"]
    assert Path("run/data").read_text() == "mine"
    assert not list(Path("run/.stages").glob("*.json"))


def test_a_full_disk_leaves_the_old_agent(copy, capsys, monkeypatch):
    """While a new one is written; the old one stays whole, and the stage is not done."""
    before = checksums(copy / "models" / "agent")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    answer = dreamer(capsys, "train", *TINY, "--checkpoint", copy, "--set", "policy.epochs=1")
    assert answer.status == 2
    errors = [line for line in answer.err if not line.startswith("INFO - ")]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert checksums(copy / "models" / "agent") == before
    assert not (copy / ".stages" / "train.json").exists()


def test_a_disk_that_takes_no_large_file(tmp_path):
    """The replay buffer is allocated when it is made, so that too small a disk shows at once."""
    code = (
        "import resource, sys\n"
        "from pipeline.cli import main\n"
        "import pipeline.commands.train\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"sys.exit(main(['train', *{TINY!r}]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO - ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("dreamer: error: ")
    assert "File too large" in lines[0]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_clips_where_there_is_a_file(trained, capsys):
    Path("taken").write_text("mine")
    line = mistake(capsys, "play", trained, "--out", "taken")
    assert line == "taken/episode-000.gif: cannot be written: File exists"


# Checkpoints -----------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit": lambda agent: flip(agent / checkpoint.TENSORS),
    "cut": lambda agent: (agent / checkpoint.TENSORS).write_bytes(b"\0" * 8),
    "no tensors": lambda agent: (agent / checkpoint.TENSORS).unlink(),
    "no meta": lambda agent: (agent / checkpoint.META).unlink(),
    "broken meta": lambda agent: (agent / checkpoint.META).write_text("{"),
    "other meta": lambda agent: (agent / checkpoint.META).write_text("[]"),
    "changed meta": lambda agent: (agent / checkpoint.META).write_text(
        (agent / checkpoint.META).read_text().replace("CartPole-v1", "CartPole-v0")
    ),
}


@pytest.mark.parametrize("words", [["evaluate"], ["play", "--out", "clips"], ["inspect"]])
def test_damaged_agents(copy, capsys, words):
    agent = copy / "models" / "agent" / "best"
    aside = agent.with_name("whole")
    shutil.copytree(agent, aside)
    for name, damage in DAMAGES.items():
        damage(agent)
        line = mistake(capsys, words[0], agent, *words[1:])
        assert str(agent) in line, name
        shutil.rmtree(agent)
        shutil.copytree(aside, agent)


@pytest.mark.parametrize("command_word", ["evaluate", "play", "inspect"])
def test_no_agent(trained, capsys, command_word):
    Path("empty").mkdir()
    Path("file").write_text("")
    for folder in ("nowhere", "empty", "file"):
        assert folder in mistake(capsys, command_word, folder)
    if command_word != "inspect":
        line = mistake(capsys, command_word, trained / "models" / "world_model")
        assert line.endswith("found 'world_model', needed an agent")


def test_an_agent_of_another_shape(copy, capsys):
    """As if the code had changed since: whole, but not what this version builds."""
    agent = copy / "models" / "agent" / "best"
    tensors, meta = checkpoint.read(agent)
    name = "behavior.top.actor.out.weight"
    tensors[name] = tensors[name][:1]
    checkpoint.write(agent, tensors, meta)
    assert "the weights are of another shape" in mistake(capsys, "evaluate", agent)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--episodes", "0"], "--episodes: found 0; allowed: 1 to "),
        (["--seed", "-1"], "seed: found -1; allowed: 0 to "),
        (["--env", "CartPoll-v1"], "CartPoll"),
        (["--env", "Acrobot-v1"], "--env: found 'Acrobot-v1 with observations vector 6 and 3 "),
    ],
)
def test_how_to_evaluate(trained, capsys, words, expected):
    assert expected in mistake(capsys, "evaluate", trained, *words)


def test_damaged_parameters_beside_an_agent(copy, capsys):
    (copy / "params.yaml").write_text("seed: [")
    assert "params.yaml: found " in mistake(capsys, "evaluate", copy)


def test_damaged_checkpoints_of_an_interrupted_run(trained, capsys, monkeypatch):
    """With one of two it goes on from the other to the same bytes; without any it says so."""
    stop_after = iter(range(12))  # four updates of pretraining, eight steps of training

    def save_often(session, step, seconds, state, stored, save=Session.save_if_due):
        if next(stop_after, None) is None:
            raise KeyboardInterrupt
        save(session, step, 0.0, state, stored)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "save_if_due", save_often)
        assert dreamer(capsys, "train", *TINY, "--checkpoint=run").status == 130
    older, newer = sorted(Path("run/.scratch/train").glob("*/checkpoints/step-*/*.safetensors"))
    flip(older)
    flip(newer)
    answer = dreamer(capsys, "train", *TINY, "--checkpoint=run")
    assert answer.status == 2
    assert "none can be read; delete it to start anew" in answer.err[-1]
    assert not [line for line in answer.err[:-1] if "error" in line]

    flip(older)
    answer = dreamer(capsys, "train", *TINY, "--checkpoint=run")
    assert answer.status == 0, answer.err
    step = int(older.parent.name.removeprefix("step-"))
    assert f"INFO - Resuming after step {step}" in answer.err
    assert len([line for line in answer.err if line.startswith("WARNING - ")]) == 1
    for made in ("models", "reports"):
        assert checksums(Path("run", made)) == checksums(trained / made)


# Stages, as DVC runs them ----------------------------------------------------------------------


def stage_mistake(capsys, name, folder, monkeypatch):
    """Run one stage in `folder`; return its one line."""
    monkeypatch.chdir(folder)
    before = checksums(folder / "models") | checksums(folder / "reports")
    capsys.readouterr()
    with own_logging(), pytest.raises(SystemExit) as stop:
        command.main(name, STAGES[name].run)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"ERROR - {name}: ")
    assert checksums(folder / "models") | checksums(folder / "reports") == before
    return lines[0]


def shard(folder):
    return folder / "data" / "episodes" / "episodes-00000.npz"


def manifest(folder):
    return folder / "data" / "episodes" / "manifest.json"


def meta(folder):
    return folder / "models" / "world_model" / checkpoint.META


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("pretrain", lambda f: flip(shard(f)), "episode shard is damaged: its checksum differs"),
        ("pretrain", lambda f: shard(f).unlink(), "episode shard is missing"),
        ("pretrain", lambda f: manifest(f).unlink(), "manifest of the episodes is missing"),
        ("pretrain", lambda f: manifest(f).write_text("{"), "manifest of the episodes is damaged"),
        ("pretrain", lambda f: shutil.rmtree(f / "data"), "cannot be read: No such file"),
        ("train", lambda f: flip(shard(f)), "episode shard is damaged: its checksum differs"),
        ("train", lambda f: flip(meta(f).with_name(checkpoint.TENSORS)), "damaged: the checksum"),
        ("train", lambda f: meta(f).write_text("{"), "meta.json: cannot be read"),
        ("train", lambda f: shutil.rmtree(meta(f).parent), "cannot be read: No such file"),
        ("evaluate", lambda f: shutil.rmtree(f / "models/agent/last"), "no checkpoint here"),
        ("evaluate", lambda f: shutil.rmtree(f / "models/agent"), "cannot be read: No such file"),
    ],
)
def test_damaged_inputs_of_stages(copy, capsys, monkeypatch, name, damage, expected):
    damage(copy)
    assert expected in stage_mistake(capsys, name, copy, monkeypatch)


def test_episodes_of_another_environment(copy, capsys, monkeypatch):
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("CartPole-v1", "Pendulum-v1"))
    line = stage_mistake(capsys, "train", copy, monkeypatch)
    assert "env.id: found 'Pendulum-v1'; allowed: the environment that the episodes" in line


def test_an_agent_for_a_world_model(copy, capsys, monkeypatch):
    shutil.rmtree(copy / "models" / "world_model")
    shutil.copytree(copy / "models/agent/best", copy / "models/world_model")
    line = stage_mistake(capsys, "train", copy, monkeypatch)
    assert line.endswith("found 'agent', needed a world model")


# Figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "nothing was evaluated yet; run `make repro` first"),
        ("{", "cannot be read: "),
        ("[]", "found no evaluation; allowed: figures with "),
        ('{"episode/return": 1}', "found no evaluation; allowed: figures with "),
    ],
)
def test_no_figures_to_summarise(capsys, text, expected):
    if text is not None:
        Path("reports/evaluate").mkdir(parents=True)
        Path("reports/evaluate/metrics.json").write_text(text)
    assert expected in mistake(capsys, "summary")


# Processes -------------------------------------------------------------------------------------


def test_a_real_process():
    words = [str(ROOT / "run_dreamer.py"), "--set", "policy.clip_ratio=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dreamer: error: ")
    assert done.stderr.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_line_is_a_line(capsys, monkeypatch):
    """Whatever a library puts into its message."""

    def broken(_):
        raise DreamerError("first\n  second\r\nthird")

    monkeypatch.setattr("pipeline.cli._lines", broken)
    assert mistake(capsys, "sync") == "first second third"
