"""A saved agent as the folder of an MLflow model: code, weights, signature, example, versions."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from dreamer.checkpoint import META, TENSORS
from dreamer.types import CheckpointError, EnvSpec
from dreamer.world_model.model import WorldModelConfig
from pipeline.closure import ROOT, import_closure
from pipeline.serving.policy import DEFAULTS, ServedPolicy
from pipeline.serving.request import STATE, example_inputs
from pipeline.tracking.place import QUIET, environment

CODE = ("pipeline.serving.mlflow_model", "pipeline.serving.server")  # what a model is started with
SILENT = QUIET | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
ALWAYS = ("mlflow", "torch", "numpy", "safetensors", "gymnasium", "starlette", "uvicorn")


def write_model(agent: Path, target: Path) -> None:
    """Write what `mlflow models serve -m TARGET` needs, and nothing pickled.

    Args:
        agent: Folder of a saved agent, such as models/agent/best.
        target: Folder to create; one that is there must be empty.

    Raises:
        CheckpointError: No readable agent is there, an observation has the name that the state
            has in requests, or the target cannot be written.
    """
    policy = ServedPolicy(agent)
    if STATE in policy.spec.obs:
        raise CheckpointError(f"{agent}: found an observation {STATE!r}; allowed: other names")
    if target.exists() and list(target.iterdir()):
        raise CheckpointError(f"{target}: cannot write the model: the folder is not empty")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target and moved there when it is complete: half a model is none.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".model-") as scratch:
            _save(policy, agent, Path(scratch))
            (Path(scratch) / "model").replace(target)
    except (MlflowException, OSError) as error:
        raise CheckpointError(f"{target}: cannot write the model: {error}") from None


def _save(policy: ServedPolicy, agent: Path, scratch: Path) -> None:
    """Write scratch/model."""
    weights = scratch / "agent"
    weights.mkdir()
    for name in (TENSORS, META):
        shutil.copy(agent / name, weights / name)
    with environment(SILENT), warnings.catch_warnings(record=True) as caught:
        save_model(
            scratch / "model",
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            code_paths=_staged_code(scratch),
            artifacts={"agent": str(weights)},
            signature=signature(policy.spec),
            input_example=example_inputs(policy.spec),
            pip_requirements=requirements(policy.model.config),
            metadata={"agent": f"{policy.mark:016x}", "environment": policy.env.id},
        )
    for each in caught:
        # MLflow cannot be told that types would be taken for a schema, and ours says more.
        if "Add type hints" not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def signature(spec: EnvSpec) -> ModelSignature:
    """What goes in and out, and the parameters with their defaults.

    Keys of whole numbers are entered as objects: MLflow would cut 0.5 to 0 where a picture is
    wanted, and refuse base64. `read_inputs` checks them.
    """
    inputs = [
        TensorSpec(np.dtype("float32"), (-1, *obs.shape), key)
        if obs.dtype == "float32"
        else TensorSpec(np.dtype(object), (-1,), key)
        for key, obs in spec.obs.items()
    ]
    state = TensorSpec(np.dtype(object), (-1,), STATE)
    action = TensorSpec(np.dtype("float32"), (-1, spec.action.dim), "action")
    kinds = {"policy": DataType.string, "seed": DataType.long}
    params: list[Any] = [ParamSpec(name, kinds[name], value) for name, value in DEFAULTS.items()]
    return ModelSignature(
        inputs=Schema([*inputs, state]),
        outputs=Schema([action, state]),
        params=ParamSchema(params),
    )


def requirements(config: WorldModelConfig) -> list[str]:
    """Pins of what answering imports, as they are installed here."""
    names = list(ALWAYS)
    if config.text.model != "own" or config.text.tokenizer != "own":
        names += ["tokenizers", "transformers"]
    if config.audio.features != "waveform":
        names += ["torchaudio"]
    # A build such as 2.13.0+cpu is in no common index, and any build of the version will do.
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _staged_code(scratch: Path) -> list[str]:
    """Copies of the modules that answering imports, as MLflow wants them: by package."""
    staged = scratch / "code"
    for path in {path for module in CODE for path in import_closure(module)}:
        (staged / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, staged / path)
    return sorted(str(package) for package in staged.iterdir())
