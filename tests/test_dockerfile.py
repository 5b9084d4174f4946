"""The Dockerfile without a container engine: linted, every step checked against what is here."""

import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from pipeline.arguments import parse

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TARGETS = ("train", "serve")
# Of the base image, beside `python` and `pip`: Debian's essential packages.
DEBIAN = {"apt-get", "grep", "groupadd", "install", "mkdir", "rm", "touch", "useradd"}
OURS = {"dreamer", "dvc"}  # console scripts of what is installed


def read() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions; those before the first stage under an empty name."""
    with (ROOT / "Dockerfile").open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    stages: dict[str, list[tuple[str, str]]] = {"": []}
    for step in structure:
        if step["instruction"] == "FROM":
            stages[step["value"].split()[-1]] = []
        if step["instruction"] != "COMMENT":
            stages[list(stages)[-1]].append((step["instruction"], step["value"]))
    return stages


STAGES = read()


def values(instruction: str, stage: str | None = None) -> list[str]:
    """What follows an instruction, wherever it is given, or in one stage."""
    stages = [stage] if stage else list(STAGES)
    return [value for name in stages for i, value in STAGES[name] if i == instruction]


def commands() -> list[list[str]]:
    """Words of everything that RUN runs."""
    lines = [part for run in values("RUN") for part in run.split("&&")]
    return [shlex.split(line) for line in lines]


COPIED = [
    (path, [word for word in value.split() if word.startswith("--from=")])
    for value in values("COPY")
    for path in [word for word in value.split() if not word.startswith("--")][:-1]
]
FROM_HERE = sorted({path for path, origin in COPIED if not origin})


def test_the_linter_has_nothing_to_say():
    done = subprocess.run(
        [BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_there_is_an_image_to_train_and_one_to_serve_on_a_pinned_base():
    assert set(TARGETS) <= set(STAGES)
    [(_, argument)] = STAGES[""]
    name, base = argument.split("=")
    assert re.fullmatch(r"python:3\.(11|12)\.\d+-slim-\w+", base)
    for stage, steps in list(STAGES.items())[1:]:
        origin = steps[0][1].split()[0]
        assert origin == f"${{{name}}}" or origin in STAGES, stage


@pytest.mark.parametrize("target", TARGETS)
def test_who_runs_is_a_number_and_not_root(target):
    assert values("USER", target) == ["1000:1000"]
    instructions = [i for i, _ in STAGES[target]]
    assert "COPY" not in instructions[instructions.index("USER") :]


@pytest.mark.parametrize("path", FROM_HERE)
def test_what_is_copied_is_in_the_repository_and_not_ignored(path):
    listed = subprocess.run(["git", "ls-files", path], cwd=ROOT, capture_output=True, check=True)
    assert listed.stdout
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert f"!{path}" in ignored


def test_nothing_else_is_sent_to_the_engine():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == FROM_HERE


def test_what_is_copied_from_a_stage_comes_from_one_before():
    order = list(STAGES)
    for stage in order[1:]:
        for origin in re.findall(r"--from=(\S+)", " ".join(values("COPY", stage))):
            assert origin in order[: order.index(stage)]


def test_every_program_is_there():
    programs = {words[0] for words in commands()}
    programs |= {json.loads(value)[0] for value in values("CMD") + values("ENTRYPOINT")}
    apt = [word for words in commands() if words[0] == "apt-get" for word in words]
    installed = {word.split("=")[0] for word in apt if "=" in word}
    assert programs <= DEBIAN | OURS | {"python", "pip"} | installed
    assert {entry.name for entry in entry_points(group="console_scripts")} >= OURS


def test_both_images_install_what_is_locked():
    for words in commands():
        if words[:2] == ["pip", "install"]:
            pinned = {"torch.txt", "setuptools.txt"} & set(words)
            assert pinned or "--constraint" in words
    [extras] = [v.split("=")[1] for v in values("ARG") if v.startswith("EXTRAS=")]
    head = (ROOT / "requirements.lock").read_text().partition("\n")[0]
    locked = head.rpartition(" ")[2].rstrip(".").split(",")
    assert sorted(extras.split(",")) == sorted(set(locked) - {"dev"})


def test_debian_packages_are_pinned():
    lines = [words[2:] for words in commands() if words[:2] == ["apt-get", "install"]]
    packages = [word for words in lines for word in words if not word.startswith("--")]
    assert packages
    assert all(re.fullmatch(r"[a-z0-9-]+=[0-9:.]+\*", package) for package in packages)


@pytest.mark.parametrize(("target", "command"), [("train", "repro"), ("serve", "serve")])
def test_what_an_image_runs_is_a_command_of_the_project(target, command):
    words = json.loads(*values("CMD", target))
    args = parse(words[1:])
    assert (words[0], args.command) == ("dreamer", command)


def test_the_server_listens_where_it_is_asked():
    args = parse(json.loads(*values("CMD", "serve"))[1:])
    assert (args.folder, args.host, args.port) == (Path("/model"), "0.0.0.0", 8080)
    assert values("EXPOSE", "serve") == ["8080"]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (500, False), (None, False)])
def test_the_health_check_asks_ping(status, healthy):
    [check] = values("HEALTHCHECK", "serve")
    python, option, code = json.loads(check.partition("CMD ")[2])
    assert (python, option) == ("python", "-c")
    asked = []

    class Ping(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Ping)
    port = server.server_port
    if status:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        server.server_close()
    code = code.replace(":8080/", f":{port}/")
    done = subprocess.run([sys.executable, option, code], capture_output=True, check=False)
    if status:
        server.shutdown()
        server.server_close()
    assert (done.returncode == 0) == healthy
    assert asked == (["/ping"] if status else [])
