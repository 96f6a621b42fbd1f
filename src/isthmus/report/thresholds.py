"""Accuracies that a classifier must reach: ``robust=40%,clean=90%``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.core.errors import ConfigError, unknown
from isthmus.core.format import in_words, parse_fraction
from isthmus.core.types import Metric
from isthmus.report import verdicts
from isthmus.report.loading import AuditedModel

CHECKS = {"robust": "diagnosis", "clean": "accuracy"}
"""The check that measures each accuracy: the corrected robust accuracy of the worst mode, and clean accuracy."""


@dataclass(frozen=True)
class Judged:
    """An accuracy and its threshold.

    Attributes:
        model: name of the classifier.
        kind: "robust" or "clean".
        least: the threshold, in [0, 1].
        metric: what was measured; None if nothing was.
    """

    model: str
    kind: str
    least: float
    metric: Metric | None

    def __str__(self) -> str:
        if self.metric is None or self.metric.value is None:
            return f"{self.kind} accuracy of {self.model} was not measured; {self.least:.1%} is required"
        return f"{self.kind} accuracy of {self.model} is {in_words(self.metric)}; {self.least:.1%} is required"

    @property
    def missed(self) -> bool:
        """Whether the measured value lies below the threshold, or nothing was measured. No interval is used."""
        return self.metric is None or self.metric.value is None or self.metric.value < self.least


def parse(text: str) -> dict[str, float]:
    """Thresholds in [0, 1] by kind, from text such as ``robust=40%,clean=0.9``.

    Raises:
        ConfigError: an unknown kind, one that is given twice, or no accuracy.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        kind, _, value = (piece.strip() for piece in part.partition("="))
        least = parse_fraction(value)
        if kind not in CHECKS:
            raise ConfigError(unknown("accuracy", kind, CHECKS))
        if kind in found or not 0 <= least <= 1:
            raise ConfigError(f"Give each accuracy once, as in robust=40%,clean=90%; got {text!r}.")
        found[kind] = least
    return found


def judged(models: Sequence[AuditedModel], least: Mapping[str, float]) -> list[Judged]:
    """Every accuracy that has a threshold, of every model."""
    return [
        Judged(model.name, kind, threshold, _measured(model, kind))
        for model in models
        for kind, threshold in least.items()
    ]


def _measured(model: AuditedModel, kind: str) -> Metric | None:
    if kind == "robust":
        return next((row.corrected for row in verdicts.verdicts([model])), None)
    result = model.results.get(CHECKS[kind])
    return result.metrics.get("accuracy", mode="mean") if result is not None else None
