"""Questions: their runs, what their measures say of known rows, their page; one real variant."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import evidence
from benchmarks.claims import MATRIX
from benchmarks.evidence import main
from benchmarks.evidence_rows import (
    Job,
    Times,
    overrides_of,
    parameters_of,
    preset_raw,
    raw_of,
    read_row,
)
from benchmarks.evidence_run import work
from benchmarks.final_rates import final_rates, last_logged
from benchmarks.measures import (
    Expectation,
    Results,
    best_lead,
    distance_from,
    farthest_rate,
    gap,
    greatest_score,
    highest,
    lead,
    least_score,
    lowest,
    mean,
    mean_score,
    runs_on_a_bound,
    share,
)
from benchmarks.question import Question, Task
from benchmarks.question_page import answer
from benchmarks.questions import QUESTIONS
from benchmarks.results_page import write_page
from benchmarks.selection import jobs_of, once, question_jobs, select
from benchmarks.variants import FLAT, META, icm, rates, repeated
from benchmarks.withheld_table import withheld_part
from dreamer.meta_gradient import MetaGradient
from dreamer.types import ConfigError, DataError
from pipeline.params import from_raw

SLOW_FAST = Task(
    preset="smoke",
    mark="long",
    changes={"train.env_steps": 800},
    arms={"flat": FLAT, "curious": FLAT | icm(0.5)},
    seeds=(0, 1),
)
QUESTION = Question(
    name="toy",
    text="Is curiosity better?",
    tasks=(SLOW_FAST,),
    expectations=(
        Expectation(text="curious", measure=mean("smoke-long-curious"), at_least=30.0),
        Expectation(text="flat fails", measure=highest("smoke-long-flat"), at_most=25.0),
    ),
    analysis=("Why it is so.",),
)


def fake(job: Job, best: float, seconds: float = 60.0, **more: object) -> dict:
    agent = {"return": best, "return_ci_low": best - 1.0, "return_ci_high": best + 1.0}
    raw = raw_of(job)
    row = {
        "preset": job.preset,
        "seed": job.seed,
        "variant": job.variant,
        "overrides": overrides_of(job, preset_raw(job)),
        "changed": {},
        "parameters": parameters_of(job, raw),
        "best": agent,
        "last": {"return": best - 1.0},
        "validation": [[400, best - 3.0], [800, best - 1.0]],
        "last_validations": best - 2.0,
        "env_steps": 800,
        "updates": 4,
        "seconds": {"collect": 0.0, "train": seconds},
        "restarts": 0,
        "unmeasured": 0,
        "circumstances": {"commit": "fedcba9876543210", "dirty": True, "threads": 1} | CPU,
        "fingerprint": "f" * 64,
    }
    return row | more


CPU = {
    "cpu": "Abacus 9000", "device": "cpu", "side_by_side": 2, "malloc_tuned": True,
    "python": "3.12.1", "torch": "2.13.0", "code": "c" * 64,
}  # fmt: skip


def put(folder: Path, job: Job, row: dict) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{job.name}.json").write_text(json.dumps(row))


def put_all(folder: Path, returns: dict[str, tuple[float, ...]]) -> None:
    for arm, values in returns.items():
        for job, value in zip(SLOW_FAST.jobs(arm), values, strict=False):
            put(folder, job, fake(job, value))


# --- the table ------------------------------------------------------------------------------------


def test_every_variant_has_valid_parameters_that_its_rates_allow():
    for job in jobs_of((), QUESTIONS):
        if job.seed in (None, 0):
            raw = raw_of(job)
            params = from_raw(raw)
            if params.meta.enabled:
                start = {
                    "world": params.world_model.world_lr,
                    "actor": params.policy.actor_lr,
                    "critic": params.policy.critic_lr,
                }
                MetaGradient(start, params.meta, torch.device("cpu"))


def test_every_arm_has_three_seeds_and_every_expectation_names_runs_that_exist():
    for question in QUESTIONS:
        stems = {job.stem for job in question_jobs(question)}
        row = fake(Job("smoke", 0), 500.0) | {"rates": RATE, "withheld": WITHHELD}
        results = Results({stem: [row] for stem in stems}, dict.fromkeys(stems, 1.0))
        for each in question.claims:
            assert each.measure(results) is not None, f"{question.name}: {each.text}"
        for task in question.tasks:
            assert len(set(task.seeds)) >= 3


SCORES = {"return": 8.3, "bit0": 0.5, "bit1": 1.0, "bit2": 1.0, "trial": 0.5}
WITHHELD = dict.fromkeys(("nothing", "image", "text", "audio", "vector"), SCORES)
RATE = {"meta/lr": {"tuned": 1e-3, "start": 1e-2, "final": 5e-4, "near": True, "on_bound": False}}


def test_flat_is_flat():
    params = from_raw(raw_of(Job("cartpole", 0, "flat", tuple(FLAT.items()))))
    intrinsic = params.intrinsic
    on = (intrinsic.icm.enabled, intrinsic.empowerment.enabled, params.meta.enabled)
    assert (params.policy.hierarchy, *on) == (False, False, False, False)


def test_two_meanings_of_one_name_are_refused():
    jobs = [Job("smoke", 0, "a", (("seed", 1),)), Job("smoke", 0, "a", (("seed", 2),))]
    with pytest.raises(ConfigError, match="smoke-a-seed0"):
        once(jobs)
    assert once([jobs[0], jobs[0]]) == [jobs[0]]


def test_selection():
    everything = {job.name for job in select(None)}
    assert everything == {job.name for job in jobs_of(MATRIX, QUESTIONS)}
    assert "cartpole-seed4" in everything
    plain = [job.name for job in select("cartpole")]
    assert plain == ["cartpole-random", *(f"cartpole-seed{i}" for i in range(5))]
    sea = [job.name for job in select("exploration/flat")]
    assert sea[:2] == ["deep_sea-random", "deep_sea-size12-random"]
    assert {"deep_sea-flat-seed0", "deep_sea-size12-flat-seed2"} <= set(sea)
    assert not any("icm" in name for name in sea)
    assert [job.name for job in select("deep_sea-size12-icm")] == [
        f"deep_sea-size12-icm-seed{i}" for i in range(3)
    ]
    for nothing in ("exploration/flut", "cartpool"):
        with pytest.raises(ConfigError, match="--only"):
            select(nothing)


# --- variants -------------------------------------------------------------------------------------


def test_multiples_keep_whole_numbers_whole_and_short_ones_short():
    assert (Times(1 / 5).of(60000), type(Times(0.2).of(5))) == (12000, int)
    assert (Times(10).of(3e-4), Times(0.1).of(1e-3)) == (3e-3, 1e-4)


def test_repeated_actions_leave_environment_steps_and_updates_equal():
    once_, five = raw_of(Job("key_chain", 0)), raw_of(Job("key_chain", 0, "x", REPEATED))
    for key in ("env_steps", "eval_every"):
        assert five["train"][key] * 5 == once_["train"][key]
    assert five["collect"]["steps"] * 5 == once_["collect"]["steps"]

    def updates(raw: dict) -> float:
        fresh = raw["train"]["env_steps"] - raw["collect"]["steps"]
        return fresh * raw["train"]["updates_per_env_step"]

    assert updates(five) == pytest.approx(updates(once_))


REPEATED = tuple(repeated(5).items())


def test_changes_follow_the_task_and_multiples_those_before_them():
    job = Job("smoke", 0, "x", (("policy.actor_lr", 1e-3), *rates(10).items()))
    assert raw_of(job)["policy"]["actor_lr"] == 1e-2
    with pytest.raises(ConfigError, match=r"policy\.actor_lrr"):
        raw_of(Job("smoke", 0, "x", (("policy.actor_lrr", Times(2)),)))


def test_a_row_of_another_variant_is_refused(tmp_path):
    flat, curious = (SLOW_FAST.jobs(arm)[0] for arm in ("flat", "curious"))
    put(tmp_path, curious, fake(flat, 1.0))
    with pytest.raises(DataError, match="allowed: a row of smoke-long-curious-seed0"):
        read_row(curious, tmp_path)


# --- measures -------------------------------------------------------------------------------------


def results(**returns: list[float]) -> Results:
    rows = {
        stem: [fake(Job("smoke", 0), value) for value in all_] for stem, all_ in returns.items()
    }
    return Results(rows, {"task": 10.0})


def test_measures_of_known_rows():
    known = results(a=[100.0, 50.0], b=[40.0], c=[20.0])
    assert (mean("a")(known), highest("a")(known), lowest("a")(known)) == (75.0, 100.0, 50.0)
    assert (lead("b", "a")(known), gap("b", "a")(known)) == (-35.0, 35.0)
    assert best_lead(["b", "c"], "a")(known) == -35.0
    assert share("b", "a", "task")(known) == pytest.approx(30 / 65)
    for measure in (mean("x"), lead("a", "x"), gap("x", "a"), share("x", "a", "task")):
        assert measure(known) is None
    assert share("b", "a", "elsewhere")(known) is None
    assert share("b", "a", "task")(known._replace(random={"task": 75.0})) is None


def test_scores_of_deprived_agents():
    seeds = [{"a": {"x": 0.9, "y": 0.5}}, {"a": {"x": 0.8, "y": 0.58}}]
    known = Results({"s": [{"withheld": each} for each in seeds]}, {})
    assert least_score("s", "a", ("x", "y"))(known) == 0.5
    assert greatest_score("s", "a", "x")(known) == 0.9
    assert mean_score("s", "a", "x")(known) == pytest.approx(0.85)
    assert distance_from(0.5, "s", "a", "y")(known) == pytest.approx(0.08)
    empty = Results({}, {})
    assert least_score("s", "a", ("x",))(empty) is None
    assert mean_score("s", "a", "x")(empty) is None
    assert distance_from(0.5, "s", "a", "x")(empty) is None


def test_deprived_agents_have_a_table_of_their_own():
    figures = {"return": 4.0, "return_std": 1.0, "length": 9.0, "count": 7, "bit0": 0.5}
    rows = [{"withheld": {"nothing": figures | {"return": 8.0}, "audio": figures}}]
    assert "".join(withheld_part({"plain": [{}], "none": []})) == ""
    said = "\n".join(withheld_part({"all": rows, "none": []}))
    assert "one modality withheld, 7 episodes each" in said
    assert "| variant | withheld | return | bit0 |" in said
    assert "| all | nothing | 8.000 | 0.500 |" in said
    assert "| all | audio | 4.000 | 0.500 |" in said


def test_the_acting_rate_alone_is_judged_by_its_farthest_seed_and_the_bounds():
    good = RATE["meta/lr"]
    bad = good | {"final": 1e-2, "on_bound": True}
    rows = [{"rates": RATE}, {"rates": {"meta/lr": good, "meta/lr_world": bad}}, {}]
    acting = {"rates": {"meta/lr": good | {"final": good["tuned"] / 4}, "meta/lr_world": bad}}
    known = Results({"a": rows, "c": [*rows, acting]}, {})
    assert farthest_rate("a")(known) == pytest.approx(2.0)
    assert farthest_rate("c")(known) == pytest.approx(4.0)
    bound = {"rates": {"meta/lr": bad}}
    assert runs_on_a_bound("a")(known) == 0.0
    assert runs_on_a_bound("d")(known._replace(rows={"d": [*rows, bound, bound]})) == 2.0
    assert runs_on_a_bound("b")(known) is None
    assert farthest_rate("b")(known) is None


def test_expectations_are_met_at_their_threshold():
    low = Expectation(text="x", measure=mean("a"), at_least=1.0)
    high = Expectation(text="x", measure=mean("a"), at_most=1.0)
    assert [low.met_by(x) for x in (None, 0.9, 1.0, 1.1)] == [False, False, True, True]
    assert [high.met_by(x) for x in (None, 0.9, 1.0, 1.1)] == [False, True, True, False]
    for thresholds in ({}, {"at_least": 1.0, "at_most": 2.0}):
        with pytest.raises(ValueError, match="needs one"):
            Expectation(text="x", measure=mean("a"), **thresholds)


# --- rates ----------------------------------------------------------------------------------------


def test_final_rates_are_the_last_logged(tmp_path):
    table = tmp_path / "metrics.csv"
    head = "update,meta/lr,meta/lr_world,meta/lr_manager,meta/gradient_actor"
    table.write_text(f"{head}\n50,0.1,0.1,0.1,7\n100,0.001,0.01,1e-06,7\n150,,,,7\n")
    assert last_logged(table) == {"meta/lr": 1e-3, "meta/lr_manager": 1e-6, "meta/lr_world": 1e-2}
    tuned = preset_raw(Job("cartpole", 0))
    raw = raw_of(Job("cartpole", 0, "x", tuple((rates(10) | META).items())))
    found = final_rates(table, raw, tuned)
    start = tuned["policy"]["actor_lr"]
    assert found["meta/lr"]["tuned"] == start
    assert found["meta/lr"]["start"] == pytest.approx(10 * start)
    assert found["meta/lr"]["near"] is (start / 3 <= 1e-3 <= 3 * start)
    assert [found[name]["on_bound"] for name in found] == [False, True, True]
    table.write_text("update,meta/lr_tail\n50,0.1\n")
    with pytest.raises(DataError, match="meta/lr_tail"):
        final_rates(table, raw, tuned)
    table.write_text("update,world/loss\n50,0.1\n")
    assert final_rates(table, raw, tuned) == {}


# --- page -----------------------------------------------------------------------------------------


def page_of(folder: Path) -> str:
    write_page((), (QUESTION,), folder / "results", folder / "results.md")
    return (folder / "results.md").read_text()


def test_section_of_known_rows(tmp_path):
    put_all(tmp_path / "results", {"flat": (20.0, 22.0), "curious": (40.0, 50.0)})
    found = answer(QUESTION, tmp_path / "results")
    assert found.verdict == "met"
    page = page_of(tmp_path)
    assert "| [toy](#toy) | 4 of 4 | 4 of 4 | met |" in page
    assert "- curious, at least 30 needed: 45.00, met\n" in page
    assert "- flat fails, at most 25 needed: 22.00, met\n" in page
    assert "\nWhy it is so.\n\n" in page
    assert "- minutes of the longest run, at most 30 needed: 1.000, met" in page
    assert (
        "| curious | 0, 1 | 45.00 +- 7.07 (40.00 .. 50.00) | 44.00 +- 7.07 (39.00 .. 49.00) | "
        "43.00 +- 7.07 (38.00 .. 48.00) | 43.00 +- 7.07 | 800 | 1.0 | fedcba9876* |" in page
    )
    assert "`intrinsic.icm.weight: 0.5`" in page
    assert "Stale" not in page
    picture = tmp_path / "results" / "question-toy.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    first = picture.read_bytes()
    assert (page_of(tmp_path), picture.read_bytes()) == (page, first)


@pytest.mark.parametrize(
    ("returns", "seconds", "line"),
    [
        ({"flat": (20.0, 26.0), "curious": (40.0, 50.0)}, 60.0, "flat fails, at most 25 needed"),
        ({"flat": (20.0, 22.0), "curious": (29.0, 30.0)}, 60.0, "curious, at least 30 needed"),
        ({"flat": (20.0, 22.0), "curious": (40.0, 50.0)}, 1900.0, "minutes of the longest run"),
    ],
)
def test_every_expectation_can_fail_alone(tmp_path, returns, seconds, line):
    put_all(tmp_path / "results", returns)
    job = SLOW_FAST.jobs("flat")[0]
    put(tmp_path / "results", job, fake(job, returns["flat"][0], seconds))
    failed = [text for text in page_of(tmp_path).splitlines() if text.endswith(", not met")]
    assert len(failed) == 1
    assert failed[0].startswith(f"- {line}")
    assert answer(QUESTION, tmp_path / "results").verdict == "not met"


def test_a_question_stays_open_until_every_run_is_finished(tmp_path):
    put_all(tmp_path / "results", {"flat": (20.0, 22.0), "curious": (40.0,)})
    page = page_of(tmp_path)
    assert "Verdict: **open** (3 of 4 runs finished)." in page
    assert "| curious | 0 | 40.00 | 39.00 |" in page


def test_page_of_no_rows(tmp_path):
    page = page_of(tmp_path)
    assert "| [toy](#toy) | 0 of 4 | 0 of 4 | open |" in page
    assert "- curious, at least 30 needed: not measured yet" in page
    assert "png" not in page


def test_rows_tell_where_rates_ended_and_what_is_newer_than_they(tmp_path):
    put_all(tmp_path / "results", {"flat": (20.0, 22.0)})
    first, second = SLOW_FAST.jobs("flat")
    put(tmp_path / "results", first, fake(first, 20.0, rates=RATE))
    row = fake(second, 22.0, rates={"meta/lr": RATE["meta/lr"] | {"final": 9e-3, "near": False}})
    for key in [key for key in row["parameters"] if key.startswith("meta.")]:
        del row["parameters"][key]
    del row["parameters"]["policy.slow_rate"]
    row["parameters"]["policy.epochs"] = 77
    put(tmp_path / "results", second, row)
    page = page_of(tmp_path)
    assert (
        "| smoke-long-flat | meta/lr | 0.001 | 0.01 | 0.0005 .. 0.009 | 1 of 2 | 0 of 2 |" in page
    )
    assert (
        "Earlier: smoke-long-flat-seed1 are of commit fedcba9876, when there was no "
        "`policy.slow_rate`, `meta.*` yet;" in page
    )
    assert (
        "Stale: smoke-long-flat-seed1 was made with other parameters (policy.epochs: then" in page
    )


def test_repeated_actions_count_as_environment_steps(tmp_path):
    job = SLOW_FAST.jobs("flat")[0]
    row = fake(job, 20.0)
    row["parameters"]["env.action_repeat"] = 4
    put(tmp_path / "results", job, row)
    assert "| 3,200 | 1.0 |" in page_of(tmp_path)


# --- command and one real run ---------------------------------------------------------------------


def test_the_list_counts_and_an_unknown_name_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    monkeypatch.setattr(evidence, "WORK", tmp_path / "work")
    assert main(["--list", "--only", "empowerment/icm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pits-soon-random: missing"
    assert lines[-1] == "0 of 4 rows are there"
    assert main(["--only", "empowerment/icn"]) == 2
    assert "--only: found 'empowerment/icn'; allowed: icm, icm-emp0.03" in capsys.readouterr().err


def test_a_real_variant_ends_in_a_row_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    changes = META | {"meta.warmup": 1, "meta.every": 2, "train.env_steps": 500}
    job = Job("smoke", 1, "tuning", tuple((FLAT | changes).items()), deprived=4)
    work(job, 1, tmp_path / "work", tmp_path)
    row = read_row(job, tmp_path)
    assert (row["variant"], row["seed"]) == ("tuning", 1)
    assert row["overrides"] == FLAT | changes
    assert row["changed"]["policy.hierarchy"] is False
    assert row["command"] == ".venv/bin/python -m benchmarks.evidence --only smoke-tuning"
    assert row["circumstances"]["threads"] == 1
    assert row["env_steps"] == 504
    assert set(row["rates"]) == {"meta/lr", "meta/lr_critic", "meta/lr_world"}
    assert all(rate["near"] and not rate["on_bound"] for rate in row["rates"].values())
    assert list(row["withheld"]) == ["nothing", "vector"]
    assert all(figures["count"] == 4 for figures in row["withheld"].values())
    assert row["withheld"]["nothing"] != row["withheld"]["vector"]
    assert read_row(Job("smoke", 1), tmp_path) is None
