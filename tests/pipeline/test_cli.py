"""The `dreamer` command, every part of it on a training of seconds."""

import itertools
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from command_line import SETTINGS, TINY, checksums, dreamer
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from PIL import Image
from safetensors import safe_open

from dreamer import checkpoint
from dreamer.saved_agent import load_agent, save_agent
from dreamer.types import ActionSpec, ConfigError, EnvSpec, ObsSpec
from pipeline import cli
from pipeline.arguments.parser import whole
from pipeline.commands import agents, project, summary
from pipeline.commands.settings import Wishes, observe_spec, resolve
from pipeline.commands.train import default_folder, how_to_see_curves
from pipeline.params import load_params, load_raw
from pipeline.presets import list_presets
from pipeline.report.tables import write_json
from pipeline.scratch import Interrupted
from pipeline.stages import pretrain
from pipeline.stages.session import STAGES, Session
from pipeline.tracking import SyncReport, TrackingError

ROOT = Path(__file__).parents[2]
COMMANDS = ("train", "tune", "evaluate", "play", "inspect", "report", "use", "views", "sync")
COMMANDS += ("promote", "rollback", "summary")
PUSH = ActionSpec(kind="discrete", sizes=(2,))
MADE = ("data", "models", "reports")
NOTHING_SAID = Wishes(
    preset=None,
    config=None,
    env=None,
    device=None,
    steps=None,
    seed=None,
    multimodal=False,
    settings=(),
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.delenv("DREAMER_LOG_LEVEL", raising=False)


@pytest.fixture
def copy(trained, tmp_path):
    """A finished training to change."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def made(root):
    """Checksums of what stages wrote."""
    return {name: checksums(root / name) for name in MADE}


def said(lines, word):
    return [line for line in lines if word in line]


# Help ------------------------------------------------------------------------------------------


def test_help_is_there_without_heavy_imports():
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try:\n"
        "    main(['train', '--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'mlflow', 'matplotlib', 'gymnasium'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    answer = dreamer(capsys, command, "--help")
    assert answer.status == 0
    assert answer.out[0].startswith(f"usage: dreamer {command}")
    assert command in "\n".join(dreamer(capsys, "--help").out)
    if command not in ("views", "sync", "summary"):  # they take no arguments
        assert said(answer.out, f"  dreamer {command} ")


def test_the_script_is_the_command_train(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_dreamer.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "run_dreamer.py"), run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: dreamer train")


# Parameters ------------------------------------------------------------------------------------


def resolved(**wishes):
    return resolve(Wishes(**(vars(NOTHING_SAID) | wishes)))


def test_what_is_said_later_wins(tmp_path):
    """seed: 0 in params.yaml, then set by the flat configuration, the option and --set."""
    flat = tmp_path / "flat.json"
    flat.write_text(json.dumps({"seed": 5, "batch_size": 9, "env_id": "Acrobot-v1"}))
    assert resolved().params.seed == 0
    assert resolved(preset="pendulum").params.env.id == "Pendulum-v1"
    both = resolved(preset="pendulum", config=flat).params
    assert (both.seed, both.replay.batch_size, both.env.id) == (5, 9, "Acrobot-v1")
    assert resolved(config=flat, seed=6).params.seed == 6
    assert resolved(config=flat, seed=6, settings=("seed=7",)).params.seed == 7
    assert resolved(preset="pendulum", env="CartPole-v1").params.env.id == "CartPole-v1"
    assert resolved(device="cpu", steps=40_000).params.device == "cpu"


def test_one_modality_unless_more_are_asked_for():
    assert resolved().params.env.active_modalities == "first"
    assert resolved(multimodal=True).params.env.active_modalities == "all"
    wanted = "env.active_modalities=[image]"
    assert resolved(settings=(wanted,)).params.env.active_modalities == ("image",)
    assert resolved(settings=(wanted,), multimodal=True).params.env.active_modalities == ("image",)
    assert resolved(settings=("env.active_modalities=all",)).params.env.active_modalities == "all"


@pytest.mark.parametrize(
    ("env", "all_of_it", "first"),
    [
        ("CueBits-v0", {"image", "text", "audio", "vector"}, {"image"}),
        ("BabyAI-GoToObj-v0", {"grid", "direction", "mission"}, {"grid", "direction"}),
        ("ALE/SpaceInvaders-v5", {"image", "sound", "ram"}, {"image"}),
        ("Crafter-v1?area=16", {"image", "inventory"}, {"image"}),
        ("dmc_cartpole_balance?image=64", {"image", "position", "velocity"}, {"image"}),
        ("dmc_cartpole_balance", {"position", "velocity"}, {"position", "velocity"}),
    ],
)
def test_what_an_agent_senses_with_multimodal_and_without(env, all_of_it, first):
    for asked, keys in ((True, all_of_it), (False, first)):
        found = resolved(env=env, multimodal=asked)
        assert set(observe_spec(found.params.env).obs) == keys


def test_presets_of_several_modalities_need_no_option():
    for name in ("cue_bits", "atari_sound", "crafter", "dmc_pixels", "split_cartpole"):
        assert resolved(preset=name).params.env.active_modalities == "all"
    # Not the direction: the door asked for is always the one in the east.
    assert resolved(preset="babyai").params.env.active_modalities == ("grid", "text")


def test_a_choice_in_params_yaml_stays(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    changed = text.replace("active_modalities: all", "active_modalities: [vector]")
    assert changed != text
    (tmp_path / "params.yaml").write_text(changed)
    found = resolved()
    assert found.params.env.active_modalities == ("vector",)
    assert found.notes == ("Parameters: params.yaml",)


def test_a_short_run_collects_a_quarter_of_it_first():
    """params.yaml collects at least 1,000 steps."""
    short = resolved(steps=800)
    assert short.params.collect.steps == 200
    assert short.params.train.env_steps == 800
    assert said(short.notes, "collect.steps: 200 instead of ")
    assert len(resolved(steps=20_000).notes) == 1
    kept = resolved(steps=800, settings=("collect.steps=800",))
    assert kept.params.collect.steps == 800


def test_the_parameters_that_were_used_are_written_down(trained):
    raw = load_raw(trained / "params.yaml")
    wishes = {"preset": "smoke", "steps": 400, "settings": SETTINGS}
    assert raw == resolved(**wishes).raw
    assert load_params(trained / "params.yaml") == resolved(**wishes).params


def test_folders_are_named_after_environment_and_seed():
    raw = {"env": {"id": "MiniGrid-Empty-5x5-v0?rgb=8&x=/"}, "seed": 3}
    assert default_folder(raw) == Path("outputs/MiniGrid-Empty-5x5-v0_rgb_8_x-seed3")


# train -----------------------------------------------------------------------------------------


def test_training_writes_a_workspace(trained):
    assert {path.name for path in trained.iterdir()} == {
        *MADE,
        "params.yaml",
        ".scratch",
        ".stages",
    }
    outs = [trained / out for stage in STAGES.values() for out in stage.outs]
    assert all(any(out.iterdir()) for out in outs)
    assert (trained / "reports/evaluate/frames.png").exists()
    assert len(list((trained / ".stages").glob("*.json"))) == len(STAGES)
    # runs are tracked in the project, where `dreamer sync` and `make ui` look for them
    assert list((trained.parents[1] / ".runs").iterdir())


def test_the_same_command_again_does_nothing(trained, copy, capsys):
    before = {path: path.stat().st_mtime_ns for name in MADE for path in (copy / name).rglob("*")}
    answer = dreamer(capsys, "train", *TINY, "--checkpoint", copy)
    assert answer.status == 0
    assert len(said(answer.err, "unchanged, skipped")) == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    figures = json.loads((trained / "reports/evaluate/metrics.json").read_text())
    assert answer.out[0].startswith(f"return     {figures['episode/return']:.6g} +- ")
    assert " over 4 episodes " in answer.out[0]
    assert f"play it    dreamer play {copy}" in answer.out
    assert said(answer.out, "mlflow ui --backend-store-uri sqlite:///")


def test_what_was_damaged_is_made_again_and_what_was_not_stays(trained, copy, capsys):
    shard = next((copy / "data/episodes").glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-1])
    (copy / "reports/evaluate/metrics.json").unlink()
    (copy / "reports/evaluate/from_long_ago.png").write_text("")
    (copy / ".stages/pretrain.json").write_text("{")
    answer = dreamer(capsys, "train", *TINY, "--checkpoint", copy)
    assert answer.status == 0
    assert len(said(answer.err, "runs again")) == 3
    assert said(answer.err, "train: unchanged, skipped")
    assert made(copy) == made(trained)


def test_another_parameter_runs_the_stages_that_read_it(copy, capsys):
    before = made(copy)
    answer = dreamer(capsys, "train", *TINY, "--checkpoint", copy, "--set", "evaluate.seed=5")
    assert len(said(answer.err, "unchanged, skipped")) == 3
    assert said(answer.err, "evaluate: parameters, inputs or code changed")
    after = made(copy)
    assert (after["data"], after["models"]) == (before["data"], before["models"])
    assert after["reports"] != before["reports"]
    assert load_params(copy / "params.yaml").evaluate.seed == 5


def test_a_collection_that_is_the_whole_run(capsys):
    """Nothing is left to train online, and still there is an agent."""
    assert dreamer(capsys, "train", *TINY, "--steps=200", "--seed=1").status == 0
    found = load_agent(Path("outputs/CartPole-v1-seed1/models/agent/best"), torch.device("cpu"))
    assert (found.facts["env_step"], found.facts["update"]) == (200, 0)


def test_a_continuous_environment(capsys):
    """Its episodes have 999 steps; thirty are enough."""
    env = "--env=MountainCarContinuous-v0?max_episode_steps=30"
    answer = dreamer(capsys, "train", *TINY, env, "--steps=300", "--checkpoint=car")
    assert answer.status == 0, answer.err
    found = load_agent(Path("car/models/agent/last"), torch.device("cpu"))
    assert found.model.spec.action.kind == "continuous"
    assert (found.facts["env_step"], found.facts["update"]) == (300, 2), "a fiftieth of 300 - 200"


def test_killed_in_the_middle_and_typed_again_ends_at_the_same_bytes(trained, capsys):
    words = ["train", *TINY, "--checkpoint", "killed"]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "run_dreamer.py"), *words[1:]],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as child:
        head = list(itertools.takewhile(lambda line: "Episode return" not in line, child.stderr))
        child.send_signal(signal.SIGTERM)
        rest = child.stderr.read()
    assert child.returncode == 143
    assert said(head, "This run owes 4 updates")
    assert "Traceback" not in rest
    assert "the same command goes on" in rest
    assert not Path("killed/models/agent").exists()
    assert len(list(Path("killed/.scratch/train").glob("*/checkpoints/step-*"))) == 1

    answer = dreamer(capsys, *words)
    assert answer.status == 0
    assert len(said(answer.err, "unchanged, skipped")) == 2
    assert said(answer.err, "Resuming after step ")
    assert made(Path("killed")) == made(trained)


def test_an_interrupt_in_pretraining_ends_with_130(capsys, monkeypatch):
    """Ctrl-C is one SIGINT to this process, which the stage answers at its next checkpoint."""
    signals = itertools.chain([signal.SIGINT], itertools.repeat(None))
    save = Session.save_if_due

    def interrupted(session, *arguments):
        if signum := next(signals):
            signal.raise_signal(signum)
        save(session, *arguments)

    monkeypatch.setattr(Session, "save_if_due", interrupted)
    answer = dreamer(capsys, "train", *TINY, "--checkpoint", "stopped")
    assert answer.status == 130
    assert answer.out == []
    assert said(answer.err, "Stopped; the same command goes on from here")


def test_two_trainings_in_one_folder_are_refused(copy, capsys):
    with pytest.MonkeyPatch.context() as patch:
        inner = []

        def meanwhile(*_):
            inner.append(dreamer(capsys, "train", *TINY, "--checkpoint", copy))
            raise Interrupted

        patch.setattr("pipeline.commands.train.run_unless_done", meanwhile)
        dreamer(capsys, "train", *TINY, "--checkpoint", copy)
    assert inner[0].status == 2
    assert inner[0].err == [
        f"dreamer: error: {copy}: another `dreamer train` is at work there",
    ]


def test_how_to_see_the_curves(tmp_path, monkeypatch):
    assert how_to_see_curves(ROOT) == "make ui"
    database = f"sqlite:///{tmp_path}/mlflow.db"
    assert how_to_see_curves(tmp_path) == f"mlflow ui --backend-store-uri {database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert how_to_see_curves(ROOT) == "http://127.0.0.1:5000"


# evaluate and play -----------------------------------------------------------------------------


def figures(lines):
    return {name: float(value) for name, value in (line.split() for line in lines)}


def test_evaluating_a_run_gives_the_figures_of_its_report(trained, capsys):
    answer = dreamer(capsys, "evaluate", trained)
    assert answer.status == 0
    assert answer.out[0] == f"{trained / 'models/agent/best'} in CartPole-v1"
    report = json.loads((trained / "reports/evaluate/metrics.json").read_text())
    found = figures(answer.out[1:])
    assert found == {name: pytest.approx(report[name], rel=1e-9) for name in found}
    assert found.keys() == {name for name in report if not name.startswith("last/")}
    again = dreamer(capsys, "evaluate", trained / "models/agent/best")
    assert again.out == answer.out


def test_an_agent_outlives_a_change_of_the_parameters(trained, copy, capsys):
    """As if a later version had renamed a parameter that playing does not read."""
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("clip_ratio", "clip"))
    answer = dreamer(capsys, "evaluate", copy)
    assert answer.out[1:] == dreamer(capsys, "evaluate", trained).out[1:]


def test_other_episodes_another_policy_and_an_environment_with_the_same_spaces(trained, capsys):
    few = figures(dreamer(capsys, "evaluate", trained, "--episodes", "1").out[1:])
    assert (few["episode/count"], few["episode/return_std"]) == (1, 0)
    usual = dreamer(capsys, "evaluate", trained).out
    for words in (("--seed", "3"), ("--policy", "sample"), ("--withhold", "vector")):
        assert dreamer(capsys, "evaluate", trained, *words).out != usual
    # Sutton and Barto count 0 per step and -1 for the fall.
    other = dreamer(capsys, "evaluate", trained, "--env", "CartPole-v1?sutton_barto_reward=true")
    assert figures(other.out[1:])["episode/return"] == -1


def test_an_environment_with_other_spaces_is_refused(trained, capsys):
    answer = dreamer(capsys, "evaluate", trained, "--env", "Pendulum-v1")
    assert answer.status == 2
    assert answer.err == [
        "dreamer: error: --env: found 'Pendulum-v1 with observations vector 3 and 1 continuous "
        "actions'; allowed: an environment with observations vector 4 and 2 discrete actions, as "
        "the agent was trained for"
    ]


def test_only_modalities_of_the_agent_can_be_withheld(trained, capsys):
    answer = dreamer(capsys, "evaluate", trained, "--withhold", "vector,smell")
    assert answer.status == 2
    assert answer.err == [
        "dreamer: error: --withhold: found 'smell'; allowed: modalities of the agent: ['vector']"
    ]


def test_sounds_of_another_rate_are_another_sense(monkeypatch):
    slow, fast = (
        EnvSpec({"audio": ObsSpec(shape=(64,), dtype="uint8", kind="audio", rate=rate)}, PUSH)
        for rate in (8000, 16000)
    )
    monkeypatch.setattr(agents, "observe_spec", lambda env: fast)
    with pytest.raises(ConfigError) as caught:
        agents.check_spaces(slow, load_params(ROOT / "params.yaml").env)
    assert str(caught.value) == (
        "--env: found 'CartPole-v1 with observations audio 64 uint8 at 16000 Hz and 2 discrete "
        "actions'; allowed: an environment with observations audio 64 uint8 at 8000 Hz and 2 "
        "discrete actions, as the agent was trained for"
    )


def test_playing_records_animations(trained, capsys, tmp_path):
    answer = dreamer(capsys, "play", trained, "--episodes", "2", "--out", "clips", "--seed", "4")
    assert answer.status == 0
    assert sorted(os.listdir("clips")) == ["episode-000.gif", "episode-001.gif", "frames.png"]
    pattern = r"clips/episode-000\.gif: return (\d+) after (\d+) steps"
    ret, steps = map(int, re.fullmatch(pattern, answer.out[0]).groups())
    assert ret == steps, "a reward of one per step"
    with Image.open("clips/episode-000.gif") as animation:
        frames, durations = [], []
        for index in range(animation.n_frames):
            animation.seek(index)
            frames.append(np.asarray(animation.convert("L")))
            durations.append(animation.info["duration"])
    assert sum(durations) == 20 * (steps + 1), "CartPole runs at 50 frames a second"
    assert (frames[0] != frames[-1]).any()


class Blind(CartPoleEnv):
    """CartPole that nobody can look at."""

    def __init__(self):
        super().__init__()


@pytest.fixture
def blind(trained, tmp_path):
    """The agent, in an environment that cannot draw itself."""
    gym.register("Unseen-v0", Blind)
    agent = load_agent(trained / "models/agent/best", torch.device("cpu"))
    env = type(agent.env)(**(vars(agent.env) | {"id": "Unseen-v0"}))
    parts = agent.model, agent.behavior, agent.intrinsic
    save_agent(tmp_path / "blind", *parts, env, agent.facts)
    yield tmp_path / "blind"
    del gym.registry["Unseen-v0"]


def test_an_environment_that_cannot_be_drawn_is_one_line(blind, capsys):
    answer = dreamer(capsys, "play", blind, "--out", "clips")
    assert answer.status == 2
    assert len(answer.err) == 1
    assert answer.err[0].startswith("dreamer: error: Unseen-v0: ")
    assert not Path("clips").exists()


# inspect ---------------------------------------------------------------------------------------


def test_inspecting_an_agent(trained, capsys):
    lines = dreamer(capsys, "inspect", trained).out
    _, meta = checkpoint.read(trained / "models/agent/best")
    step = meta["facts"]["env_step"]
    assert step in (300, 400)  # validations after the collection of 200
    found = f"facts.env_step: {step}"
    for line in ("kind: agent", "env.id: CartPole-v1", found, "checksums: ok"):
        assert line in lines
    path = trained / "models/agent/best/tensors.safetensors"
    with safe_open(path, "numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert re.search(rf"^all +{count:,}$", "\n".join(lines), re.MULTILINE)
    table = [line.split() for line in lines[-len(shapes) :]]
    assert {row[0] for row in table} == set(shapes)
    row = next(row for row in table if row[0] == "behavior.worker.actor.out.weight")
    assert row[1:] == ["2x64", "float32", "512", "B"]
    assert said(lines, f"file tensors.safetensors: {path.stat().st_size / 1e6:.4g} MB")


def test_inspecting_other_checkpoints(trained, capsys):
    answer = dreamer(capsys, "inspect", trained / "models/world_model")
    assert answer.status == 0
    assert "kind: world_model" in answer.out
    assert dreamer(capsys, "inspect", trained / "models/agent").out == (
        dreamer(capsys, "inspect", trained).out
    )


# use, sync, summary ----------------------------------------------------------------------------


def test_presets_are_listed(capsys):
    answer = dreamer(capsys, "use", "list")
    assert [line.split()[0] for line in answer.out] == sorted(list_presets())


def test_every_preset_fits(capsys):
    for name in list_presets():
        shutil.copy(ROOT / "params.yaml", "params.yaml")
        answer = dreamer(capsys, "use", name)
        assert answer.status == 0, answer.err
        assert answer.out[-1].endswith(f"as in the preset {name}; next: dvc repro")
        assert load_params("params.yaml")


def test_a_preset_is_written_and_its_differences_shown(capsys):
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    answer = dreamer(capsys, "use", "pendulum")
    assert "env.id: CartPole-v1 -> Pendulum-v1" in answer.out
    assert answer.out[-1].startswith("params.yaml is now ")
    assert load_params("params.yaml").env.id == "Pendulum-v1"
    again = dreamer(capsys, "use", "pendulum")
    assert again.out == ["params.yaml is already as in the preset pendulum; next: dvc repro"]


def test_syncing(capsys, monkeypatch):
    assert dreamer(capsys, "sync").out == ["nothing was left to upload"]
    report = SyncReport(uploaded={"train-1": 7}, busy=("train-2",))
    monkeypatch.setattr(project, "sync", lambda root: report)
    assert dreamer(capsys, "sync").out == [
        "train-1: 7 events uploaded",
        "train-2: its own process is uploading it",
    ]

    def away(root):
        raise TrackingError("http://127.0.0.1:1: refused; 7 events of 1 runs wait")

    monkeypatch.setattr(project, "sync", away)
    answer = dreamer(capsys, "sync")
    assert (answer.status, len(answer.err)) == (2, 1)


def git(*words):
    subprocess.run(["git", *words], check=True, capture_output=True)


def test_the_summary_says_what_was_learned_and_whose_bits_these_are(trained, capsys, monkeypatch):
    shutil.copytree(trained / "reports", "reports")
    lock = "stages:\n  train:\n    deps: [{path: a, md5: A}]\n    outs: [{path: b, md5: B}]\n"
    Path("dvc.lock").write_text(lock)
    Path("params.yaml").write_text("a: 1\n")
    answer = dreamer(capsys, "summary")
    assert answer.status == 0
    assert answer.out[0].startswith("return     ")
    assert " over 4 episodes " in answer.out[0]
    assert "picture    reports/train/learning_curve.png" in answer.out
    assert "play it    dreamer play models/agent/best" in answer.out
    over = {
        "count": 3,
        "return": 200.5,
        "return_std": 2.0,
        "return_min": 198.0,
        "return_max": 203.0,
    }
    write_json(Path("reports/seeds/metrics.json"), {f"seeds/{k}": v for k, v in over.items()})
    answer = dreamer(capsys, "summary")
    line = "seeds      200.5 +- 2 over 3 seeds, each its mean return (198 to 203)"
    assert answer.out[2] == line

    git("init", "-q")
    git("add", "dvc.lock", "params.yaml")
    git("commit", "-qm", "first")
    monkeypatch.setattr(summary, "cpu_type", lambda: "Zilog Z80")
    assert dreamer(capsys, "summary").out == answer.out, "nothing differs"
    Path("dvc.lock").write_text(lock.replace("md5: A", "md5: C"))
    assert dreamer(capsys, "summary").out == answer.out, "made by other code, with the same bits"
    Path("dvc.lock").write_text(lock.replace("md5: B", "md5: C"))
    last = dreamer(capsys, "summary").out[-1]
    assert last.startswith("note       this CPU (Zilog Z80) gives other bits ")
    Path("params.yaml").write_text("a: 2\n")
    assert dreamer(capsys, "summary").out == answer.out, "other parameters, of course other bits"


def test_the_cpu_has_a_name():
    assert summary.cpu_type()


# How commands end ------------------------------------------------------------------------------


def failing(error):
    def command(_):
        raise error
        yield

    return command


def test_an_interrupt_ends_with_130(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_lines", failing(KeyboardInterrupt()))
    assert dreamer(capsys, "sync") == (130, [], [])


def test_the_unexpected_keeps_its_traceback(monkeypatch):
    for error in (RuntimeError("a fault of ours"), FileNotFoundError(2, "ours, too", "x")):
        monkeypatch.setattr(cli, "_lines", failing(error))
        with pytest.raises(type(error)):
            cli.main(["sync"])


def test_a_reader_that_goes_away_is_no_error(trained):
    words = [sys.executable, "-m", "pipeline.cli", "inspect", str(trained)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == cli.CLOSED_PIPE


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("3.0", 3), ("1e5", 100_000), ("-2", -2)])
def test_whole_numbers_as_mlflow_and_people_write_them(text, number):
    assert whole(text) == number
    assert type(whole(text)) is int


def test_the_stages_of_the_command_are_those_of_dvc():
    from pipeline.stages.skipping import MODULES

    assert list(MODULES) == list(STAGES)
    assert MODULES["pretrain"] is pretrain
