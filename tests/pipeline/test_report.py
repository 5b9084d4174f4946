from __future__ import annotations

import csv
import dataclasses
import json
import math
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from counter_env import Counter
from PIL import Image

from dreamer.behavior.actor_critic import Actor
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.evaluation import play_episodes
from dreamer.modalities.audio import AudioConfig
from dreamer.modalities.text import TextConfig
from dreamer.nn.noise import Noise
from dreamer.types import ActionSpec, DataError, DreamerError, EnvError, EnvSpec, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel, WorldModelConfig, init
from pipeline.report.curves import compare_seeds, learning_curve, losses_picture, mean_and_spread
from pipeline.report.dream import SAMPLES, dream, spread_out
from pipeline.report.frames import frame_strip, write_gif
from pipeline.report.pictures import PANELS, choose_panels, imagined_against_real
from pipeline.report.recording import Recording, record_episode, shrink
from pipeline.report.tables import (
    RESAMPLES,
    bootstrap_means,
    summarise,
    write_bytes,
    write_csv,
    write_json,
)

CPU = torch.device("cpu")


class Blind(Counter):
    def __init__(self, render_mode=None, **options):
        super().__init__(**options)


class Loud(Counter):
    def render(self):
        return np.zeros((4, 4), np.float32)


gym.register("Blind-v0", Blind)
gym.register("Loud-v0", Loud)


def env_config(options="", name="counter_env:Counter-v0", **changes):
    values = {
        "num_envs": 3,
        "action_repeat": 1,
        "active_modalities": "all",
        "optional_modalities": (),
        "modalities": {},
    }
    return EnvConfig(id=f"{name}?{options}" if options else name, **values | changes)


def small_model(spec):
    config = WorldModelConfig(
        size="tiny",
        kl_scale=1.0,
        free_nats=1.0,
        recon_scale=1.0,
        modality_scales={},
        reward_scale=1.0,
        reward_outscale=0.0,
        cont_scale=1.0,
        discount_horizon=100.0,
        world_lr=1e-3,
        fusion="attention",
        modality_dropout=0.0,
        embed_dim="auto",
        text=TextConfig(model="own", finetune=False, tokenizer="own"),
        audio=AudioConfig(features="waveform", rate="auto", bins=32),
    )
    return MultimodalWorldModel(spec, config, 0)


def agent_for(config):
    env = VectorEnv(config, 0)
    env.close()
    model = small_model(env.spec)
    return model, Actor(model.feat_dim, 8, env.spec.action, init(0, "actor"))


def record(config, **changes):
    model, actor = agent_for(config)
    settings = {"seed": 3, "choice": "sample", "max_steps": 100} | changes
    return model, record_episode(model, actor, config, **settings)


def made_up(spec, steps, rng):
    """A recording of random numbers."""
    draw = {
        "vector": lambda one: rng.normal(size=(steps, *one.shape)).astype(np.float32),
        "image": lambda one: rng.integers(256, size=(steps, *one.shape)).astype(np.uint8),
        "categorical": lambda one: rng.integers(one.classes, size=(steps, 1)).astype(np.int32),
    }
    marks = np.zeros((3, steps), bool)
    marks[0, 0] = True
    return Recording(
        spec=spec,
        obs={key: draw[one.kind](one) for key, one in spec.obs.items()},
        # The model bounds actions to [-1, 1]; these stay inside when 1 is added.
        action=rng.uniform(-1.0, 0.0, (steps, spec.action.dim)).astype(np.float32),
        reward=rng.normal(size=steps).astype(np.float32),
        is_first=marks[0],
        is_last=marks[1],
        is_terminal=marks[2],
        frames=None,
    )


MIXED = EnvSpec(
    {
        "camera": ObsSpec(shape=(12, 8, 3), dtype="uint8", kind="image"),
        "class": ObsSpec(shape=(1,), dtype="int32", kind="categorical", classes=4),
        "state": ObsSpec(shape=(2, 7), dtype="float32", kind="vector"),
    },
    ActionSpec(kind="continuous", sizes=(2,)),
)


# Tables ---------------------------------------------------------------------------------------


def test_csv_has_all_columns_in_order_of_appearance(tmp_path):
    rows = [
        {"step": 1, "b": 0.1},
        {"step": np.int64(2), "a": np.float32(0.5)},
        {"step": True, "b": 1e-300, "a": math.inf},
    ]
    write_csv(tmp_path / "new" / "t.csv", rows)
    assert (tmp_path / "new" / "t.csv").read_bytes() == (
        b"step,b,a\n1,0.1,\n2,,0.5\n1,1e-300,inf\n"
    )


def test_csv_gives_the_same_floats_back(tmp_path, rng):
    values = rng.normal(size=50).tolist()
    write_csv(tmp_path / "t.csv", [{"x, y": value} for value in values])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [float(row["x, y"]) for row in csv.DictReader(file)] == values


def test_csv_of_nothing_is_empty(tmp_path):
    write_csv(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_bytes() == b""


def test_json_is_sorted_and_takes_numpy_numbers(tmp_path):
    write_json(tmp_path / "t.json", {"b": np.float64(0.5), "a": [np.int32(1), None, "x"]})
    text = (tmp_path / "t.json").read_text()
    assert text == '{\n  "a": [\n    1,\n    null,\n    "x"\n  ],\n  "b": 0.5\n}\n'


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("-inf")])
def test_json_refuses_what_is_not_a_number_by_name(tmp_path, bad):
    with pytest.raises(DreamerError, match=r"^last\.episode/return\[1\]: found (nan|-?inf)"):
        write_json(tmp_path / "t.json", {"last": {"episode/return": [1.0, bad]}})
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "f"
    write_bytes(target, b"old")
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: cannot be written"):
        write_bytes(tmp_path / "folder", b"new")
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes(target / "below", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "folder"]


def test_summary_of_known_episodes():
    figures = summarise([1.0, 2.0, 6.0], [10, 20, 60], seed=1)
    low, high = figures.pop("episode/return_ci_low"), figures.pop("episode/return_ci_high")
    assert figures == {
        "episode/return": 3.0,
        "episode/return_std": pytest.approx(math.sqrt(7.0)),
        "episode/return_min": 1.0,
        "episode/return_max": 6.0,
        "episode/length": 30.0,
        "episode/count": 3,
    }
    # Of 27 equally likely resamples the least mean is 1 and the second 4/3, three times: 1/27 is
    # above 2.5 percent, so the lower bound is 1, and by the same count the upper bound is 6.
    assert (low, high) == (1.0, 6.0)


def test_summary_of_one_episode_and_of_none():
    figures = summarise([5.0], [3], seed=0)
    assert figures["episode/return_std"] == 0.0
    assert figures["episode/return_ci_low"] == figures["episode/return_ci_high"] == 5.0
    with pytest.raises(DataError, match="found 0 returns"):
        summarise([], [], seed=0)
    with pytest.raises(DataError, match="2 returns and 1 lengths"):
        summarise([1.0, 2.0], [1], seed=0)


def test_bootstrap_agrees_with_the_central_limit(rng):
    values = rng.normal(100.0, 15.0, size=400)  # large enough to be drawn in several parts
    means = bootstrap_means(values, seed=5)
    error = values.std() / math.sqrt(len(values))
    assert len(means) == RESAMPLES
    assert means.std() == pytest.approx(error, rel=0.03)
    figures = summarise(values.tolist(), [1] * 400, seed=5)
    assert figures["episode/return_ci_low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.1)
    assert figures["episode/return_ci_high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.1)
    assert figures == summarise(values.tolist(), [1] * 400, seed=5)
    assert figures != summarise(values.tolist(), [1] * 400, seed=6)


# Curves ---------------------------------------------------------------------------------------

HISTORY = [
    {"env_step": 100 * i, "update": 10 * i, "episode/return": 2.0 * i, "world/loss": 10.0**-i}
    for i in range(1, 6)
] + [{"env_step": 100 * i, "update": 10 * i, "validation/return": 3.0 * i} for i in (2, 4)]


def pictures_of(folder, model, recording):
    curve = [(100.0, 1.0), (300.0, 5.0)]
    learning_curve(folder / "learning.png", HISTORY)
    losses_picture(folder / "losses.png", HISTORY)
    compare_seeds(folder / "seeds.png", {"a": curve, "b": [(200.0, 2.0), (400.0, 3.0)]}, "t", 0.5)
    imagined_against_real(folder / "imagined.png", model, recording, noise=Noise(0, CPU))
    frame_strip(folder / "frames.png", recording)
    write_gif(folder / "episode.gif", recording.frames, 30)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_input_gives_the_same_bytes(tmp_path):
    import matplotlib as mpl

    model, recording = record(env_config("length=9&keys=count,choice,image"))
    first = pictures_of(tmp_path / "a", model, recording)
    with mpl.rc_context({"figure.dpi": 40, "lines.linewidth": 9, "font.size": 30}):
        second = pictures_of(tmp_path / "b", model, recording)
    assert len(first) == 6
    assert first == second
    for path in (tmp_path / "a").glob("*.png"):
        with Image.open(path) as image:
            assert image.info.keys() <= {"dpi"}  # no time, no library's name


def colours(path):
    with Image.open(path) as image:
        return {
            f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in image.convert("RGB").getcolors(1 << 20)
        }


def test_the_learning_curve_shows_what_was_measured(tmp_path):
    blue, orange = "#0072B2", "#E69F00"
    learning_curve(tmp_path / "both.png", HISTORY)
    learning_curve(tmp_path / "training.png", HISTORY[:5])
    learning_curve(tmp_path / "single.png", HISTORY[5:6])
    learning_curve(tmp_path / "none.png", [{"env_step": 1, "world/loss": 1.0}])
    shown = {p.stem: colours(p) & {blue, orange} for p in tmp_path.iterdir()}
    assert shown == {
        "both": {blue, orange},
        "training": {orange},
        "single": {blue},
        "none": set(),
    }


def test_pictures_of_little_are_drawn_without_complaint(tmp_path):
    losses_picture(tmp_path / "none.png", [])
    losses_picture(tmp_path / "one.png", [{"update": 1, "world/loss": 1.0, "world/new": -1.0}])
    compare_seeds(tmp_path / "no_seed.png", {}, "nothing")
    compare_seeds(tmp_path / "one_seed.png", {"0": [(1.0, 2.0)], "1": []}, "one")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 4


def test_mean_and_spread_of_curves_with_different_steps():
    first = np.array([[0.0, 0.0], [4.0, 4.0]])
    second = np.array([[1.0, 3.0], [3.0, 3.0], [9.0, 0.0]])
    steps, mean, spread = mean_and_spread([first, second])
    # Both are defined from 1 to 4; there the first is the diagonal, the second 3, 3 and 2.5.
    assert steps.tolist() == [1.0, 3.0, 4.0]
    assert mean.tolist() == [2.0, 3.0, 3.25]
    assert spread == pytest.approx(np.array([2.0, 0.0, 1.5]) / math.sqrt(2.0))


def test_matplotlib_waits_until_something_is_drawn():
    code = (
        "import sys, pipeline.report.pictures, pipeline.report.curves;"
        "sys.exit('matplotlib' in sys.modules or 'PIL.Image' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Recordings -----------------------------------------------------------------------------------


def test_a_recording_holds_the_episode_row_by_row():
    _, recording = record(env_config("length=5&keys=count,image&end=truncated"))
    assert len(recording) == 6
    assert recording.length == 5
    assert recording.obs["count"].ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert recording.obs["image"].dtype == np.uint8
    assert recording.is_first.tolist() == [True] + 5 * [False]
    assert recording.is_last.tolist() == 5 * [False] + [True]
    assert not recording.is_terminal.any()
    assert recording.action[:-1].sum(1).tolist() == 5 * [1.0]
    assert not recording.action[-1].any()
    # The environment pays t + action / 16 for the action of the row before.
    paid = np.arange(1, 6) + recording.action[:-1].argmax(1) / 16
    assert recording.reward.tolist() == [0.0, *paid]
    assert recording.ret == paid.sum()
    assert recording.frames.shape == (6, 8, 6, 3)
    assert recording.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_recording_is_the_episode_that_an_evaluation_plays():
    config = env_config("length=30", num_envs=1)
    model, actor = agent_for(config)
    played = play_episodes(model, actor, config, episodes=1, seed=3, choice="sample")
    recording = record_episode(model, actor, config, seed=3, choice="sample", max_steps=99)
    assert recording.length == played[0].length
    assert recording.ret == pytest.approx(played[0].ret)
    other = record_episode(model, actor, config, seed=4, choice="sample", max_steps=99)
    assert not np.array_equal(other.action, recording.action)


def test_a_recording_stops_at_the_step_it_was_told():
    _, recording = record(env_config("length=50"), max_steps=4, choice="mode")
    assert recording.length == 4
    assert not recording.is_last.any()
    assert recording.action[-1].any()


@pytest.mark.parametrize("name", ["Blind-v0", "Loud-v0"])
def test_an_environment_that_cannot_draw_is_recorded_without_frames(caplog, tmp_path, name):
    _, recording = record(env_config("length=3", name))
    assert recording.frames is None
    assert recording.obs["count"].ravel().tolist() == [0, 1, 2, 3]
    assert f"no frames of the episode: {name}" in caplog.text
    with pytest.raises(DataError, match="without"):
        frame_strip(tmp_path / "f.png", recording)


def test_a_broken_environment_is_not_taken_for_a_blind_one():
    with pytest.raises(EnvError, match="NaN"):
        record(env_config("length=5&fault=nan"))


def test_rendering_does_not_change_the_rows_and_must_be_asked_for(rng):
    config = env_config("length=4&keys=every")
    plain, drawn = VectorEnv(config, 1), VectorEnv(config, 1, render=True)
    with pytest.raises(ValueError, match="after reset"):
        drawn.render()
    rows = [(plain.reset(), drawn.reset())]
    with pytest.raises(ValueError, match="render=True"):
        plain.render()
    for step in range(1, 8):
        action = rng.normal(size=(3, 3)).astype(np.float32)
        rows.append((plain.step(action), drawn.step(action)))
        assert [frame[0, 0, 0] for frame in drawn.render()] == 3 * [step % 5]
    for one, other in rows:
        assert all(np.array_equal(one[key], other[key]) for key in one)
    drawn.load_state_dict(plain.state_dict())
    assert len(drawn.render()) == 3  # also after a resume


def test_large_frames_shrink_by_block_means(rng):
    frame = rng.integers(256, size=(400, 600, 3)).astype(np.uint8)
    small = shrink(frame)
    assert small.shape == (200, 300, 3)
    means = frame.reshape(200, 2, 300, 2, 3).mean((1, 3))
    assert np.abs(small - means).max() <= 0.5
    assert np.array_equal(shrink(frame[:320, :320]), frame[:320, :320])
    assert shrink(frame[:, :1]).shape == (200, 1, 3)


# Imagination ----------------------------------------------------------------------------------


def changed(recording, key, row):
    """The same recording with one row of an observation or of the actions changed."""
    values = (recording.action if key == "action" else recording.obs[key]).copy()
    values[row] = values[row] + (1 if values.dtype == np.float32 else 7)
    if key == "action":
        return dataclasses.replace(recording, action=values)
    return dataclasses.replace(recording, obs=recording.obs | {key: values})


@pytest.fixture
def mixed(rng):
    return small_model(MIXED), made_up(MIXED, 12, rng)


def dream_of(model, recording, context=4, horizon=6):
    return dream(model, recording, Noise(1, CPU), context, horizon)


def test_a_dream_sees_the_context_and_nothing_after_it(mixed):
    model, recording = mixed
    window = dream_of(model, recording)
    assert window.context == 4
    assert {key: value.shape for key, value in window.imagined.items()} == {
        "camera": (SAMPLES, 10, 12, 8, 3),
        "class": (SAMPLES, 10, 1),
        "state": (SAMPLES, 10, 2, 7),
        "reward": (SAMPLES, 10),
    }
    assert np.array_equal(window.truth["state"], recording.obs["state"][:10])
    assert np.array_equal(window.truth["reward"], recording.reward[:10])
    later = dream_of(model, changed(recording, "state", 4)).imagined["state"]
    assert np.array_equal(later, window.imagined["state"])
    seen = dream_of(model, changed(recording, "state", 3)).imagined["state"]
    differs = (seen != window.imagined["state"]).any((0, 2, 3))
    assert not differs[:3].any()
    assert differs[3:].any()


@pytest.mark.parametrize("row", [0, 2, 3, 7, 8])
def test_an_action_shows_from_the_row_that_it_led_to(mixed, row):
    model, recording = mixed
    window = dream_of(model, recording).imagined["state"]
    other = dream_of(model, changed(recording, "action", row)).imagined["state"]
    first = int(np.argmax((window != other).any((0, 2, 3))))
    assert first == row + 1


def test_a_dream_equals_stepping_the_model_by_hand(mixed):
    model, recording = mixed
    noise, groups = Noise(1, CPU), model.rssm.size.groups
    seen = noise.uniform("picture/seen", 0, (4, SAMPLES, groups))
    ahead = noise.uniform("picture/imagined", 0, (6, SAMPLES, groups))
    state, action = model.rssm.initial(SAMPLES), torch.zeros(SAMPLES, 2)
    decoded = []
    with torch.no_grad():
        for t in range(10):
            if t < 4:
                obs = {
                    key: torch.from_numpy(np.repeat(value[t : t + 1], SAMPLES, 0))
                    for key, value in recording.obs.items()
                }
                first = torch.full((SAMPLES,), t == 0)
                state = model.observe_step(obs, state, action, first, seen[t])
            else:
                flat = model.feat(state)[:, model.rssm.size.deter :]
                deter, stoch = model.rssm.imagine_step(state.deter, flat, action, ahead[t - 4])
                state = model.rssm.latent(deter, stoch)
            decoded.append(model.decode(model.feat(state))["state"].numpy())
            action = torch.from_numpy(recording.action[t]).expand(SAMPLES, -1)
    window = dream_of(model, recording).imagined["state"]
    np.testing.assert_allclose(window, np.stack(decoded, 1), rtol=1e-4, atol=1e-5)
    assert (window[0] != window[1]).any()  # futures differ


@pytest.mark.parametrize(
    ("rows", "context", "steps"), [(2, 1, 2), (3, 1, 3), (8, 4, 8), (9, 4, 9), (12, 5, 12)]
)
def test_context_and_horizon_shrink_with_the_episode(rng, tmp_path, rows, context, steps):
    spec = EnvSpec({"state": MIXED.obs["state"]}, MIXED.action)
    model, recording = small_model(spec), made_up(spec, rows, rng)
    window = dream_of(model, recording, context=5, horizon=45)
    assert window.context == context
    assert len(window.truth["reward"]) == steps
    with pytest.raises(DataError, match="found 1 rows"):
        dream_of(model, made_up(spec, 1, rng))


def test_a_picture_of_every_modality_and_of_two_rows(rng, tmp_path):
    model, recording = small_model(MIXED), made_up(MIXED, 2, rng)
    imagined_against_real(tmp_path / "p.png", model, recording, noise=Noise(0, CPU))
    with Image.open(tmp_path / "p.png") as image:
        assert image.width == 1320


def test_panels_are_those_that_vary_most(rng):
    steps = np.arange(6, dtype=np.float32)
    state = np.zeros((6, 2, 7), np.float32)
    busy = [0, 3, 4, 5, 6, 7, 9, 10, 12, 13]
    state.reshape(6, -1)[:, busy] = steps[:, None]
    state[:, 0, 1] = 0.1 * steps  # index 1 varies least of those that vary
    state[:, 1, 1] = 0.2 * steps  # index 8
    truth = {"state": state, "class": np.zeros((6, 1), np.int32)}
    panels, dropped = choose_panels(MIXED, truth)
    assert panels == [*(("state", i) for i in sorted([*busy, 8])), ("reward", 0)]
    assert len(panels) == PANELS + 1
    assert dropped == 4
    truth["class"][3] = 2
    assert choose_panels(MIXED, truth)[0][0] == ("class", 0)


def test_moments_are_spread_out_and_include_both_ends():
    assert spread_out(4, 49, 10) == [4, 9, 14, 19, 24, 29, 34, 39, 44, 49]
    assert spread_out(0, 3, 12) == [0, 1, 2, 3]
    assert spread_out(5, 5, 12) == [5]


# Frames ---------------------------------------------------------------------------------------


def test_the_frame_strip_shows_first_and_last_frame(tmp_path, rng):
    frames = np.full((40, 10, 10, 3), 128, np.uint8)
    frames[0], frames[39], frames[1] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    recording = dataclasses.replace(made_up(MIXED, 40, rng), frames=frames)
    frame_strip(tmp_path / "f.png", recording)
    shown = colours(tmp_path / "f.png")
    assert {"#FF0000", "#00FF00", "#808080"} <= shown
    assert "#0000FF" not in shown


def test_a_gif_holds_every_frame(tmp_path):
    frames = np.zeros((5, 12, 16, 3), np.uint8)
    for i in range(5):
        frames[i, :, : 3 * i] = 255
    write_gif(tmp_path / "e.gif", frames, 25)
    with Image.open(tmp_path / "e.gif") as image:
        assert image.n_frames == 5
        assert image.info["duration"] == 40
        assert image.info["loop"] == 0
        for i in range(5):
            image.seek(i)
            assert np.array_equal(np.asarray(image.convert("RGB")), frames[i])


def test_figures_of_an_evaluation_round_trip_through_json(tmp_path):
    figures = summarise([1.0, 2.0], [1, 2], seed=0)
    write_json(tmp_path / "m.json", figures)
    assert json.loads((tmp_path / "m.json").read_text()) == figures
