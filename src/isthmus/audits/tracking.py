"""Log an audit to an experiment tracker."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.audits.result import Audit, audited_model
from isthmus.core.errors import ConfigError, shown
from isthmus.report.exports import markdown
from isthmus.report.headlines import diagnosed
from isthmus.report.loading import AuditedModel, as_mapping

_AT_ONCE = 500  # metrics in a request; a server of MLflow accepts 1,000


def log_to(target: Any, audit: Audit | str | Path, step: int = 0) -> None:
    """Log the numbers of an audit to MLflow, Weights & Biases or TensorBoard.

    A number is named ``check/metric.coordinate_value…``, such as ``accuracy/accuracy.mode_mean``; n and the ends of its
    interval follow as ``….n``, ``….low`` and ``….high``. Numbers that were not measured are left
    out. Verdict, threat and hashes are logged as tags (MLflow), configuration (W&B) or text (TensorBoard).

    Args:
        target: ``"mlflow"`` for the active run, or a new one; ``"wandb"`` for the active run; ``"tensorboard:FOLDER"``;
            or an object: a ``SummaryWriter``, a run of W&B, the module ``mlflow``, or a logger with
            ``log_metrics(metrics, step=…)``.
        audit: the result of :func:`isthmus.audit`, or an audited run folder.
        step: of training, for the x axis.

    Raises:
        ConfigError: an unknown target, a tracker that is not installed, or no active run of W&B.
        FileError: the folder holds no audit.
    """
    model = audited_model(audit, "audit")
    if isinstance(target, str) and target.startswith("tensorboard:"):
        with _imported("torch.utils.tensorboard", "tensorboard").SummaryWriter(target.partition(":")[2]) as writer:
            _log(writer, model, step)
        return
    if target == "mlflow":
        target = _imported("mlflow", "mlflow")
    elif target == "wandb":
        target = _imported("wandb", "wandb").run
        if target is None:
            raise ConfigError("There is no active run of W&B; call wandb.init first, or give a run.")
    _log(target, model, step)


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"log_to needs {package}: pip install {package}.") from None


def _log(target: Any, model: AuditedModel, step: int) -> None:
    numbers, facts = dict(_numbers(model)), _facts(model)
    if hasattr(target, "add_scalar"):
        for name, value in numbers.items():
            target.add_scalar(name, value, step)
        target.add_text("isthmus/summary", markdown.render([model], []).decode(), step)
    elif hasattr(target, "log_metrics"):
        names = list(numbers)
        for start in range(0, len(names), _AT_ONCE):
            target.log_metrics({name: numbers[name] for name in names[start : start + _AT_ONCE]}, step=step)
        if hasattr(target, "set_tags"):
            target.set_tags({f"isthmus.{name}": value for name, value in facts.items()})
    elif hasattr(target, "log") and hasattr(target, "config"):
        target.log(numbers, step=step)
        target.config.update({"isthmus": facts}, allow_val_change=True)
    else:
        raise ConfigError(
            "log_to takes 'mlflow', 'wandb', 'tensorboard:FOLDER', a SummaryWriter, a run of W&B or an object with "
            f"log_metrics; got {shown(target)}."
        )


def _numbers(model: AuditedModel) -> Iterator[tuple[str, float]]:
    for check, result in model.results.items():
        for metric in result.metrics:
            if metric.value is None:
                continue
            words = (metric.name, *(f"{key}_{value}" for key, value in metric.coords.items()))
            # the characters that MLflow accepts; no slash after the check, since its file store makes folders of names
            name = f"{check}/{re.sub('[^A-Za-z0-9_. -]', '_', '.'.join(words))}"
            yield name, metric.value
            yield f"{name}.n", metric.n
            if metric.interval is not None:
                yield from ((f"{name}.low", metric.interval.low), (f"{name}.high", metric.interval.high))


def _facts(model: AuditedModel) -> dict[str, str]:
    result = diagnosed(model)
    return {
        "verdict": "none" if result is None else str(result.details["verdict"]["status"]),
        "threat": str(model.record.settings.get("threat", "")),
        "data": model.record.data,
        "data_hash": model.record.data_hash,
        "model_hash": model.record.model_hash,
        "version": str(as_mapping(model.record.provenance.get("packages")).get("isthmus")),
    }
