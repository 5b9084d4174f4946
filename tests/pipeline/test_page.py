"""The page about a training: right facts, nothing from elsewhere, a line about what is missing."""

import json
import re
import shutil
from html import unescape

import pytest
from command_line import SETTINGS, checksums, dreamer

from dreamer.types import DataError
from pipeline.page.cost import Cost, duration, read_cost
from pipeline.page.evaluation import evaluations
from pipeline.page.facts import PLACARD, png_size
from pipeline.page.lineage import Difference, differences, outdated
from pipeline.page.sources import Source, open_source
from pipeline.params import leaves, load_raw, override, parse_yaml, subset
from pipeline.report.canvas import placard
from pipeline.report.reading import read_rows
from pipeline.report.tables import summarise
from pipeline.report.variation import Repeat, write_nothing, write_variation
from pipeline.stages.seeds import SEEDS
from pipeline.stages.session import STAGES, Workspace, pipeline_key
from pipeline.tracking.attach import attach
from pipeline.write_ahead_log import LogWriter, read_events

MET = re.compile(r"(?:src|href|url|import)\s*[=(]\s*[\"']?([^\"')\s>]+)")


@pytest.fixture(autouse=True)
def _without_tracking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMER_TRACKING", "off")


@pytest.fixture
def training(trained, tmp_path):
    """A finished training to change."""
    shutil.copytree(trained, tmp_path / "training")
    return tmp_path / "training"


def page_of(folder):
    return (folder / "reports" / "report.html").read_text()


def words(page):
    """What a page says, without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2])).split())


# Page and card ---------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(training, capsys):
    assert dreamer(capsys, "report", training).status == 0
    page = page_of(training)
    assert all(found.startswith("data:image/png;base64,") for found in MET.findall(page))
    assert "<script" not in page
    assert "<link" not in page
    assert page.count("<img ") == 3  # frames, imagined, goals: no maps, no attention in CartPole
    assert page.count("<svg ") >= 5


def test_the_page_tells_the_figures_and_the_differences(training, capsys):
    dreamer(capsys, "report", training)
    figures = json.loads((training / "reports/evaluate/metrics.json").read_text())
    text = words(page_of(training))
    mean, low, high = (
        f"{figures[f'episode/return{name}']:,.6g}" for name in ("", "_ci_low", "_ci_high")
    )
    assert f"best by validation {figures['episode/count']} {mean} {low} to {high}" in text
    for setting in SETTINGS:
        key, value = setting.split("=")
        assert re.search(rf"{re.escape(key)} \S+ {value} ", text)
    assert "What these stages cost is not known here: collect, pretrain, train, evaluate." in text
    assert figures["episode/count"] == 4


def test_the_card_has_a_head_for_hubs_and_the_same_figures(training, capsys):
    dreamer(capsys, "report", training)
    card = (training / "reports" / "model_card.md").read_text()
    _, head, body = card.split("---\n", 2)
    (index,) = parse_yaml(head)["model-index"]
    figures = json.loads((training / "reports/evaluate/metrics.json").read_text())
    (metric,) = index["results"][0]["metrics"]
    assert metric["value"] == figures["episode/return"]
    assert "| best by validation | 4 |" in body
    sha = json.loads((training / "models/agent/best/meta.json").read_text())["sha256"]
    assert sha in body
    assert sha in page_of(training)


def test_outs_stay_as_they_are_and_other_trainings_stand_beside(training, trained, capsys):
    outs = {out: checksums(training / out) for s in STAGES.values() for out in s.outs}
    dreamer(capsys, "report", training, "--beside", trained)
    assert {out: checksums(training / out) for out in outs} == outs
    assert "Validation return per episode" in page_of(training)
    assert f"seed 0 ({trained.name})" in words(page_of(training))


def test_other_seeds_are_curves_rows_and_a_figure(training, capsys):
    figures = json.loads((training / "reports/evaluate/metrics.json").read_text())
    best = {key: value for key, value in figures.items() if not key.startswith("last/")}
    shifted = {s: figures | {key: value + s for key, value in best.items()} for s in (0, 10, 20)}
    curve = [(100, 1.0), (400, 2.0)]
    repeats = [Repeat(seed, found, curve) for seed, found in shifted.items()]
    write_variation(training / "reports" / "seeds", repeats, "")
    assert dreamer(capsys, "report", training).err == []
    page, mean = page_of(training), best["episode/return"] + 10
    assert [n in page for n in ("seed 0", "seed 10", "seed 20")] == [True] * 3
    assert 'class="band"' in page
    assert f"{mean:,.6g} ± 10 mean and std of 3 seeds" in words(page)
    last = f"seed 20 {best['episode/count'] + 20} {best['episode/return'] + 20:,.6g} "
    assert last in words(page)
    said = f"on average {mean:,.6g} with a standard deviation of 10."
    assert said in words(page)
    assert said in (training / "reports" / "model_card.md").read_text()
    write_nothing(training / "reports" / "seeds")
    dreamer(capsys, "report", training)
    assert "mean and std of" not in page_of(training)
    assert 'class="band"' not in page_of(training)


def test_without_an_evaluation_the_page_says_so(training, capsys):
    shutil.rmtree(training / "reports" / "evaluate")
    shutil.rmtree(training / "models" / "agent")
    answer = dreamer(capsys, "report", training)
    assert answer.status == 0
    text = words(page_of(training))
    assert "No agent was trained yet. No agent was evaluated yet." in text
    assert "Evaluation" not in text.replace("evaluated", "")
    assert "note       No agent was evaluated yet." in answer.out


def test_names_of_environments_are_escaped(training, capsys):
    params = training / "params.yaml"
    params.write_text(params.read_text().replace('"CartPole-v1"', '"a<script>b"'))
    dreamer(capsys, "report", training)
    assert "<script>" not in page_of(training)
    assert "a&lt;script&gt;b" in page_of(training)


def test_mistakes_are_one_line(training, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    answer = dreamer(capsys, "report", tmp_path / "empty")
    assert answer.status == 2
    assert len(answer.err) == 1
    assert "found no training" in answer.err[0]
    (training / "reports/evaluate/metrics.json").write_text('{"episode/return": 1}')
    answer = dreamer(capsys, "report", training)
    assert answer.status == 2
    assert "episode/count" in answer.err[0]
    assert "metrics.json" in answer.err[0]


# Parts -----------------------------------------------------------------------------------------


def test_a_placard_is_known_by_its_height(tmp_path):
    placard(tmp_path / "a.png", "nothing to show")
    assert png_size(tmp_path / "a.png") == (840, PLACARD)


def test_figures_come_back_from_what_evaluate_writes():
    figures = summarise([1.0, 3.0], [5, 7], seed=0) | {"episode/score": 0.5}
    (found,) = evaluations(figures | {"other": 1.0}, "metrics.json")
    assert (found.episodes, found.mean, found.lowest, found.highest) == (2, 2.0, 1.0, 3.0)
    assert (found.length, found.scores) == (6.0, {"score": 0.5})
    assert list(evaluations({}, "metrics.json")) == []


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,\n2,3\n")
    assert read_rows(tmp_path / "a.csv") == [{"x": 1.0}, {"x": 2.0, "y": 3.0}]
    assert read_rows(tmp_path / "none.csv") == []
    (tmp_path / "a.csv").write_text("x,y\n1,none\n")
    with pytest.raises(DataError, match=r"a\.csv"):
        read_rows(tmp_path / "a.csv")


def test_differences_see_types_and_keys_of_one_side():
    base = {"a": {"x": 1, "y": True, "old": 2}, "b": "same"}
    here = {"a": {"x": 1.0, "y": True, "new": [1]}, "b": "same"}
    assert differences(base, here) == [
        Difference("a.x", "1", "1.0"),
        Difference("a.new", "(not there)", "[1]"),
        Difference("a.old", "2", "(not there)"),
    ]


def event(kind, time_ms, **body):
    return json.dumps({"kind": kind, "time": time_ms} | body) + "\n"


def test_cost_counts_work_and_not_the_time_between_starts(tmp_path):
    tags = {"git_commit": "0123456789abcdef", "git_dirty": "true"}
    (tmp_path / "events.jsonl").write_text(
        event("start", 0, tags={})
        + event("metrics", 4_000, values={"perf/updates_per_s": 3.0})
        + "torn\n"
        + event("start", 1_000_000, tags=tags)
        + event("metrics", 1_001_000, values={"perf/updates_per_s": 5.0})
        + event("finish", 1_002_500, status="FINISHED")
    )
    name = tmp_path.name
    assert read_cost("train", tmp_path) == Cost(
        "train", name, 6.5, 2, "1970-01-01", 5.0, "0123456789ab*"
    )
    assert read_cost("train", tmp_path / "none") is None


def test_durations_in_words():
    assert [duration(s) for s in (4.25, 200, 3900)] == ["4.2 s", "3 min 20 s", "1 h 05 min"]


def test_stages_that_the_lock_knows_otherwise_are_named(trained, tmp_path):
    raw = load_raw(trained / "params.yaml")
    stages = {}
    for name, stage in (STAGES | {"seeds": SEEDS}).items():
        part = dict(leaves(subset(raw, stage.params)))
        nested = subset(raw, [p for p in stage.params if "." not in p])
        dotted = {key: part[key] for key in stage.params if "." in key}
        stages[name] = {"params": {"params.yaml": nested | dotted}}
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": stages}))

    def stale(raw):
        return outdated(Source(workspace=Workspace(tmp_path), raw=raw, repository=True))

    assert stale(raw) == []
    assert stale(raw | {"seed": 1}) == ["collect", "pretrain", "train", "seeds"]
    assert stale(override(raw, {"seeds.also": [1]})) == ["seeds"]
    assert stale({key: raw[key] for key in raw if key != "seeds"}) == []
    (tmp_path / "dvc.lock").unlink()
    assert stale(raw) == [*STAGES, "seeds"]


# Tracking --------------------------------------------------------------------------------------


def test_the_page_waits_in_the_log_of_the_pipeline_while_the_server_is_away(
    training, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("DREAMER_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:9/none")
    last = dreamer(capsys, "report", training).out[-1]
    assert last == "MLflow     not logged, no run of these parameters and this code is tracked here"
    run = tmp_path / ".runs" / pipeline_key(open_source(training, tmp_path).raw)
    log = LogWriter(run)
    identity = {"experiment": "dreamer", "key": run.name, "name": "x", "parent_key": None}
    log.append("start", identity | {"tags": {}, "parent_run_id": None})
    log.close()
    assert "waits for `dreamer sync`" in dreamer(capsys, "report", training).out[-1]
    kept = [run / e.body["path"] for e in read_events(run) if e.kind == "artifact"]
    assert [path.name for path in kept] == ["report.html", "model_card.md"]
    assert kept[0].read_text() == page_of(training)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::alembic", "ignore:::sqlalchemy")
def test_the_page_becomes_an_artifact_and_the_run_stays_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMER_TRACKING", "on")
    from pipeline.tracking import RunIdentity, Tracker
    from pipeline.tracking.store import connect, find_run

    run = RunIdentity(experiment="exp", key="k", name="k", parent_key=None, tags={})
    with Tracker(tmp_path / ".runs" / "k", run, root=tmp_path, exit_wait=300):
        pass
    client = connect(tmp_path)
    experiment = client.get_experiment_by_name("exp").experiment_id
    before = find_run(client, experiment, "k").info
    (tmp_path / "report.html").write_text("page")
    assert attach(tmp_path, "k", [tmp_path / "report.html"], "report") == "logged"
    after = find_run(client, experiment, "k").info
    assert (after.status, after.end_time) == ("FINISHED", before.end_time)
    found = client.list_artifacts(after.run_id, "report")
    assert [item.path for item in found] == ["report/report.html"]
