"""What every test runs under: one thread, deterministic kernels, no telemetry, nobody's home."""

from __future__ import annotations

import os
from pathlib import Path

# The libraries read these when they are imported, so they are set before any of them is.
os.environ |= {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "agg",
    # kept between runs, since building the font cache takes seconds
    "MPLCONFIGDIR": str(Path(__file__).parents[1] / ".pytest_cache" / "matplotlib"),
    "OMP_NUM_THREADS": "1",
    "SDL_AUDIODRIVER": "dummy",
    "SDL_VIDEODRIVER": "dummy",
}
os.environ.setdefault("MUJOCO_GL", "disable")  # no window system needed; `egl` to draw

import numpy as np
import pytest
import torch

FROM_THE_CALLER = ("DVC_EXP_NAME", "DVC_ROOT", "DVC_STAGE", "MLFLOW_EXPERIMENT_NAME")
FROM_THE_CALLER += ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory):
    """Give the libraries a home of their own and git a name, and forget the caller's tracking."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "test")
            patch.setenv(f"GIT_{who}_EMAIL", "test@localhost")
        for name in FROM_THE_CALLER:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _deterministic():
    """Start every test from the same torch state, whatever the test before it has set."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A numpy generator with a fixed seed."""
    return np.random.default_rng(0)


def pytest_collection_modifyitems(items):
    """Skip `gpu` tests where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
