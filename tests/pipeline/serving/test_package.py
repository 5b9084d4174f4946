"""What MLflow gets: everything that answering needs, readable, and nothing pickled."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import yaml
from builders import (
    CPU,
    SMALL,
    assert_same,
    audio,
    image,
    text,
    vector,
    vector_spec,
    world_config,
)
from served import save

from dreamer.modalities.audio import AudioConfig
from dreamer.modalities.text import TextConfig
from dreamer.saved_agent import load_agent
from dreamer.types import CheckpointError
from dreamer.world_model.sizes import SIZES
from pipeline.serving import package
from pipeline.serving.package import requirements, write_model
from pipeline.serving.policy import ServedPolicy
from pipeline.serving.request import STATE

SENSES = {"camera": image(8, 8), "said": text(12), "sound": audio(64)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An agent, and the model that was written from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", SMALL)
        root = tmp_path_factory.mktemp("serving")
        agent = save(root / "agent", vector_spec(3, discrete=(2,), **SENSES), hierarchy=True)
        write_model(agent, root / "model")
    return agent, root / "model"


def test_the_model_answers_as_the_agent_does(folders, monkeypatch):
    import mlflow.pyfunc

    monkeypatch.setitem(SIZES, "tiny", SMALL)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setattr(sys, "path", sys.path[:])
    agent, target = folders
    model, policy = mlflow.pyfunc.load_model(str(target)), ServedPolicy(agent)
    example = json.loads((target / "serving_input_example.json").read_text())["inputs"]
    assert example[STATE] == [""]
    arrays = {
        key: np.array(value, np.float32 if key in ("v0", "sound") else object)
        for key, value in example.items()
    }
    answer, wanted = model.predict(arrays), policy.answer(example, "mode", 0)
    assert answer[STATE] == wanted.states
    assert np.array_equal(answer["action"], wanted.action)
    sampled = model.predict(arrays, params={"policy": "sample", "seed": 3})
    assert sampled[STATE] == policy.answer(example, "sample", 3).states
    with pytest.raises(Exception, match=r"params\.policy: found 'best'; allowed: mode or sample"):
        model.predict(arrays, params={"policy": "best"})


def test_nothing_is_pickled_and_the_weights_are_those_of_the_agent(folders, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    agent, target = folders
    kinds = {path.suffix for path in target.rglob("*") if path.is_file()}
    assert kinds <= {".py", ".json", ".yaml", ".txt", ".safetensors", ""}
    one, other = (load_agent(f, CPU) for f in (agent, target / "artifacts" / "agent"))
    assert_same(dict(one.model.state_dict()), dict(other.model.state_dict()))


def test_the_signature_names_every_key_and_parameter(folders):
    document = yaml.safe_load((folders[1] / "MLmodel").read_text())
    signature = {name: json.loads(text) for name, text in document["signature"].items()}
    shapes = {each["name"]: each["tensor-spec"] for each in signature["inputs"]}
    assert shapes == {
        "camera": {"dtype": "object", "shape": [-1]},
        "said": {"dtype": "object", "shape": [-1]},
        "sound": {"dtype": "float32", "shape": [-1, 64]},
        "v0": {"dtype": "float32", "shape": [-1, 3]},
        STATE: {"dtype": "object", "shape": [-1]},
    }
    assert [each["name"] for each in signature["outputs"]] == ["action", STATE]
    assert {each["name"]: each["default"] for each in signature["params"]} == {
        "policy": "mode",
        "seed": 0,
    }
    assert document["metadata"]["environment"] == "CartPole-v1"


def test_requirements_are_pinned_to_what_is_installed(folders):
    lines = (folders[1] / "requirements.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    answering = {"torch", "numpy", "safetensors", "gymnasium"}
    assert set(pins) == answering | {"mlflow", "starlette", "uvicorn"}
    assert all(version(name).partition("+")[0] == pin for name, pin in pins.items())


def test_requirements_grow_with_what_is_read_and_heard():
    plain = world_config()
    reader = world_config(text=TextConfig(model="bert", finetune=False, tokenizer="own"))
    hearer = world_config(audio=AudioConfig(features="mel", rate="auto", bins=32))
    more = [{line.split("==")[0] for line in requirements(c)} for c in (plain, reader, hearer)]
    assert more[1] - more[0] == {"tokenizers", "transformers"}
    assert more[2] - more[0] == {"torchaudio"}


def test_the_state_keeps_its_name_to_itself(tmp_path):
    spec = vector_spec(3, discrete=(2,), **{STATE: vector(2)})
    with pytest.raises(CheckpointError, match=r"found an observation 'recurrent_state'; allowed"):
        write_model(save(tmp_path / "agent", spec), tmp_path / "model")


def test_a_folder_that_is_in_use_is_left_alone(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(CheckpointError, match=r"cannot write the model: .*not empty"):
        write_model(folders[0], tmp_path)
    assert (tmp_path / "mine").read_text() == "keep"


def test_half_a_model_is_never_seen(folders, tmp_path, monkeypatch):
    def full(target, **_):
        target.mkdir()
        raise OSError("no space left")

    monkeypatch.setitem(SIZES, "tiny", SMALL)
    monkeypatch.setattr(package, "save_model", full)
    with pytest.raises(CheckpointError, match=r"model: cannot write the model: no space left"):
        write_model(folders[0], tmp_path / "deep" / "model")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.slow
def test_the_model_needs_no_project_around_it(folders, tmp_path):
    """Its own copy of the code is what runs, in a process that knows no other."""
    agent = save(tmp_path / "agent", vector_spec(3, discrete=(2,)))
    write_model(agent, tmp_path / "model")
    script = (
        "import mlflow.pyfunc, numpy, sys;"
        f"model = mlflow.pyfunc.load_model({str(tmp_path / 'model')!r});"
        "import dreamer, pipeline; print(dreamer.__file__, pipeline.__file__);"
        "state = numpy.array([''], object);"
        f"model.predict({{'v0': numpy.zeros((1, 3), 'float32'), {STATE!r}: state}})"
    )
    environment = {"PATH": "", "MLFLOW_DISABLE_TELEMETRY": "true", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(str(tmp_path / "model") in file for file in done.stdout.split())
