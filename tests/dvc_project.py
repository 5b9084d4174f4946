"""A repository of its own with the files of this one, and commands that run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.presets import apply_preset

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
UNSET = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL")


def attempt(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in `folder`, with more variables, whatever it ends with."""
    env = {key: value for key, value in os.environ.items() if key not in UNSET}
    env |= {"DREAMER_TRACKING": "off", "PYTHONPATH": str(folder), "VIRTUAL_ENV": str(BIN.parent)}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    env |= variables
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


def command(folder: Path, *words: str, **variables: str) -> str:
    """Run a command that must end well, and return what it printed."""
    done = attempt(folder, *words, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def fresh_copy(folder: Path, preset: str = "cartpole") -> Path:
    """A repository with the files of this one, a preset in seconds and no cache."""
    listed = command(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard")
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in (preset, "smoke"):
        apply_preset(name, folder / "params.yaml")
    (folder / "dvc.lock").unlink(missing_ok=True)
    command(folder, "git", "init", "-q")
    command(folder, "git", "add", "-A")
    command(folder, "git", "commit", "-q", "-m", "smoke")
    return folder
