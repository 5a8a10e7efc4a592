"""MLflow (https://mlflow.org)."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from modkit import Run
from modkit_trackers.tracker import Picture, Tracker, check_installed

__all__ = ["MLflow"]

_LONGEST = 6000
_MOST = 100
"""Longest value of a parameter, and most parameters in one request, that MLflow takes."""


class MLflow(Tracker):
    """Logs losses, scores, grids of samples and the resolved spec to MLflow.

    The spec is logged as `spec.yaml`, and its values as parameters such as `model.prior.sampler.use`, which MLflow does
    not let change when a run is resumed. Grids are `samples/step-00000500.png`. In names of scores, characters that
    MLflow does not take become `_`. A resumed run goes on with its MLflow run.

    Args:
        uri: The tracking server or store, such as `http://localhost:5000` or `sqlite:///mlflow.db`; None is MLflow's
            own setting, `MLFLOW_TRACKING_URI`.
        experiment: Experiment of the MLflow run, which is created if there is none.
        every: Losses are logged at steps divisible by this number.

    Raises:
        ImportError: If the package `mlflow` is missing.
        ValueError: If `every` is below 1.
    """

    name = "mlflow"

    def __init__(self, *, uri: str | None = None, experiment: str = "modkit", every: int = 1) -> None:
        super().__init__(every)
        check_installed("mlflow", "MLflow")
        self._uri, self._experiment = uri, experiment
        self._mlflow: Any = None
        self._client: Any = None
        self._id = ""

    def begin(self, run: Run, config: Mapping[str, Any], identifier: str | None) -> str:
        """Begins an MLflow run, or goes on with one."""
        self._mlflow = importlib.import_module("mlflow")
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        if identifier is None:
            self._id = self._create(run.path.resolve().name, config)
        else:
            self._id = identifier
            self._client.update_run(self._id, status="RUNNING")
        self._client.log_text(self._id, run.spec_text, "spec.yaml")
        return self._id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers of a step."""
        make, now = self._mlflow.entities.Metric, int(time.time() * 1000)
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in values.items()}
        self._client.log_batch(self._id, metrics=[make(name, value, now, step) for name, value in named.items()])

    def show(self, step: int, name: str, picture: Picture) -> None:
        """Logs a picture of a step."""
        self._client.log_image(self._id, picture, artifact_file=f"{name}/step-{step:08d}.png")

    def end(self, *, failed: bool) -> None:
        """Ends the MLflow run."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _create(self, name: str, config: Mapping[str, Any]) -> str:
        """Creates an MLflow run with the values of a spec as parameters, and returns its identifier."""
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        created: str = self._client.create_run(experiment, run_name=name).info.run_id
        make = self._mlflow.entities.Param
        params = [make(path, str(value)[:_LONGEST]) for path, value in _flatten(config)]
        for first in range(0, len(params), _MOST):
            self._client.log_batch(created, params=params[first : first + _MOST])
        return created


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Lists the values of a spec by their paths; lists of plain values are one value."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flatten(item, f"{path}.{index}")
    else:
        yield re.sub(r"[^\w\-. /]", "_", path), value
