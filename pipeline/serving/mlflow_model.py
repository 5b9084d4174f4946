"""The model's code for MLflow: it reads this file, so that nothing is pickled.

Whatever is wrong with a request becomes an answer 400 that says so.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from dreamer.types import ConfigError
from pipeline.serving.policy import ServedPolicy, take_one_thread
from pipeline.serving.request import STATE


class PolicyModel(PythonModel):
    """A policy as MLflow calls it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the agent that lies beside the code."""
        take_one_thread()
        self.policy = ServedPolicy(Path(context.artifacts["agent"]))
        # MLflow answers each request in a thread. Several that compute at once take Python's lock
        # from each other between hundreds of small operations, and fewer requests are answered.
        self.turn = threading.Lock()

    # A type of `model_input` would be taken for a schema, and MLflow warns that it is missing.
    def predict(  # type: ignore[no-untyped-def]
        self,
        context: PythonModelContext,
        model_input,  # noqa: ANN001
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """See `ServedPolicy.answer`; MLflow fills `params` up from the signature."""
        del context
        wishes = dict(params or {})
        seed = wishes["seed"]
        seed = seed.item() if isinstance(seed, np.integer) else seed
        try:
            with self.turn:
                answer = self.policy.answer(model_input, wishes["policy"], seed)
        except ConfigError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        return {"action": answer.action, STATE: answer.states}


mlflow.models.set_model(PolicyModel())
