from __future__ import annotations

import io
import logging
import re
import sys
import timeit

import pytest

from dreamer.types import ConfigError
from pipeline.progress import (
    OURS,
    Progress,
    announce,
    configure_logging,
    duration,
    log_episode,
    log_metrics,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def _logging_restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = {name: logging.getLogger(name).level for name in OURS}
    root.handlers[:] = []  # else pytest's own would be closed
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, number in ours.items():
        logging.getLogger(name).setLevel(number)


@pytest.fixture
def stderr(monkeypatch, _logging_restored):
    def use(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return use


def lines_of(terminal):
    """Every state that the line had."""
    return re.split(r"\r\x1b\[K", terminal.getvalue())[1:]


def test_the_line_says_how_far_how_fast_and_how_long(stderr):
    clock, terminal = Clock(), stderr(Terminal())
    progress = Progress(20000, "steps", clock=clock)
    progress.update(12000, updates=500, **{"return": 150.5})
    clock.now += 10.0
    progress.update(12800, updates=550, **{"return": 151.0})
    progress.close()
    first, second = lines_of(terminal)
    assert first == "12,000/20,000 steps  60%  return 150.5"  # no rate from a single moment
    # 800 steps in 10 s: the 7,200 left take 90 s; 50 updates in 10 s.
    assert second == "12,800/20,000 steps  64%  return 151  5 updates/s  1 min 30 s left\n"


def test_the_rate_is_of_the_unit_when_there_are_no_other_updates(stderr):
    clock, terminal = Clock(), Terminal()
    progress = Progress(100, "updates", terminal, clock)
    progress.update(0)
    clock.now += 4.0
    progress.update(50)
    assert lines_of(terminal)[-1] == "50/100 updates  50%  12.5 updates/s  4 s left"


def test_a_number_stays_until_it_is_given_again():
    clock, terminal = Clock(), Terminal()
    progress = Progress(100, "steps", terminal, clock)
    progress.update(10, length=7, updates_per_s=9.75)
    progress.update(20, length=8)  # too soon to draw, but not forgotten
    clock.now += 1000.0
    progress.update(30)
    shown = [line.split("  ")[2:4] for line in lines_of(terminal)]
    assert shown == [["length 7", "9.75 updates/s"], ["length 8", "9.75 updates/s"]]


def test_the_line_is_drawn_at_most_five_times_a_second_and_at_the_end():
    clock, terminal = Clock(), Terminal()
    progress = Progress(1000, "updates", terminal, clock)
    for done in range(1, 1001):
        progress.update(done)
        clock.now += 0.001
    drawn = [line.split("/")[0] for line in lines_of(terminal)]
    assert drawn == ["1", "201", "401", "601", "801", "1,000"]


def test_the_rate_forgets_what_is_older_than_the_window():
    clock, terminal = Clock(), Terminal()
    progress = Progress(10_000, "steps", terminal, clock)
    for second in range(200):  # 1 step a second, then 10
        progress.update(second if second < 100 else 100 + 10 * (second - 100))
        clock.now += 1.0
    assert "  10 steps/s  14 min 51 s left" in lines_of(terminal)[-1]


def test_a_line_never_fills_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    Progress(10**6, "steps", terminal, Clock()).update(1, **{"return": 123.0, "length": 1.0})
    assert len(lines_of(terminal)[0]) == 29


def test_a_total_of_zero_is_all_done():
    terminal = Terminal()
    Progress(0, "updates", terminal, Clock()).update(0)
    assert lines_of(terminal) == ["0/0 updates  100%"]


@pytest.mark.parametrize("dumb", [True, False])
def test_nothing_is_drawn_without_a_terminal(monkeypatch, dumb):
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    stream = Terminal() if dumb else io.StringIO()
    with Progress(10, "steps", stream) as progress:
        for done in range(11):
            progress.update(done, updates=done)
    assert stream.getvalue() == ""


def test_an_error_starts_on_a_line_of_its_own():
    terminal = Terminal()

    def fail():
        with Progress(10, "steps", terminal, Clock()) as progress:
            progress.update(5)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_an_update_without_drawing_is_cheap(stream):
    progress = Progress(10**9, "steps", stream, lambda: 0.0)
    progress.update(0)
    best = min(timeit.repeat(lambda: progress.update(1, updates=1, ret=1.0), number=200, repeat=20))
    assert best / 200 < 20e-6


def test_piped_output_is_plain_log_lines(stderr):
    stream = stderr(io.StringIO())
    configure_logging("info")
    log_metrics(1000, {"world/recon_loss": 0.123449, "policy/return": 1234.56789, "n": 3})
    log_episode(150.5, 200)
    assert stream.getvalue() == (
        "INFO - Step 1000: {'world/recon_loss': 0.1234, 'policy/return': 1234.5679, 'n': 3}\n"
        "INFO - Episode return: 150.5, length: 200\n"
    )


def test_on_a_terminal_episodes_are_left_to_the_line(stderr):
    terminal = stderr(Terminal())
    configure_logging("info")
    log_episode(150.5, 200)
    log_metrics(1, {"loss": 1.0})
    assert terminal.getvalue() == ""
    configure_logging("debug")
    log_episode(150.5, 200)
    assert terminal.getvalue() == "\r\x1b[KDEBUG - Episode return: 150.5, length: 200\n"


def test_a_record_takes_the_place_of_the_line(stderr):
    terminal = stderr(Terminal())
    configure_logging("info")
    progress = Progress(10, "steps", clock=Clock())
    progress.update(5)
    logging.getLogger("pipeline.anything").warning("the server is away")
    assert lines_of(terminal) == ["5/10 steps  50%", "WARNING - the server is away\n"]


def test_levels_select_our_records_and_keep_libraries_quiet(stderr):
    stream = stderr(io.StringIO())
    for level in ("debug", "info", "warning", "error"):
        configure_logging(level)
        for name in ("dreamer.agent", "pipeline.tracking", "__main__", "library"):
            for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                logging.getLogger(name).log(number, "%s %s", level, name)
    shown = [line.split(" - ") for line in stream.getvalue().splitlines()]
    for name in ("dreamer.agent", "pipeline.tracking", "__main__"):
        counts = [sum(text == f"{at} {name}" for _, text in shown) for at in ("debug", "info")]
        assert counts == [4, 3]
    assert [(kind, text) for kind, text in shown if text.endswith("library")] == [
        *[
            (kind, f"{at} library")
            for at in ("debug", "info", "warning")
            for kind in ("WARNING", "ERROR")
        ],
        ("ERROR", "error library"),
    ]


def test_an_unknown_level_is_refused():
    with pytest.raises(ConfigError, match=r"log_level: found 'loud'; allowed: one of \['debug'"):
        configure_logging("loud")


@pytest.mark.parametrize(
    ("updates", "seconds", "said"),
    [
        (2500, 0.1, "This run owes 2,500 updates, about 4 min 10 s at 0.1 s each."),
        (2500, None, "This run owes 2,500 updates."),
        (0, 0.1, "No update is left to do."),
    ],
)
def test_a_run_says_what_it_owes(stderr, updates, seconds, said):
    stream = stderr(io.StringIO())
    configure_logging("info")
    announce(updates, seconds)
    assert stream.getvalue() == f"INFO - {said}\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (4 * 86400 + 3 * 3600, "4 d 3 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
