"""One finished little training that the tests of the command look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import TINY, own_logging

from pipeline import cli


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
