"""One finished little training that the tests of the command look at, and one fresh database."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import TINY, own_logging

from pipeline import cli
from pipeline.tracking.store import connect


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that `dreamer train` wrote; not to be changed."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMER_TRACKING", "off")
        patch.setenv("DREAMER_LOG_LEVEL", "error")
        patch.chdir(root)
        with own_logging():
            assert cli.main(["train", *TINY]) == 0
    return root / "outputs" / "CartPole-v1-seed0"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow after its first use, which is what takes long; not to be changed."""
    root = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        connect(root)
    return root / "mlflow.db"
