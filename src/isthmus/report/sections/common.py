"""What several sections share: rows by mode, headlines, comparisons of classifiers, and reliability series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.core.display import Headline, Series
from isthmus.core.format import listed
from isthmus.core.types import CheckResult, Coordinate, Metric, Status
from isthmus.metrics import Bin

MEAN, STOCHASTIC = "mean", "stochastic"

Results = Mapping[str, CheckResult]
"""Results of one check by classifier name."""
Row = tuple[str | float | Metric | None, ...]


def with_metrics(results: Results) -> dict[str, CheckResult]:
    """The results that hold numbers: not skipped and not ended by an error."""
    return {
        name: result
        for name, result in results.items()
        if result.status not in (Status.SKIPPED, Status.ERROR) and len(result.metrics)
    }


def column(results: Results, metric: str, **coords: Coordinate) -> dict[str, Metric]:
    """One metric of every classifier that has it, by classifier name."""
    found = {name: result.metrics.get(metric, **coords) for name, result in results.items()}
    return {name: metric for name, metric in found.items() if metric is not None}


def label(name: str, mode: str) -> str:
    """A classifier in a mode: "vib" or "vib (stochastic)"."""
    return name if mode == MEAN else f"{name} ({mode})"


def in_mode(array: str, mode: str) -> str:
    """Name of a stored array in a mode."""
    return array if mode == MEAN else f"{mode}_{array}"


def headlines(results: Results, metric: str, title: str) -> dict[str, Headline]:
    """One metric for the scorecard, of every classifier that has it, in the mode that its status is of."""
    found = {}
    for name, result in results.items():
        mode = str(result.details.get("mode", MEAN))
        number = result.metrics.get(metric, mode=mode)
        if number is not None:
            found[name] = Headline(number, title, note="" if mode == MEAN else f"{mode} mode")
    return found


@dataclass(frozen=True)
class Extreme:
    """The classifiers with the largest or smallest value, compared to three decimals as it is shown.

    Attributes:
        names: all that have it; ``others``: the rest.
        alike: those of the rest whose intervals overlap.
    """

    names: list[str]
    others: list[str]
    alike: list[str]

    @property
    def caveat(self) -> str:
        """A clause about classifiers that are not shown to differ; "" if all others are."""
        if not self.alike:
            return ""
        names = listed(self.alike) if len(self.alike) <= 3 else f"{len(self.alike)} of the other {len(self.others)}"
        return f"; not shown to differ from {names}, whose intervals overlap"


def extreme(found: Mapping[str, Metric], largest: bool = True) -> Extreme:
    """The classifiers with the largest (or smallest) value, and those that are not shown to differ."""
    values = {name: round(metric.value or 0.0, 3) for name, metric in found.items()}
    value = max(values.values()) if largest else min(values.values())
    names = [name for name in values if values[name] == value]
    others = [name for name in values if name not in names]
    alike = [name for name in others if any(overlap(found[name], found[first]) for first in names)]
    return Extreme(names, others, alike)


def overlap(a: Metric, b: Metric) -> bool:
    """Whether two intervals have a value in common; true if one is missing."""
    if a.interval is None or b.interval is None:
        return True
    return a.interval.low <= b.interval.high and b.interval.low <= a.interval.high


def curve(name: str, x: Sequence[float], metrics: Sequence[Metric], **options: Any) -> Series:
    """Metrics as a series with intervals; a metric without an interval gets one of width 0."""
    ends = [(m.interval.low, m.interval.high) if m.interval else (m.value or 0.0,) * 2 for m in metrics]
    return Series(
        name,
        x=tuple(x),
        y=tuple(m.value or 0.0 for m in metrics),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
        **options,
    )


def bin_series(name: str, bins: Sequence[Bin]) -> Series:
    """Accuracy over confidence, or margin, of the bins that are not empty, with their intervals."""
    full = [(each.confidence, each.accuracy, each.interval) for each in bins if each.n]
    return Series(
        name,
        x=tuple(confidence for confidence, _, _ in full if confidence is not None),
        y=tuple(accuracy for _, accuracy, _ in full if accuracy is not None),
        low=tuple(ends.low for _, _, ends in full if ends),
        high=tuple(ends.high for _, _, ends in full if ends),
        style="points",  # bins of a few examples scatter; a line through them would suggest a trend
        group=name,
    )


def share_series(name: str, bins: Sequence[Bin]) -> Series:
    """The fraction of all examples in each bin, as bars."""
    total = sum(each.n for each in bins) or 1
    centres = tuple((each.low + each.high) / 2 for each in bins)
    return Series(name, centres, tuple(each.n / total for each in bins), style="bars", group=name)
