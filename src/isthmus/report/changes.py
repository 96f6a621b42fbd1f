"""What changed from one audit to another on the same images, by paired intervals over the examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus import metrics
from isthmus.core.errors import ConfigError
from isthmus.core.format import in_words, interval_text, listed, value_text
from isthmus.core.notebook import Summarized, dataframe
from isthmus.core.types import CheckResult, Metric, Status
from isthmus.report import summary
from isthmus.report.comparison import LEVEL
from isthmus.report.loading import AuditedModel, as_mapping, distinct
from isthmus.report.sections.common import MEAN, STOCHASTIC, in_mode

FORMAT = 1
"""Version of :meth:`AuditComparison.document`. It is increased whenever a key changes its meaning."""


_RESAMPLES = 4000  # of a bootstrap, whose quantiles lie far out if many intervals hold jointly
_SHORT = 12  # of a commit


@dataclass(frozen=True)
class Quantity:
    """A number of a check that has a value for each example.

    Attributes:
        check, metric: where it is stored.
        arrays: beginning of the names of its arrays; their mean over the examples is the metric.
        title: as it is shown.
        higher_is_better: whether a larger number is better.
    """

    check: str
    metric: str
    arrays: str
    title: str
    higher_is_better: bool


QUANTITIES = (
    Quantity("diagnosis", "corrected_accuracy", "corrected_robust", "robust accuracy", True),
    Quantity("robustness", "robust_accuracy", "robust", "robust accuracy", True),
    Quantity("accuracy", "accuracy", "correct", "clean accuracy", True),
    Quantity("calibration", "nll", "nll", "NLL (nats)", False),
    Quantity("calibration", "brier", "brier", "Brier score", False),
    Quantity("corruptions", "mean_error", "correct_", "error under corruptions", False),
)
"""What is compared. ``robustness`` only if an audit has no diagnosis, whose number is the same or lower."""


@dataclass(frozen=True)
class Change:
    """One number in both audits.

    Attributes:
        title: what it is.
        mode: "mean" or "stochastic".
        before, after: the stored metrics.
        difference: after minus before, paired over the examples; its interval holds jointly with those of all others.
        higher_is_better: whether a larger number is better.
    """

    title: str
    mode: str
    before: Metric
    after: Metric
    difference: Metric
    higher_is_better: bool

    @property
    def outcome(self) -> str:
        """ "worse" or "better" if the interval of the difference excludes 0, else "not shown to differ"."""
        interval = self.difference.interval
        if interval is None or interval.low <= 0 <= interval.high:
            return "not shown to differ"
        return "better" if (interval.low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True, repr=False)
class AuditComparison(Summarized):
    """What changed from one audit to another.

    Attributes:
        before, after: names of the models.
        changes: every number that both audits have for each example.
        missing: what the first audit has and the second does not, or under other conditions.
        notes: differences of the audits themselves, such as settings and versions.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[Change, ...]:
        """The changes that are worse beyond their interval."""
        return tuple(change for change in self.changes if change.outcome == "worse")

    def rows(self) -> list[dict[str, Any]]:
        """A tidy row for each change: quantity, mode, before, after, difference, its interval, n, unit and outcome."""
        return [
            {
                "quantity": change.title,
                "mode": change.mode,
                "before": change.before.value,
                "after": change.after.value,
                "difference": change.difference.value,
                **{key: change.difference.row()[key] for key in ("low", "high", "level", "method", "n", "unit")},
                "outcome": change.outcome,
            }
            for change in self.changes
        ]

    def to_dataframe(self) -> Any:
        """The :meth:`rows` as a pandas DataFrame.

        Raises:
            ConfigError: pandas is not installed.
        """
        return dataframe(self.rows(), "rows()")

    def document(self) -> dict[str, Any]:
        """All of it as JSON-able data."""
        return {
            "format": FORMAT,
            "before": self.before,
            "after": self.after,
            "regression": bool(self.regressions),
            "changes": [
                {"quantity": change.title, "mode": change.mode, "outcome": change.outcome}
                | {key: getattr(change, key).plain() for key in ("before", "after", "difference")}
                for change in self.changes
            ],
            "missing": list(self.missing),
            "notes": list(self.notes),
        }

    def table(self, short: bool = False) -> Iterator[tuple[str, str, str, str, str]]:
        """Rows for a reader: quantity, before, after, difference with its interval, and outcome.

        Args:
            short: leave out intervals and n of the two audits, and "not shown to differ".
        """
        several = len({change.mode for change in self.changes}) > 1
        for change in self.changes:
            difference = f"{value_text(change.difference, unit=False)} ({interval_text(change.difference)})"
            before, after = (
                value_text(each, unit=False) if short else in_words(each) for each in (change.before, change.after)
            )
            word = "–" if short and change.outcome not in ("worse", "better") else change.outcome
            yield f"{change.title}, {change.mode}" if several else change.title, before, after, difference, word

    @property
    def sentence(self) -> str:
        """Whether it is a regression, in a sentence."""
        level = f"{'jointly ' if len(self.changes) > 1 else ''}{LEVEL:.0%}, n = {self.changes[0].difference.n:,}"
        if not self.regressions:
            return f"No regression from {self.before} to {self.after} is shown by paired intervals ({level})."
        named = [f"{title} by {difference}" for title, _, _, difference, word in self.table() if word == "worse"]
        return f"{self.after} is worse than {self.before} by paired intervals ({level}): {'; '.join(named)}."

    def _summary(self) -> dict[str, str]:
        better = [change.title for change in self.changes if change.outcome == "better"]
        return {
            "AuditComparison": self.sentence,
            **({"better": listed(better)} if better else {}),
            **({"missing": " ".join(self.missing)} if self.missing else {}),
        }


def compare(before: AuditedModel, after: AuditedModel) -> AuditComparison:
    """Compare two audits on the same images; see :func:`isthmus.compare`.

    Raises:
        ConfigError: they are on different images, or have no number in common.
    """
    before, after = distinct([before, after])
    old, new = before.record, after.record
    if old.data_hash != new.data_hash:
        raise ConfigError(
            f"The audits are on different images ({old.data}, n = {old.n}; {new.data}, n = {new.n}), so a difference "
            "may come from the images. Audit both models with the same --data and --n."
        )
    pairs, missing = _pairs(before, after)
    if not pairs:
        raise ConfigError(
            "The audits have no number in common that is stored for each example. "
            f"{' '.join(missing) or 'Run both with --checks accuracy,diagnosis.'}"
        )
    level = 1 - (1 - LEVEL) / len(pairs)
    changes = tuple(_change(quantity, mode, before, after, level) for quantity, mode in pairs)
    return AuditComparison(before.name, after.name, changes, tuple(missing), tuple(_notes(before, after)))


def _pairs(before: AuditedModel, after: AuditedModel) -> tuple[list[tuple[Quantity, str]], list[str]]:
    """The numbers that both audits have, with their mode; and sentences about those that only the first one has."""
    found: list[tuple[Quantity, str]] = []
    missing: list[str] = []
    for quantity in QUANTITIES:
        results = [model.results.get(quantity.check) for model in (before, after)]
        modes = [_modes(result, quantity) for result in results]
        if quantity.check == "robustness" and any(pair[0].check == "diagnosis" for pair in found):
            continue
        if not modes[0]:
            continue
        if not modes[1]:
            why = f": {results[1].reason}" if results[1] is not None else "."
            missing.append(f"{after.name} has no {quantity.title}{why}")
        elif (conditions := [_condition(result, quantity) for result in results])[0] != conditions[1]:
            missing.append(f"The {quantity.title} was not measured under the same conditions.")
        else:
            found += [(quantity, mode) for mode in modes[0] if mode in modes[1]]
    return found, missing


def _modes(result: CheckResult | None, quantity: Quantity) -> list[str]:
    if result is None or result.status in (Status.SKIPPED, Status.ERROR):
        return []
    return [mode for mode in (MEAN, STOCHASTIC) if _values(result, quantity, mode) is not None]


def _values(result: CheckResult, quantity: Quantity, mode: str) -> NDArray[Any] | None:
    """The value of each example."""
    if quantity.check != "corruptions":
        rows = result.arrays.get(in_mode(quantity.arrays, mode))
        return None if rows is None else rows[-1] if rows.ndim == 2 else rows
    prefix = in_mode(quantity.arrays, mode)
    right = [rows.mean(axis=0) for name, rows in sorted(result.arrays.items()) if name.startswith(prefix)]
    return 1 - np.mean(right, axis=0) if right else None


def _condition(result: CheckResult | None, quantity: Quantity) -> tuple[Any, ...]:
    """What must be the same in both audits: number of examples, threat, corruptions and their severities."""
    assert result is not None
    prefix = quantity.arrays if quantity.check == "corruptions" else None
    names = {in_mode(quantity.arrays, mode): "" for mode in (MEAN, STOCHASTIC)}
    named = {name: name for name in result.arrays if prefix and name.startswith(prefix)}
    shapes = {(shown, result.arrays[name].shape) for name, shown in (names | named).items() if name in result.arrays}
    return result.details.get("threat"), shapes


def _change(quantity: Quantity, mode: str, before: AuditedModel, after: AuditedModel, level: float) -> Change:
    results = [model.results[quantity.check] for model in (before, after)]
    first, second = (_values(result, quantity, mode) for result in results)
    assert first is not None
    assert second is not None
    old, new = (_stored(result, quantity, mode) for result in results)
    if first.dtype == bool:
        difference = metrics.paired_difference(first, second, level)
    else:
        known = np.isfinite(first) & np.isfinite(second)  # not so where a model's logits are NaN
        difference = metrics.mean((second - first)[known], old.unit, before.record.seed, level, _RESAMPLES)
    return Change(quantity.title, mode, old, new, difference.named("difference"), quantity.higher_is_better)


def _stored(result: CheckResult, quantity: Quantity, mode: str) -> Metric:
    """The metric of all examples; of a robust accuracy the one at the largest ε."""
    found = [
        metric
        for metric in result.metrics.select(quantity.metric, mode=mode)
        if metric.coords.keys() <= {"mode", "norm", "eps"}
    ]
    return max(found, key=lambda metric: float(metric.coords.get("eps", 0)))


def _notes(before: AuditedModel, after: AuditedModel) -> Iterator[str]:
    if differing := summary.differing_settings([before, after]):
        yield f"The audits have different settings: {listed(differing)}."
    made = [_versions(model.record.provenance) for model in (before, after)]
    differing = [name for name in made[0] if made[0][name] != made[1].get(name)]
    if differing:
        each = [f"{name} {made[0][name]} and {made[1].get(name)}" for name in differing]
        yield f"The audits were made with different versions: {listed(each)}."


def _versions(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    commit = {"commit": str(provenance["commit"])[:_SHORT]} if provenance.get("commit") else {}
    return {**as_mapping(provenance.get("packages")), **commit}
