"""The write-ahead log: nothing flushed is lost, nothing logged again is kept."""

import errno
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.write_ahead_log import (
    EVENTS_FILE,
    Event,
    LogReader,
    LogWriter,
    Relogged,
    UploadState,
    batches,
    count_pending,
    keep_copy,
    locked,
    read_events,
)

ROOT = Path(__file__).parents[2]


def log_of(directory, *events):
    """Write (kind, body) pairs."""
    writer = LogWriter(directory)
    for kind, body in events:
        writer.append(kind, body)
    writer.close()
    return directory


def metrics(step, **values):
    return "metrics", {"step": step, "values": values}


def kept(directory, offset=0):
    """(key, step, value) of what a reader keeps, in order."""
    return [
        (key, event.body["step"], value)
        for event in LogReader(directory, offset).read()
        if event.kind == "metrics"
        for key, value in event.body["values"].items()
    ]


def test_events_come_back_in_order_with_the_offsets_of_their_lines(tmp_path):
    before = time.time_ns() // 1_000_000
    log_of(tmp_path, ("start", {"key": "a"}), metrics(3, loss=0.5), ("finish", {"status": "X"}))
    events = list(read_events(tmp_path))
    assert [e.kind for e in events] == ["start", "metrics", "finish"]
    assert events[1].body == {"step": 3, "values": {"loss": 0.5}}
    assert before <= events[0].time_ms <= events[2].time_ms <= time.time_ns() // 1_000_000 + 1
    assert events[2].end == (tmp_path / EVENTS_FILE).stat().st_size
    assert list(read_events(tmp_path, events[0].end)) == events[1:]


def test_numbers_that_are_not_finite_survive(tmp_path):
    log_of(tmp_path, metrics(0, a=float("inf"), b=float("nan"), c=1e-300))
    values = next(read_events(tmp_path)).body["values"]
    assert values["a"] == float("inf")
    assert values["b"] != values["b"]
    assert values["c"] == 1e-300


def test_a_torn_last_line_waits_and_then_costs_only_itself(tmp_path):
    log_of(tmp_path, metrics(0, a=1.0))
    path = tmp_path / EVENTS_FILE
    with path.open("ab") as file:
        file.write(b'{"kind":"metrics","time":5,"st')
    assert [e.kind for e in read_events(tmp_path)] == ["metrics"]
    log_of(tmp_path, metrics(1, a=2.0))
    assert [e.kind for e in read_events(tmp_path)] == ["metrics", "damaged", "metrics"]
    assert kept(tmp_path) == [("a", 0, 1.0), ("a", 1, 2.0)]


@pytest.mark.parametrize("line", [b"7\n", b"[]\n", b"{}\n", b"\n", b"\xff\n", b'{"kind":"x"}\n'])
def test_a_line_that_is_no_event_is_called_damaged(tmp_path, line):
    (tmp_path / EVENTS_FILE).write_bytes(line)
    assert list(read_events(tmp_path)) == [Event("damaged", 0, {}, len(line))]


def test_a_full_disk_costs_events_and_one_warning(tmp_path, monkeypatch, caplog):
    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = LogWriter(tmp_path)
    writer.append(*metrics(0, a=1.0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        writer.append(*metrics(1, a=2.0))
        writer.append(*metrics(2, a=3.0))
    writer.append(*metrics(3, a=4.0))
    assert writer.lost == 2
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert kept(tmp_path) == [("a", 0, 1.0), ("a", 3, 4.0)]


def test_a_half_written_line_does_not_swallow_the_next(tmp_path, monkeypatch):
    real = os.write
    writer = LogWriter(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[:10]))
        writer.append(*metrics(0, a=1.0))
    writer.append(*metrics(1, a=2.0))
    assert writer.lost == 1
    assert kept(tmp_path) == [("a", 1, 2.0)]


def test_a_directory_that_cannot_be_made_does_not_raise(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    writer = LogWriter(tmp_path / "file" / "run")
    writer.append(*metrics(0, a=1.0))
    writer.close()
    assert writer.lost == 1
    assert "cannot write" in caplog.text


def test_thirty_metrics_cost_well_under_a_fifth_of_a_millisecond(tmp_path):
    writer = LogWriter(tmp_path)
    values = {f"group/name_{i}": i / 7 for i in range(30)}
    seconds = []
    for step in range(400):
        start = time.perf_counter()
        writer.append("metrics", {"step": step, "values": values})
        seconds.append(time.perf_counter() - start)
    writer.close()
    assert statistics.median(seconds) < 1e-4


def test_sigkill_loses_nothing_that_was_flushed(tmp_path):
    code = (
        "import sys; from pathlib import Path; from pipeline.write_ahead_log import LogWriter\n"
        "w = LogWriter(Path(sys.argv[1]))\n"
        "for i in range(10**7):\n"
        "    w.append('metrics', {'step': i, 'values': {'a': i}}); print(i, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for _ in range(50):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = 50 + process.stdout.read().count("\n")
    steps = [step for _, step, _ in kept(tmp_path)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= said


def test_a_restart_keeps_the_first_of_what_is_logged_twice(tmp_path):
    log_of(
        tmp_path,
        ("start", {}),
        *(metrics(step, a=float(step)) for step in range(5)),
        ("start", {}),
        ("rewind", {"step": 2}),
        *(metrics(step, a=step + 0.5) for step in range(3, 8)),
    )
    first = [("a", s, float(s)) for s in range(5)]
    assert kept(tmp_path) == first + [("a", s, s + 0.5) for s in range(5, 8)]


def test_a_repeated_run_from_the_beginning_adds_nothing(tmp_path):
    rows = [metrics(step, a=1.0, b=2.0) for step in range(4)]
    log_of(tmp_path, ("start", {}), *rows, ("start", {}), ("rewind", {"step": -1}), *rows)
    assert len(kept(tmp_path)) == 8


def test_a_new_process_alone_means_that_values_may_come_again(tmp_path):
    log_of(tmp_path, ("start", {}), metrics(0, a=1.0), metrics(1, a=2.0), ("start", {}))
    log_of(tmp_path, metrics(0, a=1.0), metrics(1, a=2.0), metrics(2, a=3.0))
    assert kept(tmp_path) == [("a", 0, 1.0), ("a", 1, 2.0), ("a", 2, 3.0)]


def test_without_a_restart_every_value_counts():
    relogged = Relogged()
    assert [len(relogged.fresh(7, {"a": 1.0})) for _ in range(3)] == [1, 1, 1]


def test_values_at_the_step_of_a_rewind_are_new():
    relogged = Relogged()
    relogged.fresh(4, {"a": 1.0})
    relogged.restart(4)
    assert relogged.fresh(4, {"a": 2.0}) == {"a": 2.0}


def test_a_kill_between_two_values_of_one_step_loses_neither():
    # Two episodes end at step 9; the first process dies after logging the first of them.
    relogged = Relogged()
    for step in (5, 9):
        relogged.fresh(step, {"return": 1.0})
    relogged.restart(0)
    seen = [relogged.fresh(step, {"return": v}) for step, v in [(5, 1.0), (9, 1.0), (9, 2.0)]]
    assert seen == [{}, {}, {"return": 2.0}]


def test_a_second_kill_during_the_repetition_changes_nothing():
    relogged = Relogged()
    relogged.fresh(1, {"a": 1.0})
    relogged.fresh(9, {"a": 9.0})
    relogged.restart(0)
    assert relogged.fresh(1, {"a": 1.0}) == {}
    relogged.restart(0)
    assert [relogged.fresh(s, {"a": 0.0}) for s in (1, 9, 10)] == [{}, {}, {"a": 0.0}]


def test_keys_are_told_apart():
    relogged = Relogged()
    relogged.fresh(3, {"a": 1.0})
    relogged.restart(None)
    assert relogged.fresh(3, {"a": 1.0, "b": 2.0}) == {"b": 2.0}


def test_reading_from_any_offset_gives_the_rest_of_reading_from_the_start(tmp_path):
    log_of(
        tmp_path,
        ("start", {}),
        *(metrics(s, a=float(s)) for s in (1, 2, 2, 3)),
        ("rewind", {"step": 1}),
        *(metrics(s, a=-float(s)) for s in (2, 2, 2, 3, 4)),
    )
    whole = list(LogReader(tmp_path).read())
    assert [e.body["values"] for e in whole if e.kind == "metrics"][4:] == [
        {}, {}, {}, {}, {"a": -4.0},
    ]  # fmt: skip
    for i, event in enumerate(whole):
        assert list(LogReader(tmp_path, event.end).read()) == whole[i + 1 :]


def test_a_reader_follows_a_growing_log(tmp_path):
    reader = LogReader(tmp_path)
    assert list(reader.read()) == []
    for step in range(3):
        log_of(tmp_path, metrics(step, a=1.0))
        assert [e.body["step"] for e in reader.read()] == [step]
        assert reader.position == (tmp_path / EVENTS_FILE).stat().st_size


def test_batches_hold_neighbouring_metrics_up_to_the_limit():
    def event(kind, n, end):
        return Event(kind, 0, {"values": dict.fromkeys(map(str, range(n)), 0.0)}, end)

    sizes = [("metrics", 2), ("metrics", 2), ("metrics", 1), ("tags", 9), ("metrics", 7)]
    events = [event(kind, n, end) for end, (kind, n) in enumerate(sizes)]
    assert [[e.end for e in b] for b in batches(events, 4)] == [[0, 1], [2], [3], [4]]
    assert list(batches([], 4)) == []


def test_the_upload_state_is_kept_per_server(tmp_path):
    log_of(tmp_path, metrics(0, a=1.0), metrics(1, a=1.0))
    end = next(read_events(tmp_path)).end
    state = UploadState(run_id="r", offset=end, in_flight=end + 9, floors={"a": 7})
    state.save(tmp_path, "http://one")
    assert UploadState.load(tmp_path, "http://one") == state
    assert UploadState.load(tmp_path, "http://two") == UploadState()
    assert count_pending(tmp_path, "http://one") == 1
    assert count_pending(tmp_path, "http://two") == 2
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("text", ["", "{", '{"unheard": 1}', "[]"])
def test_a_damaged_state_starts_from_nothing(tmp_path, text):
    UploadState(run_id="r").save(tmp_path, "u")
    next(tmp_path.glob("upload-*.json")).write_text(text)
    assert UploadState.load(tmp_path, "u") == UploadState()


def test_a_state_beyond_the_log_belongs_to_another_log(tmp_path):
    UploadState(run_id="r", offset=10).save(tmp_path, "u")
    assert UploadState.load(tmp_path, "u") == UploadState()


def test_a_copy_outlives_its_source(tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.json").write_text(json.dumps(1))
    copy = tmp_path / "run" / keep_copy(tmp_path / "run", source)
    (source / "deep" / "a.json").write_text(json.dumps(2))
    assert (copy / "deep" / "a.json").read_text() == "1"
    assert (tmp_path / "run" / keep_copy(tmp_path / "run", source / "deep" / "a.json")).exists()
    with pytest.raises(FileNotFoundError):
        keep_copy(tmp_path / "run", tmp_path / "absent")


def test_a_lock_excludes_others_and_dies_with_its_process(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from pipeline.write_ahead_log import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        with locked(path, wait=False) as held:
            assert not held
        process.kill()
    with locked(path) as held:
        assert held
