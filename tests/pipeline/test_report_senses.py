"""Pictures of every modality: what they show is right, and they are the same bytes again."""

import dataclasses

import numpy as np
import pytest
import torch
from builders import (
    CPU,
    audio,
    categorical,
    grid,
    image,
    policy_config,
    random_action,
    random_obs,
    text,
    vector_spec,
    world_config,
)
from PIL import Image

from dreamer.intrinsic.rewards import make_behavior
from dreamer.nn.noise import Noise
from dreamer.types import EnvSpec, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.canvas import BLUE, COLOURS, GREEN
from pipeline.report.dream import Dream, dream
from pipeline.report.goals import goals_picture
from pipeline.report.grids import cell_colours, layers, occurring
from pipeline.report.listening import attention_picture, listen, relative, shares_of
from pipeline.report.pictures import imagined_against_real
from pipeline.report.pursuit import Pursuit
from pipeline.report.recording import Recording
from pipeline.report.sounds import spectrogram
from pipeline.report.strips import difference, moments
from pipeline.report.texts import ACROSS, Stretch, marked, read, share_right, stretches, wrap

FLAG = ObsSpec(shape=(1,), dtype="uint8", kind="flag")
SENSES = {
    "camera": image(8, 6),
    "class": categorical(1, classes=3),
    "room": grid(4, 3, 5, 14),
    "said": text(24),
    "sound": audio(64),
}
ALL = vector_spec(2, discrete=(2,), **SENSES)
GAPS = {"present/camera": FLAG, "present/said": FLAG, "present/sound": FLAG, "present/v0": FLAG}
FAILING = EnvSpec(dict(sorted({**ALL.obs, **GAPS}.items())), ALL.action)


def model_of(spec, **changes):
    return MultimodalWorldModel(spec, world_config(**changes), 0)


def stirred(spec):
    """As after some training: what is heard changes something."""
    model = model_of(spec)
    with torch.no_grad():
        for linear in model.fusion.leave.values():
            linear.weight.normal_(generator=torch.Generator().manual_seed(5))
    return model


def recording_of(spec, steps):
    obs = {key: value.numpy() for key, value in random_obs(spec, (steps,)).items()}
    for key in obs:
        if spec.obs[key].kind == "flag":
            obs[key] = (np.arange(steps)[:, None] % 3 > 0).astype(np.uint8)
    marks = np.zeros((3, steps), np.bool_)
    marks[0, 0] = True
    return Recording(
        spec=spec,
        obs=obs,
        action=random_action(spec, (steps,)).numpy(),
        reward=np.arange(steps, dtype=np.float32),
        is_first=marks[0],
        is_last=marks[1],
        is_terminal=marks[2],
        frames=None,
    )


def window_of(key, values, *, imagined=None, reconstructed=None, context=2, there=None):
    """A dream of one key that is right unless told otherwise."""
    steps = len(values)
    return Dream(
        {key: values, "reward": np.zeros(steps)},
        {key: values if reconstructed is None else reconstructed},
        {key: (values if imagined is None else imagined)[None]},
        {} if there is None else {key: np.array(there)},
        context,
    )


def colours(path):
    with Image.open(path) as picture:
        found = picture.convert("RGB").getcolors(1 << 20)
        return {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in found}


def said(*texts, room=24):
    return np.array([list(t.encode().ljust(room, b"\0")) for t in texts], np.uint8)


# What the model makes of it ---------------------------------------------------------------------


def test_a_reconstruction_sees_its_row_and_those_before():
    model, recording = model_of(ALL), recording_of(ALL, 9)
    window = dream(model, recording, Noise(1, CPU), 3, 6)
    assert {key: value.shape for key, value in window.reconstructed.items()} == {
        "camera": (9, 8, 6, 3),
        "class": (9, 1),
        "room": (9, 4, 3, 2),
        "said": (9, 24),
        "sound": (9, 64),
        "v0": (9, 2),
        "reward": (9,),
    }
    changed = recording.obs["v0"].copy()
    changed[5] += 30.0
    later = dataclasses.replace(recording, obs=recording.obs | {"v0": changed})
    other = dream(model, later, Noise(1, CPU), 3, 6)
    differs = (window.reconstructed["v0"] != other.reconstructed["v0"]).any(1)
    assert not differs[:5].any()
    assert differs[5]
    assert all(np.array_equal(window.imagined[key], other.imagined[key]) for key in window.imagined)


def test_a_reconstruction_is_the_posterior_decoded():
    model, recording = model_of(ALL), recording_of(ALL, 6)
    groups, state, action = model.rssm.size.groups, model.rssm.initial(1), torch.zeros(1, 2)
    draws = Noise(1, CPU).uniform("picture/reconstructed", 0, (6, 1, groups))
    expected = []
    with torch.no_grad():
        for t in range(6):
            obs = {key: torch.from_numpy(value[t : t + 1]) for key, value in recording.obs.items()}
            state = model.observe_step(obs, state, action, torch.tensor([t == 0]), draws[t])
            expected.append(model.decode(model.feat(state))["v0"][0].numpy())
            action = torch.from_numpy(recording.action[t : t + 1])
    found = dream(model, recording, Noise(1, CPU), 3, 3).reconstructed["v0"]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-5)


def test_flags_are_not_predicted_but_say_what_was_missing():
    window = dream(model_of(FAILING), recording_of(FAILING, 7), Noise(1, CPU), 3, 4)
    assert window.truth.keys() == ALL.obs.keys() | {"reward"}
    assert window.missing("sound").tolist() == [True, False, False, True, False, False, True]
    assert not window.missing("class").any()


# Images -----------------------------------------------------------------------------------------


def test_a_blank_image_gives_way_to_the_nearest_that_shows_something():
    images = np.zeros((20, 4, 4, 3), np.uint8)
    assert moments(window_of("a", images), "a") == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    images[::3, 0] = 9
    # Every third row shows something, and no row that is shown is further than one from such a row.
    assert moments(window_of("a", images), "a") == [0, 3, 6, 9, 12, 15, 18]
    images[:] = np.arange(48).reshape(4, 4, 3)
    assert moments(window_of("a", images), "a") == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]


def test_the_difference_is_a_share_of_the_range():
    black, other = np.zeros((1, 1, 2, 3), np.uint8), np.zeros((1, 1, 2, 3), np.uint8)
    other[0, 0, 1] = 255, 0, 0
    assert difference(black, other).tolist() == [[[0.0, pytest.approx(1 / 3)]]]
    assert np.array_equal(difference(other, black), difference(black, other))


# Grids ------------------------------------------------------------------------------------------


def test_layers_in_which_nothing_is_to_be_told_apart_are_left_out():
    room, other = np.zeros((4, 2, 2, 3), np.uint8), np.zeros((4, 2, 2, 3), np.uint8)
    room[..., 0] = 2
    assert [each.layer for each in layers(window_of("r", room), "r", grid(2, 2, 3, 4, 5))] == [0]
    other[..., 0] = 2
    other[3, 1, 0, 2] = 4  # imagined alone
    (cells,) = layers(window_of("r", room, imagined=other), "r", grid(2, 2, 3, 4, 5))
    assert (cells.layer, cells.classes, occurring(cells)) == (2, 5, [0, 4])
    assert np.array_equal(cells.imagined, other[..., 2])
    assert np.array_equal(cells.real, room[..., 2])


@pytest.mark.parametrize("classes", [1, 12, 13, 14, 40])
def test_classes_of_cells_have_colours_of_their_own(classes):
    found = cell_colours(classes)
    assert found.shape == (classes, 3)
    assert len(np.unique(found, axis=0)) == classes


# Sounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pitch", "rate"), [(1000.0, 8000), (3000.0, 16000)])
def test_a_tone_is_where_its_frequency_is_and_when_it_sounds(pitch, rate):
    spec = dataclasses.replace(audio(256), rate=rate)
    waves = np.zeros((3, 256), np.float32)
    waves[1] = 0.5 * np.sin(2 * np.pi * pitch / rate * np.arange(256))
    shown = spectrogram(waves, spec)
    assert shown.top == rate / 2
    bins, frames = shown.loudness.shape
    frequencies = np.linspace(0, shown.top, bins)
    quiet, tone, after = np.split(shown.loudness, 3, axis=1)
    assert frames % 3 == 0
    assert (frequencies[tone.argmax(0)] == pitch).all()
    np.testing.assert_allclose(tone.max(0), np.log1p(50.0), rtol=1e-3)
    assert not quiet.any()
    assert not after.any()


def test_a_sound_of_unknown_rate_is_drawn_in_cycles_and_bytes_as_waves():
    spec = dataclasses.replace(audio(64, "uint8"), rate=0)
    silence = spectrogram(np.full((2, 64), 128, np.uint8), spec)
    assert silence.top == 0.5
    assert not silence.loudness.any()


# Texts ------------------------------------------------------------------------------------------


def test_words_are_right_at_their_place():
    assert marked("pick the red", "pick the red") == [("pick", True), ("the", True), ("red", True)]
    assert marked("pick red", "pick the red") == [("pick", True), ("red", False), ("_", False)]
    assert marked("pick it up", "pick it") == [("pick", True), ("it", True), ("up", False)]
    assert marked("", "") == [("(nothing)", True)]
    assert marked("", "pick") == [("(nothing)", False)]
    assert marked("go", "(missing)") == [("go", True)]
    assert marked("", "(missing)") == [("(nothing)", True)]


def test_the_share_of_right_words_counts_ends():
    assert share_right(said("a b", ""), said("a b", "")) == 1.0
    assert share_right(said("a c"), said("a b")) == pytest.approx(2 / 3)
    assert share_right(said("a"), said("a b")) == pytest.approx(1 / 3)  # neither b nor the end
    assert share_right(said(""), said("a")) == 0.0


def test_what_has_no_letter_is_a_box():
    assert read(np.frombuffer(b"a\n\xff$b\0\0", np.uint8)) == "a\u25a1\u25a1$b"
    assert read(np.frombuffer("gr\u00fcn".encode(), np.uint8)) == "gr\u00fcn"


def test_stretches_end_where_something_changes_and_with_the_context():
    real = said("a", "a", "a", "a", "b")
    other = said("a", "a", "a", "c", "b")
    window = window_of("said", real, imagined=other, there=[True] * 4 + [False])
    assert stretches(window, "said") == [
        Stretch(0, 1, ("a", "a", "a")),
        Stretch(2, 2, ("a", "a", "a")),
        Stretch(3, 3, ("a", "a", "c")),
        Stretch(4, 4, ("(missing)", "b", "b")),
    ]


def test_words_that_do_not_fit_go_to_the_next_line():
    long = "x" * (ACROSS + 5)
    words = [("ab", True), ("y" * (ACROSS - 3), True), ("z", False), (long, True)]
    placed = wrap(words)
    assert [(each.line, each.glyph) for each in placed] == [(0, 0), (0, 3), (1, 0), (2, 0)]
    assert [each.right for each in placed] == [True, True, False, True]
    assert len(placed[3].word) == ACROSS
    assert placed[3].word.endswith("\u2026")


# Attention --------------------------------------------------------------------------------------


def test_shares_are_sums_over_the_heard_and_means_over_the_listening():
    weights = torch.rand(2, 1, 3, 6, 6, generator=torch.Generator().manual_seed(1)).softmax(-1)
    found = shares_of(weights, (2, 1, 3))
    edges = [0, 2, 3, 6]
    for row in range(2):
        for i in range(3):
            for j in range(3):
                part = weights[row, 0, :, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
                assert float(found[row, i, j]) == pytest.approx(float(part.sum(-1).mean()))
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))
    alike = shares_of(torch.full((1, 1, 1, 6, 6), 1 / 6), (2, 1, 3))
    torch.testing.assert_close(alike[0], torch.tensor([[2.0, 1.0, 3.0]]).expand(3, -1) / 6)


def test_an_episode_is_listened_to_row_by_row_whatever_its_length():
    model, recording = stirred(ALL), recording_of(ALL, 70)
    heard = listen(model, model.fusion, recording)
    assert heard.senses == ("audio", "grid", "image", "text", "vector")
    assert heard.shares.shape == (70, 5, 5)
    np.testing.assert_allclose(heard.shares.sum(-1), 1.0, rtol=1e-5)
    last = {key: torch.from_numpy(value[69:]) for key, value in recording.obs.items()}
    with torch.no_grad():
        parts = {name: encoder(last) for name, encoder in model.encoders.items()}
    expected = shares_of(model.fusion.weights(parts), heard.tokens)[0]
    np.testing.assert_allclose(heard.shares[69], expected.numpy(), rtol=1e-4, atol=1e-6)


def test_what_attention_adds_is_measured_against_the_code():
    plain = torch.cat([torch.full((5, w.tokens * w.width), 2.0) for w in fusion().values()], -1)
    added = plain.clone()
    width = next(iter(fusion().values()))
    added[:, : width.tokens * width.width] = 1.0
    found = relative(added, plain, model_of(ALL).fusion)
    torch.testing.assert_close(found, torch.tensor([0.5, 1.0, 1.0, 1.0, 1.0]))
    untrained = model_of(ALL)
    assert not listen(untrained, untrained.fusion, recording_of(ALL, 4)).effect.any()
    model = stirred(ALL)
    assert (listen(model, model.fusion, recording_of(ALL, 4)).effect > 0.1).all()


def fusion():
    return model_of(ALL).fusion.senses


def test_what_was_missing_is_not_listened_to():
    model, recording = stirred(FAILING), recording_of(FAILING, 6)
    recording.obs["present/v0"][:] = 1
    recording.obs["present/camera"][:] = 1
    heard = listen(model, model.fusion, recording)
    absent = np.array([True, False, False, True, False, False])
    for name in ("audio", "text"):
        share = heard.shares[:, :, heard.senses.index(name)]
        assert not share[absent].any()
        assert (share[~absent] > 0).all()
    np.testing.assert_allclose(heard.shares.sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "fusion"), [(vector_spec(2, discrete=(2,)), "attention"), (ALL, "concat")]
)
def test_where_nothing_attends_the_picture_says_so(tmp_path, spec, fusion):
    attention_picture(tmp_path / "a.png", model_of(spec, fusion=fusion), recording_of(spec, 5))
    assert not colours(tmp_path / "a.png") & set(COLOURS)


# Drawn ------------------------------------------------------------------------------------------


def test_all_is_drawn_with_the_same_bytes_again(tmp_path):
    recording, model = recording_of(FAILING, 13), stirred(FAILING)
    recording.obs["said"][3] = said("$a$ _b^ \u6f22 \x07")[0]
    for name in "ab":
        imagined_against_real(tmp_path / f"i{name}.png", model, recording, noise=Noise(0, CPU))
        attention_picture(tmp_path / f"l{name}.png", model, recording)
    for kind in "il":
        one, other = (tmp_path / f"{kind}{name}.png" for name in "ab")
        assert one.read_bytes() == other.read_bytes()
        with Image.open(one) as picture:
            assert picture.info.keys() <= {"dpi"}
            assert picture.width == 1320
    assert set(COLOURS[:5]) <= colours(tmp_path / "la.png")


@pytest.mark.parametrize("key", ["camera", "room", "said", "sound"])
def test_each_sense_alone_is_drawn(tmp_path, key):
    spec = EnvSpec({key: SENSES[key]}, ALL.action)
    recording, model = recording_of(spec, 2), model_of(spec)
    imagined_against_real(tmp_path / "i.png", model, recording, noise=Noise(0, CPU))
    assert {BLUE, GREEN} <= colours(tmp_path / "i.png")  # of the reward


def test_a_picture_of_curves_alone_has_no_reconstructions(tmp_path):
    spec = vector_spec(2, discrete=(2,))
    model, recording = model_of(spec), recording_of(spec, 9)
    imagined_against_real(tmp_path / "i.png", model, recording, noise=Noise(0, CPU))
    assert GREEN not in colours(tmp_path / "i.png")
    assert BLUE in colours(tmp_path / "i.png")


def test_goals_of_any_senses_are_drawn(tmp_path):
    model, recording = model_of(FAILING), recording_of(FAILING, 7)
    make_behavior(model, policy_config(hierarchy=True), None, 0)
    start, code = np.arange(0, 6, 3), np.zeros((2, 4), np.int64)
    goal = torch.zeros(2, model.rssm.size.deter)
    pursuit = Pursuit(start, code, 3, goal, np.zeros(6, np.float32))
    goals_picture(tmp_path / "g.png", model, recording, pursuit)
    assert BLUE in colours(tmp_path / "g.png")
