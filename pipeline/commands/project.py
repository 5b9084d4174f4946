"""`dreamer use`, `dreamer sync` and `dreamer views`: what is done to the project in the current
folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.commands.settings import PARAMS
from pipeline.params import from_raw
from pipeline.presets import apply_preset, list_presets
from pipeline.stages.session import EXPERIMENT
from pipeline.tracking import sync, tracking_uri
from pipeline.tracking.views import keep_views

LOCAL_SERVER = "http://127.0.0.1:5000"  # of `make ui`


def use(name: str) -> Iterator[str]:
    """Write a preset into params.yaml and show the differences; `list` shows the presets.

    Raises:
        ConfigError: The preset is unknown, does not fit, or the file cannot be written.
    """
    return _listed() if name == "list" else _used(name)


def _listed() -> Iterator[str]:
    presets = list_presets()
    width = max(map(len, presets), default=0)
    yield from (f"{name:{width}}  {description}" for name, description in presets.items())


def _used(name: str) -> Iterator[str]:
    changes = apply_preset(name, PARAMS, check=from_raw)
    for change in changes:
        yield f"{change.key}: {_shown(change.old)} -> {_shown(change.new)}"
    yield f"{PARAMS} is {'now' if changes else 'already'} as in the preset {name}; next: dvc repro"


def _shown(value: Any) -> str:  # noqa: ANN401
    return "null" if value is None else str(value).lower() if value in (True, False) else str(value)


def sync_runs(root: Path) -> Iterator[str]:
    """Upload what outages of the tracking server left behind.

    Raises:
        TrackingError: It is still away.
    """
    report = sync(root)
    for key, events in report.uploaded.items():
        yield f"{key}: {events} events uploaded"
    for key in report.busy:
        yield f"{key}: its own process is uploading it"
    if not report.uploaded and not report.busy:
        yield "nothing was left to upload"


def views(root: Path) -> Iterator[str]:
    """Store views of the runs in MLflow and say where they open.

    Raises:
        TrackingError: The server is away.
    """
    uri = tracking_uri(root)
    server = uri.rstrip("/") if uri.startswith("http") else LOCAL_SERVER
    kept = keep_views(root, EXPERIMENT)
    width = max(map(len, kept), default=0)
    yield from (f"{name:{width}}  {server}{path}" for name, path in kept.items())
    if not kept:
        yield "no run is tracked yet"
