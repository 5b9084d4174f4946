"""One model, two servers: local episodes to the digit, equal bytes, and reasons for a 400."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from builders import CPU
from served import env_config, save

from benchmarks.servers import BIN, fast_route, mlflow_route, running
from dreamer.envs.vector import VectorEnv
from dreamer.evaluation import play_episodes
from dreamer.saved_agent import load_agent
from examples.play_over_http import main, play
from pipeline.serving.package import write_model
from pipeline.serving.policy import ServedPolicy
from pipeline.serving.request import STATE

ENV = env_config()
ROUTES = {"mlflow models serve": mlflow_route, "dreamer serve": fast_route}
ROW = [0.01, 0.02, -0.03, 0.04]
GOOD = {"vector": [ROW], STATE: [""]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two agents with the same spaces, and the model of the first one."""
    root = tmp_path_factory.mktemp("routes")
    probe = VectorEnv(ENV, 0)
    probe.close()
    for seed, name in ((1, "agent"), (2, "other")):
        save(root / name, probe.spec, seed=seed, hierarchy=True)
    write_model(root / "agent", root / "model")
    return root


@pytest.fixture(scope="module")
def ports(folder):
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running(route(folder / "model", 1), folder / f"{name}.log"))
            for name, route in ROUTES.items()
        }


def ask(port, request):
    """Status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    content = request if isinstance(request, str) else json.dumps(request)
    connection.request("POST", "/invocations", content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    return response.status, answer


def local(folder, seed, choice):
    agent = load_agent(folder / "agent", CPU)
    return play_episodes(
        agent.model, agent.behavior.policy, ENV, episodes=1, seed=seed, choice=choice
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("choice", ["mode", "sample"])
def test_an_episode_over_http_is_the_local_one_to_the_digit(folder, ports, route, choice):
    wanted = local(folder, 11, choice)
    assert play(f"http://127.0.0.1:{ports[route]}", ENV, [11], choice) == wanted
    assert wanted[0].length > 5


@pytest.mark.parametrize("route", ROUTES)
def test_many_episodes_share_their_requests(folder, ports, route):
    together = play(f"http://127.0.0.1:{ports[route]}", ENV, [11, 12, 13], "sample")
    assert together == [local(folder, seed, "sample")[0] for seed in (11, 12, 13)]


def test_the_example_prints_what_it_played_or_why_not(folder, ports, monkeypatch, capsys):
    words = ["play", "--url", f"http://127.0.0.1:{ports['dreamer serve']}", "--seed", "11"]
    monkeypatch.setattr("sys.argv", [*words, "--episodes", "2"])
    main()
    wanted = [local(folder, seed, "mode")[0] for seed in (11, 12)]
    lines = [
        f"seed {11 + i}: return {e.ret:g} after {e.length} steps" for i, e in enumerate(wanted)
    ]
    assert capsys.readouterr().out.splitlines() == lines
    monkeypatch.setattr("sys.argv", [*words, "--env", "MountainCar-v0"])
    with pytest.raises(SystemExit, match=r"^400: .*inputs\.vector: found 'shape \(1, 2\)"):
        main()


@pytest.mark.parametrize("params", [{}, {"policy": "sample", "seed": 5}])
def test_both_servers_answer_with_equal_bytes(ports, params):
    states = ["", "", ""]
    for step in range(4):
        rows = [[0.1 * step, 0.0, number, -1.5] for number in range(3)]
        request = {"inputs": {"vector": rows, STATE: states}, "params": params}
        one, other = (ask(port, request) for port in ports.values())
        assert one == other
        assert one[0] == 200
        states = json.loads(one[1])["predictions"][STATE]


REFUSED = {
    "no JSON": ("{nope", "Expecting property name enclosed in double quotes"),
    "no inputs": ({"foo": 1}, "exactly one of the input fields"),
    "a missing key": ({"inputs": {"vector": [ROW]}}, "Model is missing inputs ['recurrent_state']"),
    "a wrong shape": (
        {"inputs": GOOD | {"vector": [[0.0, 1.0]]}},
        "Shape of input (1, 2) does not match expected shape (-1, 4)",
    ),
    "rows of different shapes": (
        {"inputs": GOOD | {"vector": [ROW, [1.0]]}},
        "The requested array has an inhomogeneous shape",
    ),
    "NaN": (
        {"inputs": GOOD | {"vector": [[float("nan"), 0.0, 0.0, 0.0]]}},
        "inputs.vector: found 'NaN or infinity'; allowed: finite numbers, as float32",
    ),
    "one state too many": (
        {"inputs": GOOD | {STATE: ["", ""]}},
        "inputs.vector: found 'shape (1, 4) of float32'; allowed: shape (2, 4) of float32",
    ),
    "a policy": (
        {"inputs": GOOD, "params": {"policy": "best"}},
        "params.policy: found 'best'; allowed: mode or sample",
    ),
    "no seed": (
        {"inputs": GOOD, "params": {"seed": None}},
        "params.seed: found None; allowed: a whole number, 0 to 9007199254740992",
    ),
    "half a seed": ({"inputs": GOOD, "params": {"seed": 0.5}}, "for value `0.5`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mlflow_refuses_a_malformed_request_with_the_reason(ports, name):
    request, reason = REFUSED[name]
    status, answer = ask(ports["mlflow models serve"], request)
    assert status == 400
    assert reason in json.loads(answer)["message"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_state_that_is_damaged_or_of_another_agent_is_refused(folder, ports, route):
    port = ports[route]
    state = json.loads(ask(port, {"inputs": GOOD})[1])["predictions"][STATE][0]
    status, answer = ask(port, {"inputs": GOOD | {STATE: [state[:-4]]}})
    assert status == 400
    assert "recurrent_state[0]: found 'a damaged text'; allowed" in json.loads(answer)["message"]
    foreign = ServedPolicy(folder / "other").answer(GOOD, "mode", 0).states
    status, answer = ask(port, {"inputs": GOOD | {STATE: foreign}})
    assert status == 400
    assert "recurrent_state[0]: found 'a state of agent " in json.loads(answer)["message"]
    assert ask(port, {"inputs": GOOD | {STATE: [state]}})[0] == 200


@pytest.mark.slow
def test_workers_share_a_port_and_do_not_make_small_answers_wait(folder, ports):
    """Nagle's algorithm would hold each of them back until the client acknowledges its head."""
    wanted = ask(ports["dreamer serve"], {"inputs": GOOD})
    with running(fast_route(folder / "model", 2), folder / "workers.log") as port:
        assert ask(port, {"inputs": GOOD}) == wanted
        connection, taken = HTTPConnection("127.0.0.1", port, timeout=60), []
        for _ in range(30):
            begin = time.perf_counter()
            connection.request("GET", "/version")
            connection.getresponse().read()
            taken.append(time.perf_counter() - begin)
        connection.close()
    assert min(taken[1:]) < 0.03


def test_what_mlflow_drops_the_fast_route_refuses(ports):
    """Its server passes on only what the signature names."""
    for request in (
        {"inputs": GOOD, "params": {"heat": 1}},
        {"inputs": GOOD | {"extra": [1]}},
        {"inputs": GOOD, "more": 1},
    ):
        assert [ask(ports[route], request)[0] for route in ROUTES] == [200, 400]


@pytest.mark.slow
def test_a_file_of_many_rows_is_answered_by_alias_too(folder, ports, tmp_path):
    import mlflow

    request = {"inputs": {"vector": [ROW] * 5, STATE: [""] * 5}, "params": {"policy": "sample"}}
    (tmp_path / "in.json").write_text(json.dumps(request))
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking, tracking)
    client.create_registered_model("policy")
    made = client.create_model_version("policy", (folder / "model").as_uri())
    client.set_registered_model_alias("policy", "champion", made.version)
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking, "MLFLOW_DISABLE_TELEMETRY": "true"}
    wanted = ask(ports["dreamer serve"], request)[1]
    for uri in (str(folder / "model"), "models:/policy@champion"):
        words = ["models", "predict", "-m", uri, "-i", str(tmp_path / "in.json")]
        done = subprocess.run(
            [BIN / "mlflow", *words, "--env-manager", "local"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == wanted
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        served = running(mlflow_route("models:/policy@champion", 1), tmp_path / "log")
        with served as port:
            assert ask(port, request)[1] == wanted
