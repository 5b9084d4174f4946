"""Check parameter files: `python -m pipeline.params params.yaml`; print the first error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dreamer.types import ConfigError
from pipeline.params.root import load_params


def main(paths: Sequence[str]) -> str | None:
    """Check parameter files; return the first error."""
    try:
        for path in paths:
            load_params(path)
    except ConfigError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
