"""A client that asks one server for as long as it is told, in a process of its own."""

from __future__ import annotations

import argparse
import json
import time
from http.client import HTTPConnection

WARM_UP = 5


def ask(port: int, example: dict[str, list[object]], batch: int, seconds: float) -> list[float]:
    """Seconds that each request took, with the states of the answer before, JSON included.

    Args:
        example: Inputs of one row. batch: How many rows a request has.
    """
    rows = {key: value * batch for key, value in example.items()}
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    taken: list[float] = []
    until = float("inf")
    while (begin := time.perf_counter()) < until:
        body = json.dumps({"inputs": rows})
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        rows["recurrent_state"] = answer["predictions"]["recurrent_state"]
        taken.append(time.perf_counter() - begin)
        if len(taken) == WARM_UP:
            until = time.perf_counter() + seconds
    connection.close()
    return taken[WARM_UP:]


def main() -> None:
    """Print the times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--example", required=True, help="JSON of the inputs of one row")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    print(json.dumps(ask(args.port, json.loads(args.example), args.batch, args.seconds)))


if __name__ == "__main__":
    main()
