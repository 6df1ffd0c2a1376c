"""Tells MLflow of a run; the only file that knows that library.

Without a server (MLFLOW_TRACKING_URI) a run goes into a folder beside the run folders, which MLflow shows with
`MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri runs/mlruns`. SQLite would need sqlalchemy and alembic.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_UNLESS_SET_OTHERWISE = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder is the one local store that mlflow-skinny has without a database
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would report to its makers; whoever runs a hub was not asked
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # a server that hangs shall be known as one before long, not after 15 minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
for _name, _value in _UNLESS_SET_OTHERWISE.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402  # it looks at the environment when it is imported
from mlflow.entities import Metric, Param  # noqa: E402

_RUN = "fedhub.run"


class MlflowRun:
    """A run as MLflow knows it; the same one again when it is resumed."""

    def __init__(self, store: Path, run: str, name: str, *, settings: Mapping[str, str | float], at: float) -> None:
        """Find the run, or make it, in the experiment that MLFLOW_EXPERIMENT_NAME names, or in `fedhub`.

        Args:
            store: the folder of runs if there is no MLFLOW_TRACKING_URI.
            run: its id.
            name: as people know it.
            settings: what it may have different from another.
            at: seconds since 1970.

        Raises:
            Exception: whatever MLflow and the network can think of; other methods raise it too.
        """
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or store.as_uri())
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "fedhub"
        experiment = self._client.get_experiment_by_name(title)
        where = experiment.experiment_id if experiment else self._client.create_experiment(title)
        if known := self._client.search_runs([where], f"tags.`{_RUN}` = '{run}'"):
            self._id = known[0].info.run_id
            self._client.update_run(self._id, "RUNNING")
        else:
            self._id = self._client.create_run(where, int(at * 1000), {_RUN: run}, name).info.run_id
            self._client.log_batch(self._id, params=[Param(key, str(value)) for key, value in settings.items()])

    def add(self, round: int, at: float, scalars: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        time = int(at * 1000)
        self._client.log_batch(self._id, [Metric(name, value, time, round) for name, value in scalars.items()])

    def end(self, at: float, *, finished: bool) -> None:
        """Say that nobody works on the run any more."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED", int(at * 1000))
