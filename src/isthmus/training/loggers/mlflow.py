"""A run of MLflow, with the recipe as its parameters.

It has the tag ``isthmus.run``, the id of the run folder, by which a resumed run finds and continues it. The tracking
server, or a local database, is what MLflow's own settings say (``MLFLOW_TRACKING_URI``).
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from isthmus.core.trackers import imported, metric_name
from isthmus.training.loggers.logger import LoggedRun, Logger, TrackerState

_TAG = "isthmus.run"
_LONGEST = 500  # characters of a parameter's value, which every server accepts
_AT_ONCE = 100  # parameters in a request


class MLflow(Logger):
    """A run of MLflow; needs the extra ``mlflow``.

    Attributes:
        experiment: its name; None means ``MLFLOW_EXPERIMENT_NAME``, or "isthmus".
    """

    name: Literal["mlflow"] = "mlflow"
    experiment: str | None = None

    def require(self) -> None:
        """Check that MLflow is installed."""
        self._library()

    def start(self, run: LoggedRun) -> TrackerState:
        """Start or resume the run of MLflow; an active run of the caller stays as it is."""
        library = self._library()
        client = library.MlflowClient()
        experiment = _experiment(client, self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "isthmus")
        found = client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if found:
            id_ = found[0].info.run_id
            client.update_run(id_, status="RUNNING")
            received = Counter(metric.step for metric in client.get_metric_history(id_, "epoch"))  # every row has it
        else:
            tags = {_TAG: run.id, "isthmus.folder": str(run.folder.resolve())}
            id_ = client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
            parameters = [library.entities.Param(*each) for each in _parameters(run.recipe)]
            for first in range(0, len(parameters), _AT_ONCE):
                client.log_batch(id_, params=parameters[first : first + _AT_ONCE])
            received = Counter()

        def has(step: int) -> bool:
            received[step] -= 1
            return received[step] >= 0

        return TrackerState(
            _Target(library, client, id_),
            has,
            lambda finished: client.set_terminated(id_, "FINISHED" if finished else "KILLED"),
        )

    def _library(self) -> Any:
        return imported("mlflow", "mlflow", "The logger 'mlflow'")


class _Target:
    """``log_metrics`` for a run that is not the active one."""

    def __init__(self, library: Any, client: Any, run: str) -> None:
        self.library, self.client, self.run = library, client, run

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        now = round(1000 * time.time())  # milliseconds
        entity = self.library.entities.Metric
        found = [entity(metric_name(name), float(value), now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run, metrics=found)


def _experiment(client: Any, name: str) -> str:
    known = client.get_experiment_by_name(name)
    return str(known.experiment_id if known is not None else client.create_experiment(name))


def _parameters(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The options of a recipe by dotted names, as text."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _parameters(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield metric_name(f"{prefix}{key}"), text[:_LONGEST]
