"""Pictures of goals, and of learning rates that tune themselves."""

from types import SimpleNamespace

import counter_env  # noqa: F401  (registers Counter-v0)
import numpy as np
import pytest
import torch
from builders import CPU, meta_config, policy_config, world_config
from PIL import Image

from dreamer.behavior.goals import goal_reward
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.intrinsic.rewards import make_behavior
from dreamer.meta_gradient import MetaGradient
from dreamer.nn.noise import Noise
from dreamer.saved_agent import SavedAgent
from dreamer.types import ActionSpec, EnvSpec, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.dvc_file import dvc_yaml
from pipeline.params import EvaluateConfig, parse_yaml
from pipeline.report.canvas import BLUE, COLOURS, ORANGE, class_colours, placard
from pipeline.report.goals import (
    BANDS,
    Track,
    choose_tracks,
    goals_picture,
)
from pipeline.report.pursuit import GoalLog, Pursuit, decode_goals
from pipeline.report.rates import metric, rates_picture
from pipeline.report.recording import Recording, record_episode
from pipeline.stages import evaluate, train


def env_config(options):
    return EnvConfig(
        id=f"counter_env:Counter-v0?{options}",
        num_envs=1,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )


def make_agent(config, **policy):
    env = VectorEnv(config, 0)
    env.close()
    model = MultimodalWorldModel(env.spec, world_config(), 0)
    behavior, _ = make_behavior(model, policy_config(**policy), None, 0)
    return model, behavior


def play(options="length=10", choice="sample", **policy):
    """-> model, behaviour, recording, log."""
    config = env_config(options)
    model, behavior = make_agent(config, **{"hierarchy": True} | policy)
    log = GoalLog(behavior.config.goal_groups)
    recording = record_episode(
        model, behavior.policy, config, seed=3, choice=choice, max_steps=50, watch=log
    )
    return model, behavior, recording, log


def colours(path):
    with Image.open(path) as image:
        return {
            f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in image.convert("RGB").getcolors(1 << 20)
        }


# What was pursued -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "every", "start"),
    [(10, 3, [0, 3, 6, 9]), (9, 3, [0, 3, 6]), (2, 3, [0]), (4, 1, [0, 1, 2, 3])],
)
def test_a_goal_lasts_k_steps_or_to_the_end(length, every, start):
    _, _, recording, log = play(f"length={length}", goal_every=every)
    pursuit = log.pursuit(every)
    assert pursuit.start.tolist() == start
    assert pursuit.ends.tolist() == [*start[1:], length]
    assert pursuit.steps == recording.length == length
    assert pursuit.code.shape == (len(start), 4)
    assert pursuit.classes == 3
    assert pursuit.goal.shape == (len(start), log.deters[0].numel())


@pytest.mark.parametrize("choice", ["sample", "mode"])
def test_the_log_agrees_with_acting_by_hand(choice):
    model, behavior, recording, log = play("length=8", choice=choice)
    pursuit = log.pursuit(3)
    noise, policy, groups = Noise(3, CPU), behavior.policy, model.rssm.size.groups
    state, action, carry = model.rssm.initial(1), torch.zeros(1, 3), policy.initial(1)
    with torch.no_grad():
        for t in range(9):
            obs = {key: torch.from_numpy(each[t : t + 1]) for key, each in recording.obs.items()}
            first = torch.tensor([t == 0])
            draw = noise.uniform("evaluate/latent", t, (1, groups))
            state = model.observe_step(obs, state, action, first, draw)
            if t:  # the goal that was pursued on the way here
                paid = goal_reward(carry.goal, state.deter)
                assert pursuit.likeness[t - 1] == pytest.approx(float(paid), abs=1e-6)
            feat = model.feat(state)
            if choice == "sample":
                acted = policy.act(
                    feat, carry, first, policy.draw(noise, "evaluate/action", t, (1,))
                )
                carry = acted.carry
            else:
                _, carry = policy.mode(feat, carry, first)
            action = torch.from_numpy(recording.action[t : t + 1])
            if t < 8:
                g = t // 3
                torch.testing.assert_close(pursuit.goal[g], carry.goal[0])
                for choice_number, which in enumerate(pursuit.code[g]):
                    assert carry.code[0, which * 4 + choice_number] == 1.0


def test_watching_changes_nothing_and_a_flat_agent_has_no_goals(tmp_path):
    _, _, watched, log = play("length=6", hierarchy=False)
    assert log.pursuit(3) is None
    config = env_config("length=6")
    model, behavior = make_agent(config, hierarchy=False)
    plain = record_episode(model, behavior.policy, config, seed=3, choice="sample", max_steps=50)
    assert np.array_equal(plain.action, watched.action)
    goals_picture(tmp_path / "g.png", model, plain, None)
    assert not colours(tmp_path / "g.png") & set(COLOURS)


def test_an_episode_without_a_step_has_no_goals():
    log = GoalLog(4)
    assert log.pursuit(3) is None
    _, _, _, full = play("length=1")
    assert full.pursuit(3).start.tolist() == [0]
    log.deters, log.carries = full.deters[:1], full.carries[:1]
    assert log.pursuit(3) is None


def test_a_goal_is_decoded_with_the_most_probable_latent():
    model, _ = make_agent(env_config("length=5&keys=count,choice,image"))
    size = model.rssm.size
    goal = torch.randn(3, size.deter, generator=torch.Generator().manual_seed(1))
    decoded = decode_goals(model, goal)
    assert {key: value.shape[0] for key, value in decoded.items()} == dict.fromkeys(decoded, 3)
    with torch.no_grad():
        for n in range(3):
            probs = model.rssm.prior(goal[n])  # -> (C, S)
            stoch = torch.zeros(size.classes, size.groups)
            for group in range(size.groups):
                stoch[int(probs[:, group].argmax()), group] = 1.0
            feat = torch.cat([goal[n], stoch.flatten()])
            for key, value in model.decode(feat[None]).items():
                np.testing.assert_allclose(decoded[key][n], value[0].numpy(), rtol=1e-4, atol=1e-4)


# What is drawn ----------------------------------------------------------------------------------

WIDE = EnvSpec(
    {
        "a": ObsSpec(shape=(2,), dtype="float32", kind="vector"),
        "b": ObsSpec(shape=(5, 20), dtype="uint8", kind="vector"),
        "c": ObsSpec(shape=(6,), dtype="float32", kind="vector"),
        "camera": ObsSpec(shape=(12, 8, 3), dtype="uint8", kind="image"),
    },
    ActionSpec(kind="discrete", sizes=(2,)),
)


def made_up(rng, steps):
    rows = steps + 1
    obs = {
        "a": np.zeros((rows, 2), np.float32),
        "b": np.zeros((rows, 5, 20), np.uint8),
        "c": np.arange(rows)[:, None] * np.array([1.0, 5.0, 2.0, 0.0, 4.0, 3.0], np.float32),
        "camera": rng.integers(256, size=(rows, 12, 8, 3)).astype(np.uint8),
    }
    obs["b"][:, 3] = rng.integers(2, size=(rows, 20))
    obs["a"][1::2, 1] = 100.0
    marks = np.zeros(rows, bool)
    zeros = np.zeros(rows, np.float32)
    return Recording(
        spec=WIDE,
        obs=obs,
        action=np.zeros((rows, 2), np.float32),
        reward=zeros,
        is_first=marks,
        is_last=marks,
        is_terminal=marks,
        frames=None,
    )


def test_what_varies_most_is_drawn(rng):
    recording = made_up(rng, 7)
    goal = {key: obs[:1] for key, obs in recording.obs.items()}
    tracks = choose_tracks(WIDE.obs, recording.obs, goal)
    narrow = [(track.key, track.entries) for track in tracks if not track.wide]
    # c[3] does not vary and a[0] neither; in the order of the keys.
    assert narrow[:2] in ([("a", (0,)), ("a", (1,))], [("a", (1,)), ("c", (0,))])
    assert len(narrow) == 6
    assert ("a", (1,)) in narrow
    assert all(("c", (i,)) in narrow for i in (0, 1, 2, 4, 5))
    (wide,) = [track for track in tracks if track.wide]
    assert (wide.key, wide.total, len(wide.entries)) == ("b", 100, BANDS)
    varying = np.flatnonzero(recording.obs["b"].reshape(8, -1).std(0))
    assert len(varying) > 15
    assert set(varying) <= set(wide.entries)
    assert list(wide.entries) == sorted(wide.entries)
    assert wide.name == "b (the 24 of its 100 entries that vary most)"
    assert Track("b", tuple(range(9)), 9).name == "b (all entries)"
    assert Track("a", (1,), 2).name == "a[1]"
    assert Track("a", (0,), 1).name == "a"


def test_what_goals_alone_ask_for_is_drawn_too(rng):
    recording = made_up(rng, 7)
    goal = {key: obs[:1].astype(np.float32) for key, obs in recording.obs.items()}
    goal["b"][0, 4, 19] = 3.0
    (wide,) = [track for track in choose_tracks(WIDE.obs, recording.obs, goal) if track.wide]
    assert 99 in wide.entries


@pytest.mark.parametrize("classes", [2, 8, 9, 64])
def test_classes_have_colours_of_their_own(classes):
    assert len({str(colour) for colour in class_colours(classes)}) == classes


def pursuit_of(model, rng, steps, every, groups=4, classes=9):
    start = np.arange(0, steps, every)
    goal = torch.from_numpy(rng.normal(size=(len(start), model.rssm.size.deter))).float()
    code = rng.integers(classes, size=(len(start), groups))
    likeness = rng.uniform(-1, 1, steps).astype(np.float32)
    return Pursuit(start, code, classes, goal, likeness)


@pytest.mark.parametrize(
    ("steps", "every", "classes", "times"), [(1, 3, 2, 1), (40, 7, 9, 3), (200, 1, 64, 1)]
)
def test_all_sorts_are_drawn_with_the_same_bytes_again(tmp_path, rng, steps, every, classes, times):
    model = MultimodalWorldModel(WIDE, world_config(), 0)
    recording, pursuit = made_up(rng, steps), pursuit_of(model, rng, steps, every, classes=classes)
    drawn = set()
    for number in range(times):  # the layout alone gives other bits every second time
        goals_picture(tmp_path / f"{number}.png", model, recording, pursuit)
        drawn.add((tmp_path / f"{number}.png").read_bytes())
    assert len(drawn) == 1
    with Image.open(tmp_path / "0.png") as image:
        assert image.info.keys() <= {"dpi"}
    assert {BLUE, ORANGE} <= colours(tmp_path / "0.png")


def test_the_classes_of_the_code_are_shown_in_their_colours(tmp_path):
    model, _, recording, log = play("length=6")
    pursuit = log.pursuit(3)._replace(code=np.array([[0, 1, 1, 0], [1, 0, 4, 1]]), classes=6)
    goals_picture(tmp_path / "g.png", model, recording, pursuit)
    size = {}
    with Image.open(tmp_path / "g.png") as image:
        for count, (r, g, b) in image.convert("RGB").getcolors(1 << 20):
            size[f"#{r:02X}{g:02X}{b:02X}"] = count
    # Cells are larger than the patches of the legend; classes 3 and 5 are in the legend only.
    assert size[COLOURS[4]] > 5 * size[COLOURS[3]]
    assert size[COLOURS[3]] == pytest.approx(size[COLOURS[5]], rel=0.3)


# Learning rates ---------------------------------------------------------------------------------

STARTS = {"world": 1e-3, "actor": 3e-4}
BOUNDS = (1e-6, 1e-2)
RATES = [
    {"update": 50 * i, "meta/lr": 3e-4 * 1.1**i, "meta/lr_world": 1e-3 * 0.9**i, "world/loss": 1.0}
    for i in range(1, 9)
]


def test_rates_are_named_as_they_are_reported():
    assert metric("actor") == "meta/lr"
    assert metric("world") == "meta/lr_world"


def test_rates_are_drawn_from_their_starts_on(tmp_path):
    rates_picture(tmp_path / "a.png", RATES, STARTS, BOUNDS)
    rates_picture(tmp_path / "b.png", RATES, STARTS, BOUNDS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert {BLUE, ORANGE} <= colours(tmp_path / "a.png")
    rates_picture(tmp_path / "c.png", RATES, STARTS | {"world": 2e-3}, BOUNDS)
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


def test_weights_that_tune_themselves_are_drawn_too(tmp_path):
    slopes = [row | {"meta/gradient_icm_weight": 1.0} for row in RATES]
    weights = [row | {"meta/icm_weight": 0.01 * 1.2**n} for n, row in enumerate(slopes)]
    for name, rows in {"plain": RATES, "slopes": slopes, "weights": weights}.items():
        rates_picture(tmp_path / f"{name}.png", rows, STARTS, BOUNDS)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "slopes.png").read_bytes()
    assert COLOURS[2] not in colours(tmp_path / "plain.png")
    assert COLOURS[2] in colours(tmp_path / "weights.png")


@pytest.mark.parametrize("rows", [[], RATES[:1], [{"update": 1, "meta/lr": 1e-6}]])
def test_rates_of_little_are_drawn_without_complaint(tmp_path, rows):
    rates_picture(tmp_path / "r.png", rows, STARTS, BOUNDS)
    assert BLUE in colours(tmp_path / "r.png")


# Where they are ---------------------------------------------------------------------------------


def test_every_plot_of_the_stages_is_written(tmp_path):
    model, behavior, _, _ = play("length=3")
    agent = SavedAgent(model, behavior, None, env_config("length=3"), {})
    config = EvaluateConfig(episodes=1, num_envs=1, policy="mode", seed=0)
    evaluate.pictures(agent, config, tmp_path / "evaluate", CPU)
    trainer = SimpleNamespace(tuning=None)
    train.draw_rates(tmp_path / "train" / "rates.png", SimpleNamespace(trainer=trainer))
    fixed = (tmp_path / "train" / "rates.png").read_bytes()
    trainer.rates = {"world": 1e-3, "actor": 3e-4, "worker": 3e-4, "goals": 1e-3}
    names = {"world": "world", "actor": "actor", "worker": "actor"}
    meta = MetaGradient(STARTS, meta_config(), CPU)
    trainer.tuning = SimpleNamespace(meta=meta, names=names)
    tuned = SimpleNamespace(trainer=trainer, history=RATES)
    train.draw_rates(tmp_path / "train" / "rates.png", tuned)
    rates_picture(tmp_path / "same.png", RATES, STARTS, BOUNDS)
    drawn = (tmp_path / "train" / "rates.png").read_bytes()
    assert drawn == (tmp_path / "same.png").read_bytes() != fixed
    plots = [plot for plot in parse_yaml(dvc_yaml(), "dvc.yaml")["plots"] if isinstance(plot, str)]
    names = ("evaluate/goals", "evaluate/maps", "evaluate/attention", "train/rates")
    assert {f"reports/{name}.png" for name in names} <= set(plots)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*.png")}
    missing = {plot for plot in plots if plot.removeprefix("reports/") not in written}
    others = ("train/learning_curve", "pretrain/losses", "seeds/curves")
    assert missing == {f"reports/{name}.png" for name in others}


def test_a_placard_says_what_it_was_told(tmp_path):
    placard(tmp_path / "a.png", "one")
    placard(tmp_path / "b.png", "other")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
