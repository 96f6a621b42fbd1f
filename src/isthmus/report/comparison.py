"""Which differences of robust accuracy are shown, by paired intervals over the examples of stored results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.format import count, listed, points_of
from isthmus.core.types import Interval, Metric
from isthmus.metrics import paired_difference
from isthmus.report.loading import AuditedModel

LEVEL = 0.95
"""Level at which all intervals of a comparison hold together, by Bonferroni's correction."""

_MEAN = "mean"


@dataclass(frozen=True)
class Pair:
    """Robust accuracy of two classifiers on the same examples; ``difference`` is that of the first minus the second."""

    first: str
    second: str
    difference: Metric

    @property
    def shown(self) -> tuple[str, str] | None:
        """The more robust classifier and the other one, if the interval of the difference excludes 0."""
        interval = self.difference.interval
        if interval is None or interval.low <= 0 <= interval.high:
            return None
        return (self.first, self.second) if interval.low > 0 else (self.second, self.first)


def mode_of(model: AuditedModel) -> str:
    """The mode that the verdict is about, the worse one; mean without a verdict."""
    result = model.results.get("diagnosis")
    return _MEAN if result is None else str(result.details.get("mode", _MEAN))


def mode_words(model: AuditedModel) -> str:
    """The mode of the verdict, "stochastic mode"; empty if the diagnosis attacked the mean mode alone."""
    result, mode = model.results.get("diagnosis"), mode_of(model)
    several = result is not None and len(result.details.get("modes", {})) > 1
    return f"{mode} mode" if several or mode != _MEAN else ""


def pairs(models: Sequence[AuditedModel]) -> list[Pair]:
    """All pairs of classifiers; none if they were not attacked on the same images and at the same threat."""
    found = [_robust(model) for model in models]
    if len({None if each is None else each.condition for each in found}) != 1 or found[0] is None:
        return []
    rows = [each.rows for each in found if each is not None]
    both = list(combinations(range(len(models)), 2))
    level = 1 - (1 - LEVEL) / max(len(both), 1)
    return [
        Pair(
            models[i].name,
            models[j].name,
            paired_difference(rows[j], rows[i], level).named("robust_accuracy_difference"),
        )
        for i, j in both
    ]


def sentence(models: Sequence[AuditedModel]) -> str:
    """Which classifiers are shown to be more robust than which; empty for one classifier."""
    if len(models) < 2:
        return ""
    found = pairs(models)
    if not found:
        return (
            "Robust accuracies are not compared: the classifiers were not attacked on the same images at the same "
            "threat."
        )
    level = f"{'' if len(found) == 1 else 'jointly '}{LEVEL:.0%}, n = {found[0].difference.n:,}"
    shown = [pair.shown for pair in found if pair.shown is not None]
    if not shown:
        intervals = "the paired interval contains" if len(found) == 1 else f"all {len(found)} paired intervals contain"
        return f"No classifier is shown to be more robust than another: {intervals} 0 ({level})."
    better: dict[str, list[str]] = {}
    for winner, loser in shown:
        better.setdefault(loser, []).append(winner)
    parts = [
        f"{listed(winners)} {'is' if len(winners) == 1 else 'are'} shown to be more robust than {loser}"
        for loser, winners in better.items()
    ]
    intervals = "paired interval" if len(found) == 1 else "paired intervals"
    return f"By {intervals} ({level}), {'; '.join(parts)}.{_others(len(found) - len(shown))}"


def short_sentence(models: Sequence[AuditedModel]) -> str:
    """The comparison without names, if :func:`sentence` is too long."""
    found = pairs(models)
    shown = sum(pair.shown is not None for pair in found)
    return f"{shown} of {count(len(found), 'pair')} of classifiers are shown to differ in robust accuracy: see --all."


def _others(number: int) -> str:
    if number == 0:
        return ""
    return (
        f" The other {count(number, 'pair').removeprefix('one ')} {'is' if number == 1 else 'are'} not shown to differ."
    )


# --- reported and corrected accuracy of one classifier ---


def reported_sentence(models: Sequence[AuditedModel]) -> str:
    """Whether reported and corrected robust accuracy are shown to differ; empty without a verdict.

    Accuracies of the same examples are compared by the paired interval of their difference, at 95% each; a claimed
    accuracy, by the interval of the corrected one.
    """
    groups: dict[str, list[str]] = {}
    for model in models:
        if found := _reported(model):
            words, by = found
            groups.setdefault(words, []).append(f"{model.name} ({by})" if by else model.name)
    parts = [
        f"{words} for {listed(names)}" for words, names in sorted(groups.items(), key=lambda group: _order(group[0]))
    ]
    return f"Compared with the corrected robust accuracy, the reported one is {listed(parts)}." if parts else ""


def _order(words: str) -> int:
    """What is shown first, what is equal last."""
    return ("higher", "lower").index(words) if words in ("higher", "lower") else 3 if words == "equal" else 2


def _reported(model: AuditedModel) -> tuple[str, str] | None:
    """How the reported accuracy compares with the corrected one, and by how much it is shown to differ."""
    result = model.results.get("diagnosis")
    if result is None or "verdict" not in result.details:
        return None
    reported, corrected = (verdict_metric(result.details, name) for name in ("reported", "corrected"))
    if reported.value == corrected.value:
        return "equal", ""
    interval = _difference(model, reported, corrected)
    if interval is None or interval.low <= 0 <= interval.high:
        return f"not shown to differ at n = {corrected.n:,}", ""
    by = points_of((reported.value or 0.0) - (corrected.value or 0.0), corrected.n)
    return "higher" if interval.low > 0 else "lower", by


def verdict_metric(details: dict[str, Any], name: str) -> Metric:
    """The robust accuracy ``name``, "reported" or "corrected", of a stored diagnosis."""
    return Metric.model_validate(details["verdict"][f"{name}_metric"]).named(f"{name}_accuracy")


def _difference(model: AuditedModel, reported: Metric, corrected: Metric) -> Interval | None:
    """The interval of reported minus corrected accuracy."""
    before, after = _rows(model, "diagnosis", "reported_robust"), _rows(model, "diagnosis", "corrected_robust")
    if reported.n and before is not None and after is not None:
        return paired_difference(after, before).interval
    if corrected.interval is None or reported.value is None:
        return None
    low, high = (reported.value - end for end in (corrected.interval.high, corrected.interval.low))
    return Interval(low=low, high=high, level=corrected.interval.level, method=corrected.interval.method)


# --- robust examples ---


@dataclass(frozen=True)
class _Robust:
    """Which examples are robust, and under which condition: images, their number, threat and check."""

    condition: tuple[str, int, str, str]
    rows: NDArray[np.bool_]


def _robust(model: AuditedModel) -> _Robust | None:
    """The robust examples after the diagnosis, else at the largest ε of the check ``robustness``."""
    for check, array in (("diagnosis", "corrected_robust"), ("robustness", "robust")):
        rows = _rows(model, check, array)
        if rows is not None:
            rows = rows[-1] if rows.ndim == 2 else rows
            threat = str(model.results[check].details.get("threat", ""))
            return _Robust((model.record.data_hash, len(rows), threat, check), rows)
    return None


def _rows(model: AuditedModel, check: str, array: str) -> NDArray[np.bool_] | None:
    """An array of a check in the mode of the verdict."""
    result = model.results.get(check)
    mode = mode_of(model)
    rows = None if result is None else result.arrays.get(array if mode == _MEAN else f"{mode}_{array}")
    return None if rows is None else np.asarray(rows, dtype=bool)
