"""The lock file holds plain pins of all that pyproject.toml asks for, and no CUDA library."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKED_EXTRAS = ("atari", "audio", "crafter", "dmc", "minigrid", "text", "store", "dev")
LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = PROJECT["dependencies"] + [
    line for extra in LOCKED_EXTRAS for line in PROJECT["optional-dependencies"][extra]
]


def test_every_line_is_one_pin_in_order():
    assert not [
        line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][a-z0-9.]*", line)
    ]
    names = [line.split("==")[0].lower() for line in LINES]
    assert names == sorted(set(names))


@pytest.mark.parametrize("asked", ASKED)
def test_the_lock_satisfies_pyproject(asked):
    pins = {canonicalize_name(n): v for n, v in (line.split("==") for line in LINES)}
    requirement = Requirement(asked)
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_no_cuda_library_is_locked():
    assert not [line for line in LINES if line.startswith(("nvidia-", "cuda-", "triton"))]
