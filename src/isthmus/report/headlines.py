"""The numbers that a summary of an audit shows: reported, corrected, certified and clean accuracy, and ECE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isthmus.core.types import CheckResult, Metric, Status
from isthmus.report import comparison
from isthmus.report.loading import AuditedModel

REPORTED, CORRECTED, CLEAN, ECE, ROBUST = "reported", "corrected", "clean", "ECE", "robust accuracy"
CERTIFIED = "certified"


def headlines(models: Sequence[AuditedModel]) -> dict[str, list[Metric | None]]:
    """The numbers by title, each with an entry for every classifier; a title that no classifier has is left out.

    They are those of the mode that the verdict is about. Without any verdict, the robust accuracy of the check
    ``robustness`` takes the place of the reported and the corrected one.
    """
    columns: dict[str, Callable[[AuditedModel], Metric | None]] = {
        REPORTED: lambda model: verdict_metric(model, "reported"),
        CORRECTED: lambda model: verdict_metric(model, "corrected"),
        CERTIFIED: _certified,
        CLEAN: lambda model: metric(model, "accuracy", "accuracy"),
        ECE: lambda model: metric(model, "calibration", "ece"),
    }
    if all(diagnosed(model) is None for model in models):
        columns = {ROBUST: _robust, CERTIFIED: _certified, CLEAN: columns[CLEAN], ECE: columns[ECE]}
    found = {title: [get(model) for model in models] for title, get in columns.items()}
    return {title: metrics for title, metrics in found.items() if any(metrics)}


def diagnosed(model: AuditedModel) -> CheckResult | None:
    """The result of the diagnosis if it holds a verdict."""
    result = model.results.get("diagnosis")
    return result if result is not None and "verdict" in result.details else None


def verdict_metric(model: AuditedModel, name: str) -> Metric | None:
    """The "reported" or "corrected" robust accuracy; None without a verdict."""
    result = diagnosed(model)
    return None if result is None else comparison.verdict_metric(result.details, name)


def metric(model: AuditedModel, check: str, name: str) -> Metric | None:
    """A check's metric in the mode of the verdict, for all classes and before any scaling."""
    result = model.results.get(check)
    if result is None or result.status is Status.ERROR:
        return None
    found = [metric for metric in result.metrics.select(name) if metric.coords.keys() <= {"mode"}]
    by_mode = {metric.coords.get("mode"): metric for metric in found}
    return by_mode.get(comparison.mode_of(model), by_mode.get("mean", by_mode.get(None)))


def _certified(model: AuditedModel) -> Metric | None:
    """The certified lower bound on robust accuracy, of the check ``certificate``."""
    result = model.results.get("certificate")
    return None if result is None else next(iter(result.metrics.select("certified_accuracy")), None)


def _robust(model: AuditedModel) -> Metric | None:
    """Robust accuracy against all attacks at the largest ε, of the check ``robustness``."""
    result = model.results.get("robustness")
    found = [] if result is None else [m for m in result.metrics.select("robust_accuracy") if "attack" not in m.coords]
    found = [metric for metric in found if metric.coords.get("mode", "mean") == "mean"]
    return max(found, key=lambda metric: float(metric.coords.get("eps", 0)), default=None)
