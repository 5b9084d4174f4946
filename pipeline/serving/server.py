"""The fast route: a policy behind HTTP with the protocol of `mlflow models serve`.

Same paths, same JSON, same answers to the byte, less work around them. What MLflow passes over in
silence (a key or a parameter that the model does not know) is refused, and whatever is wrong with a
request is one line. Started by `dreamer serve`, or without the project around it:
`PYTHONPATH=MODEL/code python -P -m pipeline.serving.server MODEL/artifacts/agent --host H ...`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.supervisors import Multiprocess

from dreamer.types import CheckpointError, ConfigError
from pipeline.serving.body import parse, read_body
from pipeline.serving.policy import ServedPolicy, take_one_thread
from pipeline.serving.request import STATE

AGENT = "DREAMER_SERVED_AGENT"  # tells worker processes whom to load
LONGEST = 500  # characters of a reason, however much was wrong
JSON = "application/json"


def create() -> Starlette:
    """The application of the agent that the environment names: what a worker process runs."""
    return make_app(ServedPolicy(Path(os.environ[AGENT])))


def make_app(policy: ServedPolicy) -> Starlette:
    """All paths of one policy. It answers one request after the other, in a thread of its own, so
    that /ping need not wait for a large one.
    """
    thread = ThreadPoolExecutor(1, "policy")

    async def invocations(request: Request) -> Response:
        body = await read_body(request)
        return await asyncio.get_running_loop().run_in_executor(thread, respond, policy, body)

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/ping", ping),
            Route("/health", ping),
            Route("/version", mlflow_version),
        ],
        exception_handlers={HTTPException: refused, ClientDisconnect: gone, Exception: failed},
    )


def respond(policy: ServedPolicy, body: bytes) -> Response:
    """Answer a batch, or say what is wrong with it."""
    try:
        inputs, params = parse(body)
        answer = policy.answer(inputs, params["policy"], params["seed"])
    except ConfigError as error:
        return refusal(HTTPStatus.BAD_REQUEST, str(error))
    except RecursionError:
        return refusal(HTTPStatus.BAD_REQUEST, "the body: found JSON that is nested too deep")
    predictions = {"action": answer.action.tolist(), STATE: answer.states}
    return Response(json.dumps({"predictions": predictions}), media_type=JSON)


async def ping(request: Request) -> Response:
    """200: the agent is loaded, or nothing would answer."""
    del request
    return Response("\n", media_type=JSON)


async def mlflow_version(request: Request) -> Response:
    """Of MLflow, as its own server says."""
    del request
    return Response(version("mlflow"), media_type=JSON)


async def refused(request: Request, error: Exception) -> Response:
    """A path or method that is not there, or a body that could not be read."""
    assert isinstance(error, HTTPException)
    reason = error.detail
    if error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        allowed = "POST /invocations, GET /ping, /health or /version"
        reason = f"found {request.method} {request.url.path}; allowed: {allowed}"
    return refusal(HTTPStatus(error.status_code), reason)


async def gone(request: Request, error: Exception) -> Response:
    """For nobody: the client hung up while its body was read."""
    del request, error
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def failed(request: Request, error: Exception) -> Response:
    """A fault of this program; the traceback goes to the log."""
    del request
    return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}; see the log")


def refusal(status: HTTPStatus, reason: str) -> Response:
    """Why there is no answer, in the form that MLflow gives it."""
    code = "INVALID_PARAMETER_VALUE" if status == HTTPStatus.BAD_REQUEST else status.name
    short = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]}..."
    content = json.dumps({"error_code": code, "message": short})
    return Response(content, status_code=status, media_type=JSON)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.serving.server", description=__doc__)
    parser.add_argument("agent", type=Path, help="folder of a saved agent")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--workers", required=True, type=int, help="processes")
    args = parser.parse_args()
    take_one_thread()
    try:
        # Also where others will load it: uvicorn would start failing workers for ever.
        app = make_app(ServedPolicy(args.agent))
    except CheckpointError as error:
        sys.exit(f"dreamer: error: {error}")
    os.environ[AGENT] = str(args.agent)
    config = uvicorn.Config(
        app if args.workers == 1 else "pipeline.serving.server:create",
        factory=args.workers > 1,
        host=args.host,
        port=args.port,
        workers=args.workers,
        access_log=False,
    )
    server, listener = uvicorn.Server(config), config.bind_socket()
    # Connections inherit it. Otherwise the body of each answer would wait 40 ms until the client
    # has acknowledged the head: asyncio takes care of it only for sockets that it opened itself.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if args.workers == 1:
        server.run(sockets=[listener])
    else:
        Multiprocess(config, sockets=[listener]).run()


if __name__ == "__main__":
    main()
