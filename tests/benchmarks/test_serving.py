"""The client of the benchmark sends what a real one sends, and its times count no warming up."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.servers import running
from benchmarks.serving_client import WARM_UP, ask

SEEN: list[dict[str, list[object]]] = []


class Echo(BaseHTTPRequestHandler):
    """Answers with states that count the requests."""

    def do_POST(self):
        SEEN.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"])
        states = [f"{len(SEEN)}"] * len(SEEN[-1]["recurrent_state"])
        body = json.dumps({"predictions": {"recurrent_state": states}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Stay silent."""


def test_the_client_carries_the_states_of_all_rows():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    example = {"vector": [[1.0, 2.0]], "recurrent_state": [""]}
    times = ask(server.server_address[1], example, batch=3, seconds=0.05)
    server.shutdown()
    thread.join()
    server.server_close()
    assert len(times) == len(SEEN) - WARM_UP > 0
    assert [each["recurrent_state"] for each in SEEN[:3]] == [[""] * 3, ["1"] * 3, ["2"] * 3]
    assert all(each["vector"] == [[1.0, 2.0]] * 3 for each in SEEN)


def test_a_server_that_ends_is_not_waited_for(tmp_path):
    broken = [sys.executable, "-c", "import sys; print('no model here'); sys.exit(1)"]
    with pytest.raises(RuntimeError, match="no model here"), running(broken, tmp_path / "log"):
        pass
