"""What all workers of one study are told, as one JSON file in the folder of the study."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.params import Raw, of_stages
from pipeline.report.tables import write_json
from pipeline.tune.config import TuneConfig, tune_config
from pipeline.tune.space import Axis, Point, read_space

FOLDER = Path("outputs") / "tune"
FILE = "plan.json"
MANY = 10**6  # trials of a study that ends with its finalists


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One study.

    Attributes:
        raw: The parameters that trials change, the section `tune` included.
        study: Its name. storage: Optuna's URL, or a path of a journal.
        folder: Of the study; stages lie beside it. backend: Who trains, `inprocess` or `dvc`.
        finalists: Points to train with `tune.final_seeds`, in place of a search; empty for one.
    """

    raw: Raw
    study: str
    storage: str
    folder: Path
    backend: str = "inprocess"
    finalists: tuple[Point, ...] = ()

    @property
    def config(self) -> TuneConfig:
        """The section `tune`."""
        return tune_config(self.raw)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is searched."""
        return read_space(self.config, self.raw)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Trainings of each trial."""
        return self.config.final_seeds if self.finalists else self.config.seeds

    @property
    def evaluate_seed(self) -> int:
        """Of the episodes that judge trials; finalists are judged by those of `dvc repro`."""
        return int(self.raw["evaluate"]["seed"]) if self.finalists else self.config.evaluate_seed

    @property
    def trials(self) -> int:
        """How many in all."""
        return MANY if self.finalists else self.config.trials

    @property
    def stages(self) -> Path:
        """Where stages keep what they made, for all studies."""
        return self.folder.parent / "stages"

    @property
    def subject(self) -> dict[str, object]:
        """What must be the same for trials to belong to one study."""
        config = self.config
        return {
            "parameters": of_stages(self.raw),
            "space": [[axis.key, str(axis.distribution)] for axis in self.axes],
            "seeds": list(self.seeds),
            "objective": config.objective,
            "evaluate_seed": self.evaluate_seed,
        }

    def write(self) -> Path:
        """Write the file that `read_plan` reads; return its path."""
        path = self.folder / FILE
        write_json(
            path,
            {
                "raw": self.raw,
                "study": self.study,
                "storage": self.storage,
                "folder": self.folder.as_posix(),
                "backend": self.backend,
                "finalists": self.finalists,
            },
        )
        return path


def read_plan(path: Path) -> Plan:
    """Read what `Plan.write` wrote."""
    content = json.loads(path.read_text(encoding="ascii"))
    folder, finalists = Path(content["folder"]), tuple(content["finalists"])
    return Plan(**{**content, "folder": folder, "finalists": finalists})


def default_name(raw: Raw) -> str:
    """Name of a study that was given none: equal for equal parameters and spaces."""
    plan = Plan(raw=raw, study="", storage="", folder=FOLDER)
    text = json.dumps(plan.subject, sort_keys=True)
    env = re.sub(r"[^\w.-]+", "_", str(raw["env"]["id"])).strip("_")
    return f"{env}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
