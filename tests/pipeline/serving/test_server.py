"""The fast route: answers of the policy, and for whatever is no request one line that says why."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from http.client import HTTPConnection

import numpy as np
import pytest
import uvicorn
from builders import SMALL, text, vector_spec
from served import save

from dreamer.world_model.sizes import SIZES
from pipeline.serving import body
from pipeline.serving.policy import ServedPolicy
from pipeline.serving.request import STATE
from pipeline.serving.server import main, make_app

GOOD = {"v0": [[0.0, 1.0, 2.0]], "said": ["hello"], STATE: [""]}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", SMALL)
        spec = vector_spec(3, discrete=(2,), said=text(12))
        return ServedPolicy(save(tmp_path_factory.mktemp("agent"), spec, hierarchy=True))


@pytest.fixture(scope="module")
def port(policy):
    server = uvicorn.Server(uvicorn.Config(make_app(policy), port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port, content, headers=JSON, method="POST", path="/invocations"):
    """Status and decoded answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, json.loads(raw) if method == "POST" or raw[:1] == b"{" else raw


def request(**params):
    return json.dumps({"inputs": GOOD, "params": params})


@pytest.mark.parametrize("params", [{}, {"policy": "sample", "seed": 3}])
def test_an_answer_is_that_of_the_policy(port, policy, params):
    wanted = policy.answer(GOOD, params.get("policy", "mode"), params.get("seed", 0))
    status, found = ask(port, request(**params))
    assert status == 200
    assert found["predictions"] == {"action": wanted.action.tolist(), STATE: wanted.states}
    assert ask(port, json.dumps({"inputs": GOOD}))[1] == ask(port, request())[1]


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_health_can_be_asked_for(port, path):
    assert ask(port, None, method="GET", path=path)[0] == 200


def inputs(**changes):
    return json.dumps({"inputs": GOOD | changes})


REFUSED = {
    "nothing": ("", r"the body: found 'Expecting value.*; allowed: JSON in UTF-8"),
    "no JSON": ("{nope", r"the body: found 'Expecting property name"),
    "no UTF-8": (b'{"inputs": "\xff"}', r"the body: found .*allowed: JSON in UTF-8"),
    "a list": ("[]", r"the body: found 'list'; allowed: an object with the keys inputs and maybe"),
    "other keys": ('{"instances": []}', r"the body: found \['instances'\]; allowed: an object"),
    "deep": ("[" * 100_000, r"the body: found JSON that is nested too deep"),
    "deep inputs": (f'{{"inputs": {"[" * 990}{"]" * 990}}}', r"inputs: found 'list'|too deep"),
    "deep state": (
        f'{{"inputs": {{"v0": [[0,1,2]], "said": [""], "{STATE}": [{"[" * 900}{"]" * 900}]}}}}',
        r"\[0\]: found '.*of list'|too deep",
    ),
    "digits": (inputs(v0=[]).replace("[]", "1" + "0" * 5000, 1), r"the body: found 'Exceeds the"),
    "large": (inputs(v0=[[10**400, 0, 0]]), r"inputs\.v0: found 'shape \(1, 3\) of object'"),
    "NaN": (inputs(v0=[[float("nan"), 0, 0]]), r"inputs\.v0: found 'NaN or infinity'; allowed"),
    "no key": ('{"inputs": {"v0": []}}', r"inputs: found \['v0'\]; allowed: an object with the"),
    "a shape": (
        inputs(v0=[[1.0]]),
        r"inputs\.v0: found 'shape \(1, 1\).*; allowed: shape \(1,",
    ),
    "an object": (inputs(v0={"a": 1}), r"inputs\.v0: found 'shape \(\) of object'"),
    "half a character": (inputs(said=["\ud800"]), r"inputs\.said: found .*allowed: texts of at"),
    "a damaged state": (inputs(**{STATE: ["abcd"]}), r"inputs\.recurrent_state\[0\]: found 'a dam"),
    "a parameter": (request(heat=1), r"params: found \['heat'\]; allowed: .*'policy', 'seed'"),
    "parameters": ('{"inputs": {}, "params": []}', r"params: found 'list'; allowed: an object"),
    "a policy": (request(policy="best"), r"params\.policy: found 'best'; allowed: mode or sample"),
    "a seed": (request(seed=None), r"params\.seed: found None; allowed: a whole number, 0 to"),
    "keys": (json.dumps({"inputs": dict.fromkeys(map(str, range(10**4)))}), r"\['0', .*\.\.\.$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_request_is_refused_in_one_line(port, name):
    content, reason = REFUSED[name]
    status, found = ask(port, content)
    assert status == 400
    assert found.keys() == {"error_code", "message"}
    assert found["error_code"] == "INVALID_PARAMETER_VALUE"
    assert "\n" not in found["message"]
    assert len(found["message"]) < 600
    assert re.search(reason, found["message"]), found["message"]
    assert ask(port, request())[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/invocations", 405), ("GET", "/x", 404), ("POST", "/ping", 405), ("PUT", "/", 404)],
)
def test_other_paths_and_methods_name_those_that_are_there(port, method, path, status):
    found = ask(port, None, method=method, path=path)
    message = f"found {method} {path}; allowed: POST /invocations, GET /ping, /health or /version"
    assert (found[0], found[1]["message"]) == (status, message)


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "text/csv", "application/json; charset=latin-1"]
)
def test_only_json_is_read(port, kind):
    status, found = ask(port, request(), {} if kind is None else {"Content-Type": kind})
    assert status == 415
    assert found["message"].startswith(f"content-type: found {kind or ''!r}; allowed: application")
    assert ask(port, request(), {"Content-Type": "application/json; charset=UTF-8"})[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(port, monkeypatch, chunked):
    monkeypatch.setattr(body, "MOST_BYTES", 10**6)
    content = b" " * (2 * 10**6)
    status, found = ask(port, iter([content]) if chunked else content)
    assert status == 413
    assert found["message"].startswith("the body: found more than 1000000 bytes; allowed: fewer")
    assert ask(port, request())[0] == 200


def test_a_body_without_end_is_refused(port, monkeypatch):
    monkeypatch.setattr(body, "SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        head = "POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_who_hangs_up_harms_nobody(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = "POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert ask(port, request())[0] == 200


def test_a_fault_of_ours_is_500_and_the_next_request_is_answered(port, policy, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(policy, "answer", lambda *_: 1 / 0)
        status, found = ask(port, request())
    assert status == 500
    assert found["message"] == "ZeroDivisionError; see the log"
    assert ask(port, request())[0] == 200


def test_ping_does_not_wait_for_an_answer(port, policy, monkeypatch):
    begun, go_on, answer = threading.Event(), threading.Event(), policy.answer

    def slow(*args):
        begun.set()
        assert go_on.wait(20)
        return answer(*args)

    monkeypatch.setattr(policy, "answer", slow)
    asking = threading.Thread(target=ask, args=(port, request()))
    asking.start()
    assert begun.wait(20)
    assert ask(port, None, method="GET", path="/ping")[0] == 200
    go_on.set()
    asking.join()


def test_the_largest_observations_still_give_numbers(port):
    state = ""
    for value in (3e38, -3e38, 0.0):
        found = ask(port, inputs(v0=[[value] * 3], **{STATE: [state]}))[1]["predictions"]
        state = found[STATE][0]
        assert np.isfinite(found["action"]).all()


def test_without_an_agent_nothing_is_started(tmp_path, monkeypatch):
    words = [tmp_path / "none", "--host", "127.0.0.1", "--port", "1", "--workers", "2"]
    monkeypatch.setattr("sys.argv", ["server", *map(str, words)])
    with pytest.raises(SystemExit, match=r"^dreamer: error: .*none: no checkpoint here$"):
        main()
