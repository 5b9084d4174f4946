"""The dataset on disk: the same bytes for the same episodes, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dreamer.replay import Episode, read_episodes, row_fields, split_episodes, write_episodes
from dreamer.types import ActionSpec, DataError, EnvSpec, ObsSpec

SPEC = EnvSpec(
    {
        "file": ObsSpec(shape=(2,), dtype="float32", kind="vector"),  # an awkward name for savez
        "image": ObsSpec(shape=(4, 4, 3), dtype="uint8", kind="image"),
        "token": ObsSpec(shape=(1,), dtype="int32", kind="categorical", classes=7),
    },
    ActionSpec(kind="discrete", sizes=(2, 3)),
)


def make_rows(rng, lead, first, last):
    return {
        "file": rng.standard_normal((*lead, 2), np.float32),
        "image": rng.integers(0, 256, (*lead, 4, 4, 3), np.uint8),
        "token": rng.integers(0, 7, (*lead, 1), np.int32),
        "reward": rng.integers(0, 5, lead).astype(np.float32) * ~first,
        "action": rng.random((*lead, 5), np.float32) * ~last[..., None],
        "is_first": first,
        "is_last": last,
        "is_terminal": last & (rng.random(lead) < 0.5),
    }


def make_episodes(count, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        length = int(rng.integers(1, 9))
        first, last = np.zeros(length, bool), np.zeros(length, bool)
        first[0] = last[-1] = True
        yield Episode(stream=number % 3, rows=make_rows(rng, (length,), first, last))


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def assert_equal(found, wanted):
    assert found.stream == wanted.stream
    assert found.rows.keys() == wanted.rows.keys()
    for key, array in wanted.rows.items():
        assert found.rows[key].dtype == array.dtype
        np.testing.assert_array_equal(found.rows[key], array)


@pytest.fixture
def dataset(tmp_path):
    write_episodes(tmp_path / "episodes", make_episodes(12), SPEC, shard_bytes=1000)
    return tmp_path / "episodes"


def test_what_is_read_is_what_was_written(dataset):
    spec, episodes = read_episodes(dataset)
    assert spec == SPEC
    for found, wanted in zip(episodes, make_episodes(12), strict=True):
        assert_equal(found, wanted)


def test_the_manifest_adds_up(dataset):
    manifest = json.loads((dataset / "manifest.json").read_text())
    episodes = list(make_episodes(12))
    rows = sum(len(e.rows["reward"]) for e in episodes)
    assert (manifest["episodes"], manifest["rows"], manifest["steps"]) == (12, rows, rows - 12)
    assert manifest["return_mean"] == np.mean([e.rows["reward"].sum() for e in episodes])
    assert len(manifest["shards"]) > 3
    assert sum(shard["episodes"] for shard in manifest["shards"]) == 12
    for shard in manifest["shards"]:
        assert shard["sha256"] == digests(dataset)[shard["file"]]
    text = (dataset / "manifest.json").read_text()
    assert text == json.dumps(manifest, sort_keys=True, indent=2) + "\n"


def test_the_same_episodes_give_the_same_bytes(dataset, tmp_path):
    """Also for other insertion orders, in another process, with another hash seed and clock."""
    shuffled = (
        Episode(stream=e.stream, rows=dict(reversed(e.rows.items()))) for e in make_episodes(12)
    )
    write_episodes(tmp_path / "again", shuffled, SPEC, shard_bytes=1000)
    assert digests(tmp_path / "again") == digests(dataset)
    code = (
        "import runpy, sys, time, pathlib; time.time = lambda: 0.0\n"
        "t = runpy.run_path(sys.argv[1])\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "t['write_episodes'](folder, t['make_episodes'](12), t['SPEC'], shard_bytes=1000)"
    )
    command = [sys.executable, "-c", code, __file__, str(tmp_path / "other")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "UTC"})
    assert digests(tmp_path / "other") == digests(dataset)


def test_a_dataset_replaces_the_one_before_it(dataset):
    (dataset / "leftover.npz").write_bytes(b"x")
    write_episodes(dataset, make_episodes(2, seed=1), SPEC, shard_bytes=10**9)
    assert sorted(digests(dataset)) == ["episodes-00000.npz", "manifest.json"]
    assert [path.name for path in dataset.parent.iterdir()] == ["episodes"]


def test_a_failed_write_leaves_the_old_dataset_alone(dataset):
    before = digests(dataset)

    def broken():
        yield from make_episodes(5, seed=2)
        raise RuntimeError("the environment died")

    with pytest.raises(RuntimeError, match="the environment died"):
        write_episodes(dataset, broken(), SPEC, shard_bytes=100)
    assert digests(dataset) == before
    assert [path.name for path in dataset.parent.iterdir()] == ["episodes"]


def test_no_episode_or_no_room_is_said(tmp_path):
    with pytest.raises(DataError, match="no episode to write"):
        write_episodes(tmp_path / "empty", [], SPEC, shard_bytes=1)
    assert not (tmp_path / "empty").exists()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="cannot write episodes"):
        write_episodes(tmp_path / "file" / "x", make_episodes(1), SPEC, shard_bytes=1)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), r"manifest\.json: .* missing"),
        (lambda f: (f / "manifest.json").write_text("{"), r"manifest\.json: .* damaged"),
        (lambda f: (f / "manifest.json").write_text("[]"), r"manifest\.json: .* damaged"),
        (lambda f: edit(f, b'"rows"', b'"cows"'), r"manifest\.json: .* checksum differs"),
        (lambda f: edit(f, b'"classes": 7', b'"classes": 8'), r"manifest\.json: .* checksum"),
        (lambda f: (f / "episodes-00001.npz").unlink(), r"episodes-00001\.npz: .* missing"),
        (lambda f: flip(f / "episodes-00001.npz"), r"episodes-00001\.npz: .* checksum differs"),
        (lambda f: cut(f / "episodes-00001.npz"), r"episodes-00001\.npz: .* checksum differs"),
    ],
)
def test_damage_is_found_and_named(dataset, harm, message):
    harm(dataset)
    with pytest.raises(DataError, match=message) as caught:
        list(read_episodes(dataset)[1])
    assert "\n" not in str(caught.value)


def edit(folder, old, new):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(old, new, 1))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop("image"), r"npz: episode keys"),
        (lambda rows: rows.update(image=rows["image"].astype("f4")), r"'image': found float32"),
        (lambda rows: rows.update(reward=rows["reward"][1:]), r"key '\w+': found"),
        (
            lambda rows: rows.update(action=rows["action"][:, 1:]),
            r"'action': found .* \(\d, 4",
        ),
    ],
)
def test_episodes_unlike_the_spec_are_refused(tmp_path, change, message):
    episode = list(make_episodes(3))[2]
    change(episode.rows)
    with pytest.raises(DataError, match=message):
        write_episodes(tmp_path / "episodes", [episode], SPEC, shard_bytes=1)
    assert not list(tmp_path.iterdir())


def test_a_shard_unlike_the_manifest_is_refused(dataset):
    """A manifest with right checksums over a shard of another environment."""
    manifest = json.loads((dataset / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["spec"]["action"]["sizes"] = [2, 4]
    body = (json.dumps(manifest, sort_keys=True, indent=2) + "\n").encode()
    manifest["sha256"] = hashlib.sha256(body).hexdigest()
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"episodes-00000\.npz: episode key 'action': found"):
        list(read_episodes(dataset)[1])


def test_rows_fit_the_buffer_that_the_spec_describes(dataset, tmp_path):
    from dreamer.replay import ReplayConfig, SequenceReplayBuffer

    config = ReplayConfig(capacity=300, batch_size=4, seq_len=3)
    buffer = SequenceReplayBuffer(config, row_fields(SPEC), {}, 3, None)
    for episode in read_episodes(dataset)[1]:
        buffer.extend(episode.stream, episode.rows)
    manifest = json.loads((dataset / "manifest.json").read_text())
    stats = buffer.stats()
    assert (stats["replay/steps"], stats["replay/episodes"]) == (manifest["rows"], 12)
    assert stats["replay/return_mean"] == manifest["return_mean"]
    assert buffer.sample(np.random.default_rng(0)).obs["image"].shape == (4, 3, 4, 4, 3)


def vector_rows(lasts, firsts=None, seed=0):
    """Rows of two environments, one list of marks each; reused arrays, as fast ones do."""
    rng = np.random.default_rng(seed)
    shared: dict[str, np.ndarray] = {}
    last = np.array(lasts, bool)
    first = np.vstack([np.ones((1, 2), bool), last[:-1]]) if firsts is None else np.array(firsts)
    for t in range(len(last)):
        rows = make_rows(rng, (2,), first[t], last[t])
        for key, array in rows.items():
            shared.setdefault(key, np.empty_like(array))[...] = array
        yield shared


def test_rows_are_cut_into_episodes_as_they_end():
    lasts = [(0, 0), (0, 1), (1, 0), (0, 0), (0, 0)]
    everything = [{k: v.copy() for k, v in rows.items()} for rows in vector_rows(lasts)]
    episodes = list(split_episodes(vector_rows(lasts)))
    spans = [(1, 0, 2), (0, 0, 3), (0, 3, 5), (1, 2, 5)]  # stream, begin, end
    assert [(e.stream, len(e.rows["reward"])) for e in episodes] == [
        (s, e - b) for s, b, e in spans
    ]
    for episode, (stream, begin, end) in zip(episodes, spans, strict=True):
        for key in ("image", "file", "reward", "is_first"):
            wanted = np.stack([rows[key][stream] for rows in everything[begin:end]])
            np.testing.assert_array_equal(episode.rows[key], wanted)
        assert episode.rows["is_first"].tolist() == [True] + [False] * (end - begin - 1)
        assert episode.rows["is_last"].tolist() == [False] * (end - begin - 1) + [True]
        assert not episode.rows["action"][-1].any()
        assert episode.rows["action"][:-1].all()
    for cut_short in episodes[2:]:
        assert not cut_short.rows["is_terminal"].any()


def test_an_abandoned_episode_is_closed_and_a_single_reset_is_an_episode():
    lasts = [(0, 0), (0, 0), (0, 1)]
    firsts = [(True, True), (False, True), (True, False)]
    episodes = list(split_episodes(vector_rows(lasts, firsts)))
    lengths = [(e.stream, len(e.rows["reward"])) for e in episodes]
    assert lengths == [(1, 1), (0, 2), (1, 2), (0, 1)]
    for episode in episodes:
        assert episode.rows["is_first"].tolist() == [True] + [False] * (
            len(episode.rows["reward"]) - 1
        )
        assert episode.rows["is_last"][-1]
        assert not episode.rows["action"][-1].any()
