"""Loggers: where the metrics of a run go beside ``metrics.jsonl``. Each is a frozen class in its own file.

Names are imported lazily: ``isthmus.training.loggers.CSV()`` imports one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.core.registry import lazy_attribute

if TYPE_CHECKING:
    from isthmus.training.loggers.csv import CSV as CSV
    from isthmus.training.loggers.mlflow import MLflow as MLflow
    from isthmus.training.loggers.tensorboard import TensorBoard as TensorBoard
    from isthmus.training.loggers.wandb import WandB as WandB

_MODULES = {"CSV": "csv", "MLflow": "mlflow", "TensorBoard": "tensorboard", "WandB": "wandb"}


def __getattr__(name: str) -> Any:
    return lazy_attribute(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
