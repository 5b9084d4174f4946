"""Servers as processes: started on a free port, waited for, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

BIN = Path(sys.executable).parent
PATIENCE = 120.0  # seconds to start in


def mlflow_route(model: Path | str, workers: int) -> list[str]:
    """Command of MLflow's own server; the port is still missing."""
    words = ["models", "serve", "-m", str(model), "--env-manager", "local"]
    return [str(BIN / "mlflow"), *words, "--workers", str(workers)]


def fast_route(model: Path, workers: int) -> list[str]:
    """Command of the fast route; the port is still missing."""
    return [str(BIN / "dreamer"), "serve", str(model), "--workers", str(workers)]


@contextmanager
def running(command: list[str], log: Path) -> Iterator[int]:
    """Run a server, and yield its port once it answers /ping.

    Args:
        command: Without its port. log: File for what it prints.

    Raises:
        RuntimeError: It ended, or did not answer in time.
    """
    port = free_port()
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])  # MLflow looks for uvicorn there
    with log.open("wb") as file:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | quiet | {"PATH": path},
        )
        try:
            wait(server, port, log)
            yield port
        finally:
            server.terminate()
            server.wait(PATIENCE)


def wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when /ping is answered.

    Raises:
        RuntimeError: The server ended, or did not answer in time.
    """
    until = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < until:
        if pinged(port):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server ended, or is late: {log.read_text()}")


def pinged(port: int) -> bool:
    """Whether somebody answers there."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
