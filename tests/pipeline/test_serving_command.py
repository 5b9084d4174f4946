"""`dreamer package` and `dreamer serve`: what they say, and whose code is run."""

from __future__ import annotations

import os
import sys

import pytest
from builders import vector_spec
from command_line import checksums, dreamer
from served import save


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model, as far as `dreamer serve` looks."""
    folder = tmp_path_factory.mktemp("model")
    server = folder / "code" / "pipeline" / "serving" / "server.py"
    for path in (server, folder / "artifacts" / "agent" / "meta.json"):
        path.parent.mkdir(parents=True)
        path.touch()
    return folder


def test_a_model_is_written_once(capsys, tmp_path):
    save(tmp_path / "best", vector_spec(3, discrete=(2,)))
    out = tmp_path / "new" / "model"
    answer = dreamer(capsys, "package", tmp_path, "--out", out)
    assert answer.status == 0
    assert answer.out[0] == f"{out}: the MLflow model of {tmp_path / 'best'}"
    assert any(f"mlflow models serve -m {out} --env-manager local" in line for line in answer.out)
    before = checksums(out)
    assert {"MLmodel", "artifacts/agent/meta.json", "code/pipeline/serving/server.py"} <= set(
        before
    )
    again = dreamer(capsys, "package", tmp_path, "--out", out)
    assert (again.status, again.out) == (2, [])
    assert again.err == [f"dreamer: error: {out}: cannot write the model: the folder is not empty"]
    assert checksums(out) == before


def test_serving_runs_the_code_of_the_model(capsys, model, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "execve", lambda *words: seen.append(words) or sys.exit(0))
    monkeypatch.setenv("PYTHONPATH", "mine")
    assert dreamer(capsys, "serve", model, "--port", 5005, "--workers", 2).status == 0
    [(program, words, environment)] = seen
    agent = str(model / "artifacts" / "agent")
    options = ["--host", "127.0.0.1", "--port", "5005", "--workers", "2"]
    assert program == sys.executable
    assert words == [program, "-P", "-m", "pipeline.serving.server", agent, *options]
    assert environment["PYTHONPATH"] == os.pathsep.join([str(model / "code"), "mine"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--port", 0], "--port: found 0; allowed: 1 to 65535"),
        (["--workers", 0], "--workers: found 0; allowed: 1 to 256"),
        (["--port", "http"], "argument --port: found 'http'; allowed: a whole number"),
    ],
)
def test_numbers_out_of_range_are_refused(capsys, model, words, reason):
    answer = dreamer(capsys, "serve", model, *words)
    assert answer.status == 2
    assert reason in answer.err[-1]


def test_a_folder_without_a_model_is_refused(capsys, tmp_path):
    answer = dreamer(capsys, "serve", tmp_path)
    allowed = "allowed: a folder that `dreamer package` wrote"
    wanted = f"dreamer: error: {tmp_path}: found no model with a server; {allowed}"
    assert (answer.status, answer.err) == (2, [wanted])
