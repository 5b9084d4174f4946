"""PostgreSQL, an S3 store and an MLflow server of a test's own, on free ports, gone with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
OF_DEBIAN = Path("/usr/lib/postgresql")  # where its package puts each version
BUCKET = "dreamer"
PATIENCE = 120.0  # seconds in which a service must answer, on a busy machine
QUIET_SERVER = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # or it starts seven more processes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def postgres_programs() -> Path:
    """Folder of `initdb` and `pg_ctl`; skips the test without them, and fails it where CI=true."""
    on_path = shutil.which("initdb")
    folders = sorted(OF_DEBIAN.glob("*/bin"))
    folders += [Path(on_path).resolve().parent] if on_path else []
    found = [folder for folder in folders if (folder / "initdb").exists()]
    if found:
        return found[-1]
    reason = "PostgreSQL is not installed (Debian's package `postgresql`)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def postgres() -> Iterator[str]:
    """A database cluster; yields its URL, to which the name of a database is added."""
    programs = postgres_programs()
    # Not below pytest's folder, which only its owner may enter: PostgreSQL refuses to run as root.
    with tempfile.TemporaryDirectory(prefix="dreamer-postgres-") as name:
        if os.geteuid() == 0:
            shutil.chown(name, "postgres", "postgres")
        by = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()

        def run(*words: str) -> None:
            # to a file, for the server would keep a pipe open
            with Path(name, "said").open("ab") as said:
                command = [*by, str(programs / words[0]), *words[1:]]
                done = subprocess.run(command, cwd=name, stdout=said, stderr=said, check=False)
            assert done.returncode == 0, Path(name, "said").read_text()

        run("initdb", "-D", "data", "-U", "dreamer", "-A", "trust", "-E", "UTF8", "--no-sync")
        port = free_port()
        options = f"-p {port} -k {name} -h {HOST} -c fsync=off"
        run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "60", "-o", options, "start")
        try:
            yield f"postgresql://dreamer@{HOST}:{port}"
        finally:
            run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """An S3 store with one bucket; yields the variables under which clients find it."""
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_S3_ENDPOINT_URL": f"http://{HOST}:{server.get_host_and_port()[1]}",
    }
    try:
        bucket(variables).create()
        yield variables
    finally:
        server.stop()


def bucket(variables: dict[str, str]):
    """The bucket, for looking into it."""
    store = boto3.resource(
        "s3",
        endpoint_url=variables["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )
    return store.Bucket(BUCKET)


class MlflowServer:
    """`mlflow server` on PostgreSQL and S3, which can be killed and started again.

    Args:
        database: URL of a database of its own. variables: Of the S3 store. said: Its log.
    """

    def __init__(self, database: str, variables: dict[str, str], said: Path) -> None:
        self._port, self._said = free_port(), said
        self._env = {**os.environ, **QUIET_SERVER, **variables}
        self._command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server"]
        self._command += ["--backend-store-uri", database, "--host", HOST]
        self._command += ["--artifacts-destination", f"s3://{BUCKET}/served"]
        self._command += ["--port", str(self._port), "--workers", "1"]
        self.uri = f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._said.parent,
                env=self._env,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self._said.read_text()[-3000:]
            assert time.monotonic() < end, self._said.read_text()[-3000:]
            time.sleep(0.1)

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
            return answer.status == 200
        return False

    def kill(self) -> None:
        """End it and its workers at once, as an outage does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
