"""A buffer that was killed comes back as it was at its checkpoint, byte for byte."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dreamer.types import DataError


def stored_bytes(buffer):
    """The bytes of every row that exists; what lies beyond the write heads is nobody's."""
    out = {}
    heads, ring = buffer._heads, buffer._ring
    for name, flat in buffer._store.flat.items():
        for env, head in enumerate(heads):
            rows = flat[env * ring : env * ring + min(int(head), ring)]
            out[name, env] = rows.tobytes()
    return out


def act(buffer, stream, rng, random_latents):
    """One random thing that a training does to its buffer."""
    choice = rng.integers(4)
    if choice == 0:
        env = int(rng.integers(3))
        buffer.extend(env, stream.run(env, int(rng.integers(1, 25))))
    elif choice == 1 and buffer.ready:
        ids = buffer.sample(rng).rows
        stream.feed(buffer, int(rng.integers(0, 12)))  # some of the rows may be gone by now
        buffer.write_back(ids, random_latents(rng, ids.shape))
    else:
        stream.feed(buffer, int(rng.integers(1, 5)))


def snapshot(buffer, stream):
    return stored_bytes(buffer), buffer.stats(), copy.deepcopy(stream.kept)


@pytest.mark.parametrize("seed", range(25))
def test_any_checkpoint_kept_can_be_returned_to(
    tmp_path, streams, make_buffer, random_latents, seed
):
    """Random work, a checkpoint now and then, sometimes killed (files copied) and rolled back."""
    rng, stream = np.random.default_rng(seed), streams(3, seed=seed)
    folder = tmp_path / "0"
    buffer = make_buffer(folder)
    checkpoints = []
    for step in range(60):
        act(buffer, stream, rng, random_latents)
        if rng.random() < 0.15:
            meta = json.loads(json.dumps(buffer.checkpoint(sync=bool(rng.random() < 0.2))))
            checkpoints.append((meta, snapshot(buffer, stream)))
            if rng.random() < 0.5:  # the caller made this one durable
                buffer.discard_before(meta["generation"])
                checkpoints = checkpoints[-1:]
        if checkpoints and rng.random() < 0.1:
            folder = shutil.copytree(folder, tmp_path / str(step + 1))
            newest = max(folder.glob("undo-*.journal"))
            if rng.random() < 0.5:
                newest.write_bytes(newest.read_bytes() + torn_record(rng))
            keep = int(rng.integers(len(checkpoints)))
            checkpoints = checkpoints[: keep + 1]
            meta, (want, stats, kept) = checkpoints[-1]
            buffer = make_buffer(folder, meta=meta)
            assert stored_bytes(buffer) == want
            assert buffer.stats() == stats
            stream.kept = copy.deepcopy(kept)
    assert buffer.num_rows > 0


def torn_record(rng):
    whole = b"\x40\x00\x00\x00\x00\x00\x00\x00" + b"\x01\x02\x03\x04"
    return whole[: rng.integers(1, 13)]


def test_a_resumed_run_ends_at_the_bytes_of_an_uninterrupted_one(
    tmp_path, streams, make_buffer, random_latents
):
    def train(buffer, stream, rng, steps):
        for _ in range(steps):
            act(buffer, stream, rng, random_latents)

    plain, stream, rng = make_buffer(tmp_path / "a"), streams(3, seed=1), np.random.default_rng(1)
    train(plain, stream, rng, 30)
    plain.checkpoint(sync=False)
    train(plain, stream, rng, 30)

    killed, stream, rng = make_buffer(tmp_path / "b"), streams(3, seed=1), np.random.default_rng(1)
    train(killed, stream, rng, 30)
    meta, saved = killed.checkpoint(sync=True), copy.deepcopy((stream, rng))
    train(killed, stream, rng, 17)
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    resumed = make_buffer(tmp_path / "c", meta=meta)
    train(resumed, *saved, 30)
    assert stored_bytes(resumed) == stored_bytes(plain)
    assert resumed.stats() == plain.stats()
    one, two = (b.sample(np.random.default_rng(0)) for b in (plain, resumed))
    np.testing.assert_array_equal(one.rows, two.rows)


def test_killed_before_each_write_of_the_journal_and_after(
    tmp_path, streams, make_buffer, random_latents, monkeypatch
):
    """Every state of the folder in which a process can die during an update is survived."""
    buffer, stream, rng = make_buffer(tmp_path / "a"), streams(3, seed=2), np.random.default_rng(2)
    stream.feed(buffer, 40)
    meta = buffer.checkpoint(sync=False)
    want = stored_bytes(buffer)
    copies, real = [], os.write

    def torn_write(fd, data):
        for part in (0, len(data) // 3, len(data) - 1):
            target = tmp_path / f"copy{len(copies)}"
            shutil.copytree(tmp_path / "a", target)
            newest = max(target.glob("undo-*.journal"))
            newest.write_bytes(newest.read_bytes() + bytes(data[:part]))
            copies.append(target)
        return real(fd, data)

    monkeypatch.setattr(os, "write", torn_write)
    stream.feed(buffer, 2)
    ids = buffer.sample(rng).rows
    buffer.write_back(ids, random_latents(rng, ids.shape))
    buffer.checkpoint(sync=False)  # not made durable by its caller
    stream.feed(buffer, 1)
    monkeypatch.undo()
    assert len(copies) >= 12
    for folder in copies:
        assert stored_bytes(make_buffer(folder, meta=meta)) == want


def test_killed_while_rolling_back(tmp_path, streams, make_buffer, random_latents, monkeypatch):
    buffer, stream, rng = make_buffer(tmp_path / "a"), streams(3, seed=3), np.random.default_rng(3)
    stream.feed(buffer, 30)
    meta = buffer.checkpoint(sync=False)
    want = stored_bytes(buffer)
    for _ in range(3):
        for _ in range(4):
            act(buffer, stream, rng, random_latents)
        buffer.checkpoint(sync=False)
    unpack = type(buffer._store).unpack
    for survived in (*range(0, 12, 2), None):
        calls = []

        def dying(self, names, slots, data, calls=calls, survived=survived):
            if survived is not None and len(calls) >= survived:
                raise KeyboardInterrupt
            calls.append(1)
            unpack(self, names, slots, data)

        folder = shutil.copytree(tmp_path / "a", tmp_path / f"at{survived}")
        monkeypatch.setattr(type(buffer._store), "unpack", dying)
        if survived is not None:
            with pytest.raises(KeyboardInterrupt):
                make_buffer(folder, meta=meta)
        monkeypatch.undo()
        assert stored_bytes(make_buffer(folder, meta=meta)) == want


def test_the_journal_grows_no_larger_than_the_rings(tmp_path, streams, make_buffer, random_latents):
    buffer, stream, rng = make_buffer(tmp_path), streams(3, seed=4), np.random.default_rng(4)
    stream.feed(buffer, 40)
    buffer.checkpoint(sync=False)
    for _ in range(300):
        ids = buffer.sample(rng).rows
        buffer.write_back(ids, random_latents(rng, ids.shape))
        stream.feed(buffer, 1)
    newest = max(tmp_path.glob("undo-*.journal"))
    assert newest.stat().st_size < 3 * buffer.stats()["replay/bytes"]


def test_nothing_is_journalled_before_the_first_checkpoint(tmp_path, streams, make_buffer):
    buffer, stream = make_buffer(tmp_path), streams(3, seed=5)
    before = (tmp_path / "undo-00000000.journal").stat().st_size
    stream.feed(buffer, 50)
    assert (tmp_path / "undo-00000000.journal").stat().st_size == before


def test_discarded_generations_are_gone_and_said_so(tmp_path, streams, make_buffer):
    buffer, stream = make_buffer(tmp_path), streams(3, seed=6)
    stream.feed(buffer, 20)
    old, new = buffer.checkpoint(sync=False), buffer.checkpoint(sync=False)
    buffer.discard_before(new["generation"])
    assert [path.name for path in tmp_path.glob("undo-*")] == ["undo-00000002.journal"]
    with pytest.raises(DataError, match=r"undo-00000001\.journal: undo journal is missing"):
        make_buffer(tmp_path, meta=old)
    assert make_buffer(tmp_path, meta=new).num_rows == 51


def test_a_new_buffer_replaces_the_old_files(tmp_path, streams, make_buffer):
    buffer, stream = make_buffer(tmp_path), streams(3, seed=7)
    stream.feed(buffer, 20)
    meta = buffer.checkpoint(sync=False)
    fresh = make_buffer(tmp_path)
    assert fresh.num_rows == 0
    assert not any(flat.any() for flat in fresh._store.flat.values())
    fresh.checkpoint(sync=False)  # the same generation as in the old description
    with pytest.raises(DataError, match="does not belong to this checkpoint"):
        make_buffer(tmp_path, meta=meta)


def test_a_buffer_in_memory_has_no_checkpoint(make_buffer):
    with pytest.raises(DataError, match="no folder"):
        make_buffer().checkpoint(sync=False)


@pytest.mark.parametrize("harm", ["missing", "cut", "header", "empty", "shape"])
def test_damaged_rings_are_refused_in_one_line(tmp_path, streams, make_buffer, harm):
    buffer, stream = make_buffer(tmp_path), streams(3, seed=8)
    stream.feed(buffer, 20)
    meta = buffer.checkpoint(sync=True)
    path = tmp_path / "row.image.npy"
    data = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "shape":
        np.save(path, np.zeros((3, 16, 2, 2, 3), np.uint8))
    else:
        path.write_bytes({"cut": data[:-1], "header": b"x" + data[1:], "empty": b""}[harm])
    with pytest.raises(DataError, match=r"row\.image\.npy: replay ring") as caught:
        make_buffer(tmp_path, meta=meta)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", [0, 9, 13, 40, -1])
def test_a_damaged_journal_is_refused(tmp_path, streams, make_buffer, where):
    buffer, stream = make_buffer(tmp_path), streams(3, seed=9)
    stream.feed(buffer, 20)
    meta = buffer.checkpoint(sync=False)
    stream.feed(buffer, 5)
    path = tmp_path / "undo-00000001.journal"
    data = bytearray(path.read_bytes())
    data[where] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"undo-00000001\.journal: undo journal is damaged"):
        make_buffer(tmp_path, meta=meta)


def test_another_layout_is_refused(tmp_path, streams, make_buffer):
    buffer = make_buffer(tmp_path)
    meta = buffer.checkpoint(sync=False)
    with pytest.raises(DataError, match="another layout"):
        make_buffer(tmp_path, meta=meta | {"format": 0})
    with pytest.raises(DataError, match=r"holds .* \(3, 17"):
        make_buffer(tmp_path, ring=18, meta=meta)


def test_files_are_allocated_and_a_full_disk_is_refused(tmp_path, make_buffer, monkeypatch):
    buffer = make_buffer(tmp_path / "ok", ring=5000)
    stat = (tmp_path / "ok" / "row.image.npy").stat()
    assert stat.st_blocks * 512 >= stat.st_size

    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    size = int(buffer.stats()["replay/bytes"])
    with pytest.raises(DataError, match=r"needs \d+ bytes, \d+ available: No space") as caught:
        make_buffer(tmp_path / "full", ring=5000)
    needed = int(str(caught.value).split("needs ")[1].split()[0])
    assert size <= needed <= size + 4096 * 12
    assert not list((tmp_path / "full").glob("*.npy"))


def test_a_capacity_beyond_the_disk_is_refused_before_anything_is_written(tmp_path, make_buffer):
    with pytest.raises(DataError, match="capacity is too large for the disk"):
        make_buffer(tmp_path / "huge", ring=10**10)
    assert not list((tmp_path / "huge").iterdir())


def test_an_unwritable_folder_is_refused(tmp_path, make_buffer):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"replay folder .*file"):
        make_buffer(tmp_path / "file" / "replay")


def test_a_full_disk_during_the_run_leaves_the_rows_alone(
    tmp_path, streams, make_buffer, random_latents, monkeypatch
):
    buffer, stream, rng = make_buffer(tmp_path), streams(3, seed=10), np.random.default_rng(0)
    stream.feed(buffer, 30)
    meta = buffer.checkpoint(sync=False)
    want, journal = stored_bytes(buffer), max(tmp_path.glob("undo-*"))
    size, real = journal.stat().st_size, os.write

    def full(fd, data):
        if journal.stat().st_size > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:10])  # a short write, then no more room

    monkeypatch.setattr(os, "write", full)
    ids = buffer.sample(rng).rows
    with pytest.raises(DataError, match=r"cannot write .* to the undo journal: No space"):
        buffer.write_back(ids, random_latents(rng, ids.shape))
    monkeypatch.undo()
    assert stored_bytes(buffer) == want
    assert journal.stat().st_size == size
    buffer.write_back(ids, random_latents(rng, ids.shape))
    assert stored_bytes(buffer) != want
    assert stored_bytes(make_buffer(tmp_path, meta=meta)) == want


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(
    tmp_path, streams, make_buffer, random_latents, monkeypatch
):
    buffer, stream, rng = make_buffer(tmp_path), streams(3, seed=11), np.random.default_rng(0)
    stream.feed(buffer, 30)
    meta = buffer.checkpoint(sync=False)
    want = stored_bytes(buffer)

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stream.feed(buffer, 2)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DataError, match="undo-00000002"):
        buffer.checkpoint(sync=False)
    monkeypatch.undo()
    assert max(tmp_path.glob("undo-*")).name == "undo-00000001.journal"
    for _ in range(10):
        act(buffer, stream, rng, random_latents)
    assert stored_bytes(make_buffer(tmp_path, meta=meta)) == want


def test_lost_undo_records_are_found_out_after_a_synced_checkpoint(
    tmp_path, streams, make_buffer, random_latents
):
    """What a power failure may leave: rings newer than the journal that protects them."""
    buffer, stream, rng = make_buffer(tmp_path), streams(3, seed=12), np.random.default_rng(0)
    stream.feed(buffer, 30)
    meta = json.loads(json.dumps(buffer.checkpoint(sync=True)))
    assert make_buffer(shutil.copytree(tmp_path, tmp_path / "same"), meta=meta).num_rows == 51
    journal = max(tmp_path.glob("undo-*"))
    empty = journal.read_bytes()
    ids = buffer.sample(rng).rows
    buffer.write_back(ids, random_latents(rng, ids.shape))
    journal.write_bytes(empty)
    with pytest.raises(DataError, match=r"\['latent.deter', .* rows differ from those of"):
        make_buffer(tmp_path, meta=meta)


KILLED = """
import json, pathlib, runpy, sys
import numpy as np
tests, folder = map(pathlib.Path, sys.argv[1:])
kit = runpy.run_path(str(tests / "conftest.py"))
work = runpy.run_path(str(tests / "test_replay_recovery.py"))
buffer, stream = kit["make_buffer"](folder / "replay", ring=400), kit["Streams"](3, seed=0)
rng = np.random.default_rng(0)
stream.feed(buffer, 500)
for number in range(10**9):
    for _ in range(20):
        work["act"](buffer, stream, rng, kit["random_latents"])
    state = {"meta": buffer.checkpoint(sync=False), "bytes": work["digest"](buffer)}
    (folder / "new.json").write_text(json.dumps(state))
    (folder / "new.json").rename(folder / "state.json")
    buffer.discard_before(state["meta"]["generation"])
    print(number, flush=True)
"""


def digest(buffer):
    parts = sorted(stored_bytes(buffer).items())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def test_a_process_killed_at_any_moment(tmp_path, make_buffer):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    rng = np.random.default_rng()  # a new moment every time that this test is run
    with process:
        for _ in range(3):
            assert process.stdout.readline()
        for number in range(6):
            # Frozen rather than killed, the same process gives several moments of death.
            time.sleep(rng.random() * 0.05)
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            copied = shutil.copytree(tmp_path / "replay", tmp_path / f"at{number}")
            state = json.loads((tmp_path / "state.json").read_text())
            process.send_signal(signal.SIGCONT)
            restored = make_buffer(copied, ring=400, meta=state["meta"])
            assert digest(restored) == state["bytes"]
        process.kill()
    state = json.loads((tmp_path / "state.json").read_text())
    restored = make_buffer(tmp_path / "replay", ring=400, meta=state["meta"])
    assert digest(restored) == state["bytes"]
