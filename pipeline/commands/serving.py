"""`dreamer package` and `dreamer serve`: from an agent to a model, from a model to answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from dreamer.types import CheckpointError, check_range

SERVER = "pipeline.serving.server"


def package(folder: Path, out: Path) -> Iterator[str]:
    """Write an agent as an MLflow model, and tell what can be done with it.

    Raises:
        CheckpointError: See `write_model`.
    """
    from pipeline.commands.agents import agent_folder
    from pipeline.serving.package import write_model

    agent = agent_folder(folder)
    write_model(agent, out)
    yield f"{out}: the MLflow model of {agent}"
    yield f"serve      mlflow models serve -m {out} --env-manager local --port 5001"
    yield f"faster     dreamer serve {out} --port 5001"
    yield f"in a file  mlflow models predict -m {out} -i FILE.json --env-manager local"


def serve(folder: Path, host: str, port: int, workers: int) -> NoReturn:
    """Become the server of a model, which runs the code that lies in its folder.

    Args:
        folder: What `package` wrote. host, port: Where to listen. workers: How many processes.

    Raises:
        CheckpointError: The folder holds no such model. ConfigError: A number is out of range.
    """
    check_range("--port", port, 1, 65535)
    check_range("--workers", workers, 1, 256)
    code, agent = folder / "code", folder / "artifacts" / "agent"
    if not (code.joinpath(*SERVER.split(".")).with_suffix(".py").is_file() and agent.is_dir()):
        allowed = "a folder that `dreamer package` wrote"
        raise CheckpointError(f"{folder}: found no model with a server; allowed: {allowed}")
    # The folder's code, not that around this file, which may be of another version: a new process
    # without the current folder (-P) and with the model's before everything that is installed.
    places = [str(code.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    words = [str(agent), "--host", host, "--port", str(port), "--workers", str(workers)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-P", "-m", SERVER, *words]
    os.execve(sys.executable, command, environment)
