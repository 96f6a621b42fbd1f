"""Log an audit to an experiment tracker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.audits.result import Audit, audited_model
from isthmus.core.errors import ConfigError
from isthmus.core.trackers import imported, log_numbers, metric_name
from isthmus.report.exports import markdown
from isthmus.report.headlines import diagnosed
from isthmus.report.loading import AuditedModel, as_mapping


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
        tensorboard = imported("torch.utils.tensorboard", "tensorboard", "log_to")
        with tensorboard.SummaryWriter(target.partition(":")[2]) as writer:
            _log(writer, model, step)
        return
    if target == "mlflow":
        target = imported("mlflow", "mlflow", "log_to")
    elif target == "wandb":
        target = imported("wandb", "wandb", "log_to").run
        if target is None:
            raise ConfigError("There is no active run of W&B; call wandb.init first, or give a run.")
    _log(target, model, step)


def _log(target: Any, model: AuditedModel, step: int) -> None:
    facts = _facts(model)
    log_numbers(target, dict(_numbers(model)), step)
    if hasattr(target, "add_text"):
        target.add_text("isthmus/summary", markdown.render([model], []).decode(), step)
    elif hasattr(target, "set_tags"):
        target.set_tags({f"isthmus.{name}": value for name, value in facts.items()})
    elif hasattr(target, "config"):
        target.config.update({"isthmus": facts}, allow_val_change=True)


def _numbers(model: AuditedModel) -> Iterator[tuple[str, float]]:
    for check, result in model.results.items():
        for metric in result.metrics:
            if metric.value is None:
                continue
            words = (metric.name, *(f"{key}_{value}" for key, value in metric.coords.items()))
            name = f"{check}/{metric_name('.'.join(words))}"
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
