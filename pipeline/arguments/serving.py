"""`dreamer package` and `serve`: an agent that answers requests."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments.parser import FOLDER, add_command, whole

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose

PACKAGE = """\
examples:
  dreamer package models/agent/best --out outputs/model
  mlflow models serve -m outputs/model --env-manager local --port 5001
"""
SERVE = """\
The protocol is that of `mlflow models serve`, and so are the answers; it is faster and stricter.

examples:
  dreamer serve outputs/model --port 5001
  dreamer serve outputs/model --port 5001 --host 0.0.0.0 --workers 2
"""


def add_package(choose: Choose) -> None:
    """Write an MLflow model."""
    summary = "write an agent as an MLflow model: code, weights and versions, nothing pickled"
    parser = add_command(choose, "package", summary, _package, PACKAGE)
    parser.add_argument("folder", metavar="CHECKPOINT", type=Path, help=FOLDER)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="folder to write, new or empty"
    )


def add_serve(choose: Choose) -> None:
    """Answer requests."""
    summary = "answer requests over HTTP with a model, until stopped"
    add = add_command(choose, "serve", summary, _serve, SERVE).add_argument
    add("folder", metavar="MODEL", type=Path, help="folder that `dreamer package` wrote")
    add("--port", metavar="N", type=whole, default=5001, help="default: %(default)s")
    add(
        "--host",
        metavar="H",
        default="127.0.0.1",
        help="address to listen on, 0.0.0.0 for any; default: %(default)s",
    )
    add("--workers", metavar="W", type=whole, default=1, help="processes; default: %(default)s")


def _package(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import serving

    return serving.package(args.folder, args.out)


def _serve(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import serving

    return serving.serve(args.folder, args.host, args.port, args.workers)
