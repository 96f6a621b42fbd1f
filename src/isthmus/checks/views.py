"""Small things that checks share: the modes of a classifier, and words for the page's sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.core.types import CheckResult, Headline, Metric, Series, Status
from isthmus.metrics import Bin

if TYPE_CHECKING:
    from isthmus.checks.context import Context

MEAN, STOCHASTIC = "mean", "stochastic"


def clean_logits(context: Context) -> dict[str, NDArray[np.float32]]:
    """Logits or log-probabilities on the clean images, by mode: "mean", and "stochastic" if there is one."""
    found = {MEAN: context.logits.numpy()}
    if context.stochastic is not None:
        found[STOCHASTIC] = context.stochastic_logits.numpy()
    return found


def finite(logits: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether an example got an answer at all: bool[n], false where one of its logits is NaN or infinite."""
    return np.asarray(np.isfinite(logits).all(axis=1), dtype=np.bool_)


def correct(logits: NDArray[Any], truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an example is answered, and rightly: bool[n]."""
    return np.asarray(finite(logits) & (logits.argmax(axis=1) == truth), dtype=np.bool_)


def not_finite(missing: Mapping[str, int], consequence: str) -> str:
    """A clause about examples without an answer, from their number by mode; nothing where there are none.

    Args:
        consequence: what becomes of them, such as "count as wrong".
    """
    counts = {mode: count for mode, count in missing.items() if count}
    if not counts:
        return ""
    many = len(missing) > 1
    parts = [f"{count}{f' in {mode} mode' if many else ''}" for mode, count in counts.items()]
    return f"; images whose logits are NaN or infinite {consequence}: {listed(parts)}"


def labels(context: Context) -> NDArray[np.int64]:
    """The true labels as an array."""
    return np.asarray(context.labels.cpu().numpy(), dtype=np.int64)


def chance(truth: NDArray[np.int64], classes: int) -> float:
    """Accuracy of the best constant answer: the share of the most frequent label.

    Where all examples have one label that would be 1, and says nothing; it is 1/C then.
    """
    share = float(np.bincount(truth).max() / truth.size)
    return share if share < 1.0 else 1.0 / classes


def in_mode(name: str, mode: str) -> str:
    """Name of a metric or array in a mode: ``ece`` in mean mode is ``stochastic_ece`` in stochastic mode."""
    return name if mode == MEAN else f"{mode}_{name}"


def measured(results: Mapping[str, CheckResult]) -> dict[str, CheckResult]:
    """The results that hold numbers, by classifier name; skipped and failed-to-run ones are left out."""
    return {
        name: result
        for name, result in results.items()
        if result.status not in (Status.SKIPPED, Status.ERROR) and result.metrics
    }


def column(results: Mapping[str, CheckResult], metric: str) -> dict[str, Metric]:
    """One metric of every classifier that has it, by classifier name."""
    return {name: result.metrics[metric] for name, result in results.items() if metric in result.metrics}


def blamed(signs: Mapping[str, object]) -> str:
    """The mode that a warning is of, from the signs found in each: mean mode, unless only the other has any."""
    return next((mode for mode, found in signs.items() if found), MEAN)


def headlines(results: Mapping[str, CheckResult], metric: str, label: str) -> dict[str, Headline]:
    """One metric as what the scorecard shows, of every classifier that has it, in the mode that its status is of."""
    found = {}
    for name in column(results, metric):
        mode = str(results[name].details.get("mode", MEAN))
        note = "" if mode == MEAN else f"{mode} mode"
        found[name] = Headline(results[name].metrics[in_mode(metric, mode)], label, note=note)
    return found


@dataclass(frozen=True)
class Extreme:
    """Who has the largest or the smallest value, compared as it is shown (to three decimals).

    Attributes:
        names: all that have it; ``others``: the rest.
        alike: those of the rest that are not shown to differ, since their intervals overlap.
    """

    names: list[str]
    others: list[str]
    alike: list[str]

    @property
    def caveat(self) -> str:
        """A clause about those that are not shown to differ; nothing where all others are."""
        if not self.alike:
            return ""
        who = listed(self.alike) if len(self.alike) <= 3 else f"{len(self.alike)} of the other {len(self.others)}"
        return f"; not shown to differ from {who}, whose intervals overlap"


def extreme(found: Mapping[str, Metric], largest: bool = True) -> Extreme:
    """Who has the largest value (or the smallest), and who is not shown to differ from that."""
    values = {name: round(metric.value or 0.0, 3) for name, metric in found.items()}
    value = max(values.values()) if largest else min(values.values())
    names = [name for name in values if values[name] == value]
    others = [name for name in values if name not in names]
    alike = [name for name in others if any(overlap(found[name], found[first]) for first in names)]
    return Extreme(names, others, alike)


def overlap(a: Metric, b: Metric) -> bool:
    """Whether two intervals have a value in common; where one is missing nothing is shown to differ."""
    if a.interval is None or b.interval is None:
        return True
    return a.interval.low <= b.interval.high and b.interval.low <= a.interval.high


def bin_series(name: str, bins: Sequence[Bin]) -> Series:
    """Accuracy over confidence, or margin, of the bins that are not empty, with their intervals."""
    full = [(each.confidence, each.accuracy, each.interval) for each in bins if each.n]
    return Series(
        name,
        x=tuple(confidence for confidence, _, _ in full if confidence is not None),
        y=tuple(accuracy for _, accuracy, _ in full if accuracy is not None),
        low=tuple(ends.low for _, _, ends in full if ends),
        high=tuple(ends.high for _, _, ends in full if ends),
        style="points",  # bins of a few examples scatter; a line through them would read as a trend
        group=name,
    )


def share_series(name: str, bins: Sequence[Bin]) -> Series:
    """The share of all examples that lies in each bin, as bars."""
    total = sum(each.n for each in bins) or 1
    centres = tuple((each.low + each.high) / 2 for each in bins)
    return Series(name, centres, tuple(each.n / total for each in bins), style="bars", group=name)


def percent(fraction: float | None) -> str:
    """0.973 as "97.3%"."""
    return "an unknown share" if fraction is None else f"{100 * fraction:.1f}%"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, without its sign: −0.031 as "3.1 points"."""
    return f"{100 * abs(fraction):.1f} points"


def interval(metric: Metric) -> str:
    """The interval of a fraction as " (95% interval 95.1% to 98.2%)", or nothing where there is none."""
    found = metric.interval
    return f" ({found.level:.0%} interval {percent(found.low)} to {percent(found.high)})" if found else ""


def listed(items: Sequence[str]) -> str:
    """Items as a phrase: "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
