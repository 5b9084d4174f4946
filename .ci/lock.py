"""Write requirements.lock: the versions of everything the project runs and is tested with.

Usage: python .ci/lock.py TORCH_VERSION [--keep]

pip resolves pyproject.toml with the extras below on the Python that runs this file, and installs
nothing. The version of torch is given, because the newest may lack the build that is wanted; the
build itself and the CUDA libraries that some builds carry along are left to `make setup`. With
`--keep` whatever is locked keeps its version, and only what pyproject.toml newly asks for is added.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
EXTRAS = "atari,audio,crafter,dmc,minigrid,text,store,dev"
BUILD_OF_TORCH = re.compile(r"^(nvidia-.*|cuda-.*|triton)$")
HEAD = """\
# Written by `make lock`; do not edit. Versions of pyproject.toml with the extras {extras}.
# torch is a CPU or a CUDA build, whichever the installer chose: see `make setup` in the Makefile.
"""


def resolve(torch_version: str, keep: bool) -> dict[str, str]:
    """Return name -> version of the whole closure as pip would install it now."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
        *("--report", "-", f"{ROOT}[{EXTRAS}]", f"torch=={torch_version}"),
        *(("-c", str(LOCK)) if keep else ()),
    ]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = [row["metadata"] for row in json.loads(answer.stdout)["install"]]
    return {row["name"]: row["version"].split("+")[0] for row in rows}


def main() -> None:
    """Resolve and replace the lock file."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("torch_version")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    versions = resolve(args.torch_version, args.keep)
    del versions["dreamer-pipeline"]
    kept = [name for name in versions if not BUILD_OF_TORCH.match(name)]
    lines = [f"{name}=={versions[name]}\n" for name in sorted(kept, key=str.lower)]
    LOCK.write_text(HEAD.format(extras=EXTRAS) + "".join(lines))


if __name__ == "__main__":
    main()
