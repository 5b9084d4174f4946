"""Sampled sequences against plain lists of rows."""

from __future__ import annotations

import numpy as np
import pytest

from dreamer.replay import ReplayConfig, SequenceReplayBuffer
from dreamer.types import ConfigError, DataError

MARKS = 1 << 40  # an id is ring * MARKS + number


def expected(kept, start, T):
    """The sequence that begins at row `start` of a list of rows, made the slow way."""
    out = {k: [] for k in ("action", "prev_action", "reward", "is_first", "is_last", "is_terminal")}
    for number in range(start, start + T):
        row, before = kept[number], kept[number - 1]
        broken = number + 1 < len(kept) and kept[number + 1]["is_first"] and not row["is_last"]
        out["action"].append(np.zeros(2) if broken else row["action"])
        out["prev_action"].append(np.zeros(2) if row["is_first"] else before["action"])
        out["reward"].append(row["reward"])
        out["is_first"].append(row["is_first"])
        out["is_last"].append(row["is_last"] or broken)
        out["is_terminal"].append(row["is_terminal"])
    return out


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("steps", [9, 17, 18, 60])
def test_sequences_equal_brute_force(tmp_path, streams, make_buffer, on_disk, steps):
    buffer = make_buffer(tmp_path / "replay" if on_disk else None)
    stream = streams(3, seed=steps, abandon=0.1)
    stream.feed(buffer, steps)
    rng = np.random.default_rng(1)
    crossings = broken = 0
    for _ in range(40):
        sample = buffer.sample(rng)
        for b in range(6):
            env, start = divmod(int(sample.rows[b, 0]), MARKS)
            assert sample.rows[b].tolist() == [env * MARKS + start + t for t in range(5)]
            want = expected(stream.kept[env], start, 5)
            for key, values in want.items():
                np.testing.assert_array_equal(getattr(sample, key)[b], np.stack(values))
            for key in ("image", "vector", "mark"):
                rows = [stream.kept[env][start + t][key] for t in range(5)]
                np.testing.assert_array_equal(sample.obs[key][b], np.stack(rows))
            assert sample.age[b] == steps - start - 5
            crossings += bool(sample.is_last[b, :-1].any())
            stored = [row["is_last"] for row in stream.kept[env][start : start + 5]]
            broken += int((sample.is_last[b] & ~np.array(stored)).sum())
    assert crossings > 0
    assert broken > 0 or steps < 18


def test_the_context_latent_is_of_the_row_before(streams, make_buffer):
    buffer, stream, rng = make_buffer(), streams(3, seed=3), np.random.default_rng(0)
    for _ in range(30):
        stream.feed(buffer, 3)
        if buffer.ready:
            sample = buffer.sample(rng)
            marks = sample.latents["mark"].astype(np.int64)
            np.testing.assert_array_equal(marks[:, 0] * MARKS + marks[:, 1], sample.rows[:, 0] - 1)


def test_windows_lie_between_the_oldest_row_and_the_write_head(streams, make_buffer):
    buffer, stream, rng = make_buffer(), streams(3, seed=4), np.random.default_rng(0)
    for head in range(1, 60):
        stream.feed(buffer, 1)
        if not buffer.ready:
            continue
        seen = set()
        for _ in range(30):
            numbers = buffer.sample(rng).rows % MARKS
            assert (np.diff(numbers, axis=1) == 1).all()
            seen |= set(numbers[:, 0].tolist())
        oldest = max(head - 17, 0)
        assert seen == set(range(oldest + 1, head - 5 + 1))


def test_starts_are_uniform_and_rings_count_by_their_windows(streams, make_buffer):
    buffer, stream = make_buffer(batch_size=20), streams(3, seed=5)
    for env, length in enumerate((8, 40, 12)):
        buffer.extend(env, stream.run(env, length))
    starts = [(0, n) for n in range(1, 4)]
    starts += [(1, n) for n in range(24, 36)]  # ring of 17: rows 23 to 39 are stored
    starts += [(2, n) for n in range(1, 8)]
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(starts, 0)
    for _ in range(1000):
        for first in buffer.sample(rng).rows[:, 0].tolist():
            counts[divmod(first, MARKS)] += 1
    mean = 1000 * 20 / len(starts)
    chi_square = sum((count - mean) ** 2 / mean for count in counts.values())
    assert chi_square < 43.8  # 21 degrees of freedom, p = 0.0025; a bias of 10 % gives about 200


def test_a_ring_without_a_whole_window_gives_nothing(streams, make_buffer):
    buffer, stream = make_buffer(batch_size=4), streams(3, seed=6)
    buffer.extend(0, stream.run(0, 5))  # one row short of a window
    buffer.extend(2, stream.run(2, 9))
    rng = np.random.default_rng(0)
    assert all((buffer.sample(rng).rows // MARKS == 2).all() for _ in range(20))


def test_ready_means_as_many_windows_as_sequences(streams, make_buffer):
    buffer, stream = make_buffer(batch_size=4), streams(3, seed=7)
    for length, ready in ((8, False), (1, True)):
        buffer.extend(1, stream.run(1, length))
        assert buffer.ready is ready
        if not ready:
            with pytest.raises(DataError, match="8 rows, too few"):
                buffer.sample(np.random.default_rng(0))


def test_samples_depend_on_the_generator_alone_and_are_copies(streams, make_buffer):
    buffer, stream = make_buffer(), streams(3, seed=8)
    stream.feed(buffer, 30)
    one = buffer.sample(np.random.default_rng(5))
    want = one.obs["image"].copy()
    one.obs["image"][:] = 0
    one.action[:] = 9
    again = buffer.sample(np.random.default_rng(5))
    np.testing.assert_array_equal(again.obs["image"], want)
    assert not (again.action == 9).any()
    assert not np.shares_memory(again.action, again.prev_action)


def test_dtypes_are_kept(streams, make_buffer):
    buffer, stream = make_buffer(), streams(3, seed=9)
    stream.feed(buffer, 9)
    sample = buffer.sample(np.random.default_rng(0))
    found = {key: array.dtype.name for key, array in sample.obs.items()}
    assert found == {"image": "uint8", "mark": "int32", "vector": "float32"}
    assert {k: v.dtype.name for k, v in sample.latents.items()} == {
        "deter": "float16",
        "stoch": "uint8",
        "mark": "int32",
    }
    assert sample.action.dtype == sample.prev_action.dtype == sample.reward.dtype == np.float32
    assert sample.is_first.dtype == sample.is_last.dtype == sample.is_terminal.dtype == bool
    assert sample.rows.dtype == sample.age.dtype == np.int64


def test_episodes_of_one_row(make_buffer, streams):
    buffer, stream = make_buffer(num_envs=1), streams(1, seed=10)
    rows = stream.run(0, 17)
    rows["is_first"][:], rows["is_last"][:], rows["action"][:] = True, True, 0
    buffer.extend(0, rows)
    sample = buffer.sample(np.random.default_rng(0))
    assert sample.is_first.all()
    assert sample.is_last.all()
    assert not sample.prev_action.any()
    assert buffer.stats()["replay/episodes"] == 17


def test_extend_equals_add(streams, make_buffer):
    one, two = make_buffer(num_envs=1), make_buffer(num_envs=1)
    rows = streams(1, seed=11, abandon=0.1).run(0, 50)
    two.extend(0, {key: array[:3] for key, array in rows.items()})
    two.extend(0, {key: array[3:] for key, array in rows.items()})  # longer than the ring
    zeros = {"deter": np.zeros((1, 3), "f2"), "stoch": np.zeros((1, 2), "u1")}
    zeros["mark"] = np.zeros((1, 2), "i4")
    for t in range(50):
        one.add({key: array[t : t + 1] for key, array in rows.items()}, zeros)
    assert one.stats() == two.stats()
    first, second = (buffer.sample(np.random.default_rng(0)) for buffer in (one, two))
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.obs["vector"], second.obs["vector"])
    np.testing.assert_array_equal(first.prev_action, second.prev_action)


def test_statistics_equal_a_recount(streams, make_buffer):
    buffer, stream = make_buffer(), streams(3, seed=12, abandon=0.05)
    for head in range(1, 80):
        stream.feed(buffer, 1)
        returns = []
        for kept in stream.kept:
            total = 0.0
            for number, row in enumerate(kept):
                total = row["reward"] + (0 if row["is_first"] else total)
                if row["is_last"] and number >= head - 17:
                    returns.append(total)
        stats = buffer.stats()
        assert stats["replay/episodes"] == len(returns)
        assert stats["replay/return_mean"] == pytest.approx(sum(returns) / max(len(returns), 1))
        assert stats["replay/steps"] == buffer.num_rows == 3 * min(head, 17)
    sample = buffer.sample(np.random.default_rng(0))
    assert buffer.stats()["replay/sample_age"] == sample.age.mean()
    per_row = 12 + 8 + 12 + 4 + 8 + 3 + (6 + 2 + 8) + 8
    assert buffer.stats()["replay/bytes"] == 3 * 17 * per_row


def test_write_back_reaches_its_rows_and_no_others(streams, make_buffer, random_latents):
    buffer, stream, rng = make_buffer(), streams(3, seed=13), np.random.default_rng(0)
    model = {}
    for _ in range(60):
        rows, latents = stream.rows(), stream.latents()
        buffer.add(rows, latents)
        for env, kept in enumerate(stream.kept):
            model[env * MARKS + len(kept) - 1] = {k: v[env] for k, v in latents.items()}
        if not buffer.ready:
            continue
        sample = buffer.sample(rng)
        for key, array in sample.latents.items():
            want = np.stack([model[i - 1][key] for i in sample.rows[:, 0].tolist()])
            np.testing.assert_array_equal(array, want)
        fresh = random_latents(rng, sample.rows.shape)
        buffer.write_back(sample.rows, fresh)
        for b, t in np.ndindex(sample.rows.shape):
            model[int(sample.rows[b, t])] = {key: array[b, t] for key, array in fresh.items()}


def test_write_back_skips_rows_overwritten_since(streams, make_buffer, random_latents):
    buffer, stream, rng = make_buffer(), streams(3, seed=14), np.random.default_rng(0)
    stream.feed(buffer, 17)
    old = buffer.sample(rng)
    stream.feed(buffer, 17)
    buffer.write_back(old.rows, random_latents(rng, old.rows.shape))
    for _ in range(20):
        sample = buffer.sample(rng)
        marks = sample.latents["mark"].astype(np.int64)
        np.testing.assert_array_equal(marks[:, 0] * MARKS + marks[:, 1], sample.rows[:, 0] - 1)


@pytest.mark.parametrize("bad", [17, 99 * MARKS, -1])
def test_ids_never_handed_out_are_refused(streams, make_buffer, random_latents, bad):
    buffer, stream = make_buffer(), streams(3, seed=15)
    stream.feed(buffer, 17)
    ids = np.full((1, 1), bad)
    with pytest.raises(DataError, match="never stored"):
        buffer.write_back(ids, random_latents(np.random.default_rng(0), (1, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop("vector"), "row keys: found"),
        (lambda rows: rows.update(extra=rows["reward"]), "row keys: found"),
        (lambda rows: rows.update(image=rows["image"].astype("f4")), "'image': found float32"),
        (lambda rows: rows.update(reward=rows["reward"].astype("f8")), "'reward': found float64"),
        (lambda rows: rows.update(vector=rows["vector"][:, :2]), r"found float32 \(3, 2\)"),
        (lambda rows: rows.update(action=rows["action"][:2]), r"\(2, 2\), needed float32 \(3, 2\)"),
    ],
)
def test_other_rows_are_refused(streams, make_buffer, change, message):
    buffer, stream = make_buffer(), streams(3, seed=16)
    rows = stream.rows()
    change(rows)
    with pytest.raises(DataError, match=message):
        buffer.add(rows, stream.latents())
    with pytest.raises(DataError, match="latent keys"):
        buffer.add(stream.rows(), {})
    assert buffer.num_rows == 0


def test_impossible_sizes_are_refused():
    arrays = dict.fromkeys(("is_first", "is_last", "is_terminal"), ((), "bool"))
    arrays |= {"reward": ((), "float32"), "action": ((2,), "float32")}
    config = ReplayConfig(capacity=23, batch_size=1, seq_len=5)
    with pytest.raises(ConfigError, match="found 23; allowed: at least 24 rows, 6 for each of 4"):
        SequenceReplayBuffer(config, arrays, {}, 4, None)
    with pytest.raises(ConfigError, match="seq_len"):
        ReplayConfig(capacity=23, batch_size=1, seq_len=0)
    with pytest.raises(DataError, match="'reward'"):
        SequenceReplayBuffer(config, arrays | {"reward": ((), "float64")}, {}, 1, None)
    with pytest.raises(DataError, match="ring 1: allowed 0 to 0"):
        SequenceReplayBuffer(config, arrays, {}, 1, None).extend(1, {})
