"""Numbers for experiment trackers: TensorBoard, Weights & Biases, MLflow, and loggers of other libraries."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from isthmus.core.errors import ConfigError, shown

_AT_ONCE = 500  # metrics in a request; a server of MLflow accepts 1,000


def imported(module: str, extra: str, needed_by: str) -> Any:
    """Import a module of an optional package.

    Raises:
        ConfigError: it is not installed; the message names the extra of isthmus that has it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"{needed_by} needs {extra}: pip install 'isthmus[{extra}]'.") from None


def metric_name(text: str) -> str:
    """A name with only the characters that MLflow accepts, and no slash: its file store makes folders of names."""
    return re.sub("[^A-Za-z0-9_. -]", "_", text)


def log_numbers(target: Any, numbers: Mapping[str, float], step: int) -> None:
    """Log numbers of one step.

    Args:
        target: a ``SummaryWriter``, the module ``mlflow`` or another object with ``log_metrics(metrics, step=…)``, or a
            run of W&B.
        numbers: by name.
        step: of training.

    Raises:
        ConfigError: the target is none of these.
    """
    if hasattr(target, "add_scalar"):
        for name, value in numbers.items():
            target.add_scalar(name, value, step)
    elif hasattr(target, "log_metrics"):
        names = list(numbers)
        for start in range(0, len(names), _AT_ONCE):
            target.log_metrics({name: numbers[name] for name in names[start : start + _AT_ONCE]}, step=step)
    elif hasattr(target, "log") and hasattr(target, "config"):
        target.log(dict(numbers), step=step)
    else:
        raise ConfigError(
            "log_to takes 'mlflow', 'wandb', 'tensorboard:FOLDER', a SummaryWriter, a run of W&B or an object with "
            f"log_metrics; got {shown(target)}."
        )
