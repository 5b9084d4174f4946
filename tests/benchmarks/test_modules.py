"""The cost of modules: who is switched on, how times are put together, and one tiny comparison."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks import learner, modules
from benchmarks.modules import AGENTS, ALL, FLAT, Timed, measure, report
from benchmarks.timing import Stopwatch
from benchmarks.workloads import META_EVERY, MODULES, WORKLOADS, make_batch, make_trainer

TINY = replace(WORKLOADS["tiny"], seq_len=4, batch_size=2, horizon=5)


def test_agents_have_the_modules_of_their_names():
    for name, switched in AGENTS.items():
        trainer = make_trainer(TINY, switched)
        found = {
            "hierarchy": trainer.behavior.goals is not None,
            "icm": trainer.intrinsic.icm is not None,
            "empowerment": trainer.intrinsic.empowerment is not None,
            "meta": trainer.tuning is not None,
        }
        wanted = {
            module: name == ALL or name not in (FLAT, f"without {module}") for module in MODULES
        }
        assert found == wanted, name


def test_an_update_is_the_mean_over_a_cycle_and_a_share_of_a_meta_step():
    timed = Timed(TINY, ())
    timed.updates = [1.0, 3.0, 1.0, 5.0, 1.0, 4.0]  # medians 1 and 4 of the two phases
    assert timed.milliseconds() == pytest.approx(2500.0)
    timed.meta = [2.0, 6.0, 2.0]
    assert timed.milliseconds() == pytest.approx(2500.0 + 2000.0 / META_EVERY)


def test_a_stopwatch_does_not_count_what_its_parts_call(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))

    class Work:
        def inner(self) -> None:
            next(now)

        def outer(self) -> None:
            self.inner()

    work, watch = Work(), Stopwatch()
    watch.wrap(work, "inner", "in")
    watch.wrap(work, "outer", "out")
    work.outer()
    assert watch.seconds == {"in": 2.0, "out": 2.0}  # ticks: out 0, in 1, work 2, in 3, out 4


def test_the_comparison_names_every_share():
    result = measure(2, TINY)
    assert set(result["ms_of_agent"]) == set(AGENTS)
    assert set(result["ms_of_module"]) == set(MODULES)
    assert result["ratio"] == result["ms_of_agent"][ALL] / result["ms_of_agent"][FLAT]
    assert result["ms_of_hierarchy"]["manager"] > 0
    assert result["ms_of_meta_step"] > 0
    text = report(result | {"ratio": 1.4})
    assert "1.400      limit met (aim 1.35, limit 1.5)" in text
    for name in (*MODULES, "manager", "worker extra", "goals"):
        assert f"  {name} " in text
    assert "too slow" in report(result | {"ratio": 1.51})
    assert "aim met" in report(result | {"ratio": 1.35})


def test_the_command_prints_one_json_line(monkeypatch, capsys):
    real = modules.measure
    monkeypatch.setattr(modules, "measure", lambda updates: real(updates, TINY))
    words = ["learner", "--workload", "modules", "--updates", "2", "--threads", "1", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    learner.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["workload"], result["updates"], result["threads"]) == ("modules", 2, 1)


def test_the_random_batch_suits_everything_on():
    trainer = make_trainer(TINY, MODULES)
    result = trainer.update_step(make_batch(TINY, trainer), 0, 1.0)
    trainer.read(result.metrics)  # refuses what is not finite
