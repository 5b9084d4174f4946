"""Spaces to rows and action vectors back."""

import gymnasium as gym
import numpy as np
import pytest

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.spaces import codec_of, spec_of
from dreamer.envs.vector import VectorEnv
from dreamer.modalities import MODALITY_CONFIGS, ModalityConfig
from dreamer.modalities.vector import VectorDecoder, VectorEncoder
from dreamer.types import ActionSpec, EnvError, ObsSpec


def counter(options="", **kwargs):
    fields = {
        "num_envs": 2,
        "action_repeat": 1,
        "active_modalities": "all",
        "optional_modalities": (),
        "modalities": {},
    } | kwargs
    return EnvConfig(id=f"counter_env:Counter-v0?{options}", **fields)


def codec(options, active="all", modalities=None):
    config = counter(options, active_modalities=active, modalities=modalities or {})
    return codec_of(make_env(config), config.view)


def decode(action, vectors):
    return codec(f"action={action}").decode(np.array(vectors, np.float32))


def test_spec_of_every_dtype_is_sorted_and_exact():
    spec = codec("keys=every").spec
    vector = {"kind": "vector"}
    assert list(spec.obs.items()) == [
        ("bits", ObsSpec(shape=(3,), dtype="uint8", **vector)),
        ("bytes", ObsSpec(shape=(4,), dtype="uint8", **vector)),
        ("choice", ObsSpec(shape=(1,), dtype="int32", kind="categorical", classes=5)),
        ("choices", ObsSpec(shape=(5,), dtype="float32", **vector)),
        ("count", ObsSpec(shape=(1,), dtype="float32", **vector)),
        ("deep/audio", ObsSpec(shape=(4,), dtype="float32", kind="audio", rate=8000)),
        ("deep/inner", ObsSpec(shape=(2,), dtype="float32", **vector)),
        ("image", ObsSpec(shape=(8, 6, 3), dtype="uint8", kind="image")),
        ("ints", ObsSpec(shape=(2,), dtype="float32", **vector)),
        ("planes", ObsSpec(shape=(8, 6, 4), dtype="uint8", kind="image")),
        ("scalar", ObsSpec(shape=(1,), dtype="float32", **vector)),
        ("sound", ObsSpec(shape=(6,), dtype="uint8", kind="audio", rate=8000)),
        ("symbols", ObsSpec(shape=(2, 3, 2), dtype="uint8", kind="grid", layers=(4, 2))),
        ("table", ObsSpec(shape=(2, 3), dtype="uint8", **vector)),
        ("text", ObsSpec(shape=(16,), dtype="uint8", kind="text")),
        ("wide", ObsSpec(shape=(3,), dtype="float32", **vector)),
    ]


def test_rows_of_every_dtype_hold_the_known_values():
    env = VectorEnv(counter("keys=every&length=9"), seed=0)
    env.reset()
    action = np.zeros((2, 3), np.float32)
    env.step(action)
    rows = env.step(action)  # t = 2
    for key, spec in env.spec.obs.items():
        assert rows[key].dtype == spec.dtype
        assert rows[key].shape == (2, *spec.shape)
        assert rows[key].flags.c_contiguous
    np.testing.assert_array_equal(rows["count"], [[2], [2]])
    np.testing.assert_array_equal(rows["wide"][:, 1:], np.float32([[2 / 3, -2]] * 2))
    np.testing.assert_array_equal(rows["scalar"], np.float32([[2 / 7]] * 2))
    np.testing.assert_array_equal(rows["bytes"], np.full((2, 4), 2))
    np.testing.assert_array_equal(rows["ints"], [[2, -2]] * 2)
    np.testing.assert_array_equal(rows["image"], np.full((2, 8, 6, 3), 2))
    np.testing.assert_array_equal(rows["planes"][1, 3, 5], [0, 1, 2, 3])
    np.testing.assert_array_equal(rows["choice"], [[2], [2]])  # 4 less the start of 2
    np.testing.assert_array_equal(rows["choices"], [[1, 0, 0, 0, 1]] * 2)  # (0, 1 + 2)
    np.testing.assert_array_equal(rows["bits"], [[0, 1, 0]] * 2)
    np.testing.assert_array_equal(rows["symbols"][1], np.full((2, 3, 2), [2, 0]))
    assert rows["deep/inner"][0, 0] == 2
    np.testing.assert_array_equal(rows["deep/audio"], np.full((2, 4), 0.25, np.float32))
    np.testing.assert_array_equal(rows["text"], [[*b"ab", *[0] * 14]] * 2)


def test_text_is_utf8_and_a_sound_that_has_not_begun_is_silence():
    env = VectorEnv(counter("keys=text,sound&length=9"), seed=0)
    rows = [env.reset()] + [env.step(np.zeros((2, 3), np.float32)) for _ in range(3)]
    assert [bytes(row["text"][0]).rstrip(bytes(1)).decode() for row in rows] == [
        "",
        "a",
        "ab",
        "abü",
    ]
    assert [row["sound"][1, 0] for row in rows] == [128, 130, 130, 130]


class Words(gym.Space):
    """A space of texts that is none of Gymnasium's, as MiniGrid has."""

    def __init__(self):
        super().__init__(dtype=str)


class Speaker(gym.Env):
    observation_space, action_space = Words(), gym.spaces.Discrete(2)


class Shouting(gym.Env):
    observation_space = gym.spaces.Dict({"audio": gym.spaces.Box(-9.0, 9.0, (4,), np.float32)})
    action_space = gym.spaces.Discrete(2)


def test_words_of_other_spaces_are_texts_up_to_a_length():
    found = codec_of(Speaker())
    assert found.spec.obs == {"text": ObsSpec(shape=(256,), dtype="uint8", kind="text")}
    read = found.leaves[0].read
    assert bytes(read(["go"])[0, :3]) == b"go" + bytes(1)
    with pytest.raises(ValueError, match="of 257 bytes, allowed 256 without NUL"):
        read(["x" * 257])
    with pytest.raises(ValueError, match="without NUL"):
        read(["a" + chr(0)])
    with pytest.raises(TypeError, match="int instead of a text"):
        read([3])


def test_a_waveform_beyond_one_is_refused():
    with pytest.raises(EnvError, match="'audio' is a waveform in -9 to 9 instead of -1 to 1"):
        codec_of(Shouting())


@pytest.mark.parametrize("rate", ["8 kHz", -1, 0.5])
def test_a_rate_that_is_none_is_refused(monkeypatch, rate):
    monkeypatch.setattr(Speaker, "metadata", {"audio_rate": rate})
    with pytest.raises(
        EnvError, match=r"Speaker: metadata\['audio_rate'\] is .*; allowed: a whole"
    ):
        codec_of(Speaker())


@pytest.mark.parametrize(
    ("key", "name", "kind"),
    [
        ("count", "vector", "vector"),
        ("image", "image", "image"),
        ("choice", "vector", "categorical"),
    ],
)
def test_bare_observation_is_named_by_modality(key, name, kind):
    spec = codec(f"keys=%2B{key}".replace("%2B", "+")).spec
    assert {k: s.kind for k, s in spec.obs.items()} == {name: kind}


@pytest.mark.parametrize(
    ("active", "keys"),
    [
        ("all", ["count", "image", "planes", "wide"]),
        ("first", ["image"]),
        (("vector",), ["count", "wide"]),
        (("image",), ["image"]),  # the key of that name goes before the modality
        (("planes", "count"), ["count", "planes"]),
    ],
)
def test_active_modalities(active, keys):
    assert list(codec("keys=wide,planes,image,count", active).spec.obs) == keys


def test_first_without_images_and_vectors_takes_what_there_is():
    assert list(codec("keys=text,sound", "first").spec.obs) == ["sound", "text"]


def test_first_without_images_takes_all_vectors():
    assert list(codec("keys=wide,count,choice", "first").spec.obs) == ["choice", "count", "wide"]


@pytest.mark.parametrize("key", ["pair", "floats", "cells"])
def test_refused_observation_is_named_and_can_be_left_out(key):
    with pytest.raises(EnvError, match=f"Counter-v0: observation '{key}' is a .*allowed: Box"):
        codec(f"keys=count,{key}")
    with pytest.raises(EnvError, match=f"'{key}' is a"):
        codec(f"keys=count,{key}", (key,))
    assert list(codec(f"keys=count,{key}", "first").spec.obs) == ["count"]


def test_bare_refused_observation():
    with pytest.raises(EnvError, match="Tuple"):
        codec("keys=+pair")
    with pytest.raises(EnvError, match="has no observation"):
        codec("keys=+pair", "first")


def test_unknown_modality_lists_what_there_is():
    with pytest.raises(EnvError, match=r"names 'smell'; allowed: \['count', 'image', 'vector'\]"):
        codec("keys=count,image", ("smell",))


# Modalities by choice ---------------------------------------------------------------------------


FLOATS = ObsSpec(shape=(8, 8, 3), dtype="float32", kind="vector")
BYTES = {"dtype": "uint8", "kind": "vector"}


@pytest.mark.parametrize(
    ("key", "name", "spec"),
    [
        ("floats", "vector", FLOATS),
        ("image", "vector", ObsSpec(shape=(8, 6, 3), **BYTES)),
        ("sound", "vector", ObsSpec(shape=(6,), **BYTES)),
        ("bytes", "audio", ObsSpec(shape=(4,), dtype="uint8", kind="audio", rate=8000)),
        (
            "cells",
            "grid",
            ObsSpec(shape=(7, 7, 20), dtype="uint8", kind="grid", layers=(256,) * 20),
        ),
        ("symbols", "vector", ObsSpec(shape=(36,), dtype="float32", kind="vector")),
    ],
)
def test_another_modality_can_be_chosen(key, name, spec):
    assert codec(f"keys=count,{key}", modalities={key: name}).spec.obs[key] == spec


def own(name, **changes):
    values = {"name": name, "encoder_type": VectorEncoder, "decoder_type": VectorDecoder}
    return ModalityConfig(**values | changes)


def test_a_modality_that_is_not_built_in_goes_before_what_the_space_suggests(monkeypatch):
    for name in ("floats", "choice", "count"):
        monkeypatch.setitem(MODALITY_CONFIGS, name, own(name))
    found = codec("keys=floats,choice,count", modalities={"count": "vector"}).spec.obs
    assert found == {
        "choice": ObsSpec(shape=(1,), dtype="int32", kind="choice", classes=5),
        "count": ObsSpec(shape=(1,), dtype="float32", kind="vector"),
        "floats": ObsSpec(shape=(8, 8, 3), dtype="float32", kind="floats"),
    }
    # Importing the module of the environment is what enters the modality elsewhere.
    assert [spec.module for spec in found.values()] == ["counter_env", "", "counter_env"]
    assert list(codec("keys=floats,count", "first").spec.obs) == ["count", "floats"]
    assert list(codec("keys=floats,wide", ("floats",)).spec.obs) == ["floats"]


def test_one_of_another_name_or_module_can_be_chosen(monkeypatch):
    monkeypatch.setitem(MODALITY_CONFIGS, "skin", own("skin"))
    for chosen, module in (("skin", "counter_env"), ("builders:skin", "builders")):
        found = codec("keys=floats", modalities={"floats": chosen}).spec.obs["floats"]
        assert (found.kind, found.module) == ("skin", module)


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ({"smell": "vector"}, r"env.modalities: found \"a modality for 'smell'\"; .*'floats', 'im"),
        ({"image": "smell"}, r"'image': found 'counter_env:smell'; allowed: one of \['audio', "),
        ({"image": "no_such:skin"}, r"'image': found .no_such:skin \(No module named 'no_such'\)"),
        ({"image": "a b:skin"}, r"found .a b:skin \(No module"),
        (
            {"image": "builders:vector"},
            r"env.modalities.image: found 'builders:vector'; .*built in",
        ),
        ({"image": "text"}, r"'image' as text: found 'a Box of shape \(8, 6, 3\) and .*: a Text"),
        ({"image": "audio"}, r"'image' as audio: .*allowed: a Box \(samples,\) of uint8"),
        ({"floats": "image"}, r"'floats' as image: found 'a Box of shape .*a uint8 Box \(height"),
        ({"floats": "grid"}, r"'floats' as grid: .* and dtype float32'; allowed: a MultiDiscrete"),
        ({"image": "strict"}, r"'image' as strict: found 'a Box.* shape \(2,\) of float32, as"),
        ({"image": "lost"}, r"MODALITY_CONFIGS\['lost'\].name: found 'found'; allowed: lost"),
    ],
)
def test_a_choice_that_cannot_be_is_one_line(modalities, message, monkeypatch):
    strict = own("strict", input_shape=(2,), dtype="float32")
    monkeypatch.setitem(MODALITY_CONFIGS, "strict", strict)
    monkeypatch.setitem(MODALITY_CONFIGS, "lost", own("found"))
    with pytest.raises(EnvError, match=message) as caught:
        codec("keys=count,image,floats", "first", {"floats": "vector"} | modalities)
    assert str(caught.value).startswith("Counter-v0: ")
    assert "\n" not in str(caught.value)


def test_a_number_outside_a_grid_is_found():
    read = codec("keys=symbols").leaves[0].read
    cells = np.full((2, 3, 2), [4, 1])
    assert read([{"symbols": cells}]).max() == 3
    cells[1, 2, 1] = 2
    with pytest.raises(ValueError, match=r"2 in layer 1 of cell \(1, 2\)"):
        read([{"symbols": cells}])


def test_reserved_and_clashing_keys_are_refused():
    box = gym.spaces.Box(0, 1, (1,))
    env = make_env(counter())
    env.observation_space = gym.spaces.Dict({"reward": box})
    with pytest.raises(EnvError, match="'reward' is taken twice or reserved"):
        spec_of(env)
    env.observation_space = gym.spaces.Dict({"a/b": box, "a": gym.spaces.Dict({"b": box})})
    with pytest.raises(EnvError, match="'a/b' is taken twice"):
        spec_of(env)


def test_discrete_actions_and_their_offset():
    assert codec("action=shifted").spec.action == ActionSpec(kind="discrete", sizes=(3,))
    assert list(decode("discrete", np.eye(3))) == [0, 1, 2]
    assert list(decode("shifted", np.eye(3))) == [-1, 0, 1]


def test_multidiscrete_actions():
    assert codec("action=multi").spec.action == ActionSpec(kind="discrete", sizes=(2, 3, 4))
    one_hots = [[0, 1, 1, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(decode("multi", one_hots), [[1, 0, 3], [0, 2, 0]])


def test_nested_multidiscrete_and_binary_actions():
    assert codec("action=grid").spec.action.sizes == (2, 3, 4, 2)
    vector = [[0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0]]
    np.testing.assert_array_equal(decode("grid", vector), [[[1, 2], [1, 0]]])
    assert codec("action=binary").spec.action.sizes == (2, 2)
    binary = decode("binary", [[0, 1, 1, 0]])
    assert binary.dtype == np.int8
    np.testing.assert_array_equal(binary, [[1, 0]])


def test_box_actions_are_clipped_and_rescaled():
    assert codec("action=box").spec.action == ActionSpec(kind="continuous", sizes=(2,))
    found = decode("box", [[-1, -1], [1, 1], [0, 0], [0.5, -0.5], [-7, 7]])
    assert found.dtype == np.float32
    expected = [[-2, 0], [2, 10], [0, 5], [1, 2.5], [-2, 10]]
    np.testing.assert_array_equal(found, np.float32(expected))


def test_box_actions_keep_shape_and_dtype():
    found = decode("square", [[-1, 0, 0.5, 1]])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[[-1, 1], [2, 3]]])


def test_rescaled_actions_never_leave_an_awkward_box():
    env = make_env(counter())
    rng = np.random.default_rng(0)
    low = rng.normal(size=100).astype(np.float32)
    env.action_space = gym.spaces.Box(low, low + rng.random(100, np.float32), dtype=np.float32)
    decode = codec_of(env).decode
    for value in (-1.0, 1.0, 0.3):
        assert env.action_space.contains(decode(np.full((1, 100), value, np.float32))[0])
    np.testing.assert_array_equal(decode(np.full((1, 100), -1.0))[0], env.action_space.low)
    np.testing.assert_array_equal(decode(np.full((1, 100), 1.0))[0], env.action_space.high)


def test_unit_box_is_the_identity():
    env = make_env(counter())
    env.action_space = gym.spaces.Box(-1.0, 1.0, (50,), np.float32)
    vector = np.random.default_rng(1).uniform(-1, 1, (1, 50)).astype(np.float32)
    np.testing.assert_array_equal(codec_of(env).decode(vector), vector)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("infinite", "infinite bounds"),
        ("half", "infinite bounds"),
        ("integers", "a Box of int32"),
        ("pair", "a Tuple space"),
    ],
)
def test_refused_actions(action, message):
    with pytest.raises(EnvError, match=f"Counter-v0: the action space .*{message}"):
        codec(f"action={action}")
