"""The first screen: each classifier's verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus import metrics
from isthmus.core.format import interval_text, listed, purpose_title, size, threat_title, value_text
from isthmus.core.types import CheckResult, Metric
from isthmus.diagnosis.verdict import TOLERANCE
from isthmus.report import comparison
from isthmus.report.loading import AuditedModel
from isthmus.report.sections import common


@dataclass(frozen=True)
class Verdict:
    """One classifier's row of the banner.

    Attributes:
        word: "holds", "overstated", "broken", "undecided"; "no verdict" without the check ``diagnosis``.
        corrected: robust accuracy after all attacks, with n and interval.
        reported: the accuracy in question, in [0, 1].
        note: what the numbers do not say, as a clause.
        threat: as it is shown: "ℓ∞ 0.1".
        mode: that the verdict is about, the worst: "stochastic mode"; empty if there is only the mean mode.
    """

    name: str
    word: str
    corrected: Metric | None = None
    reported: float | None = None
    note: str = ""
    threat: str = ""
    mode: str = ""

    @property
    def kind(self) -> str:
        """The CSS class of its status."""
        return self.word if self.word in ("holds", "overstated", "broken", "undecided") else "none"

    @property
    def alarm(self) -> bool:
        """Whether the reported accuracy is refuted."""
        return self.word in ("overstated", "broken")

    @property
    def excess(self) -> bool:
        """Whether the reported accuracy is well above the corrected one."""
        value = self.corrected.value if self.corrected else None
        return value is not None and self.reported is not None and round(self.reported - value, 9) > TOLERANCE

    @property
    def conditions(self) -> str:
        """Threat and n: "ℓ∞ 0.1, n = 100"."""
        return f"{self.threat}, {size(self.corrected.n)}" if self.corrected else ""

    @property
    def value(self) -> str:
        """The corrected accuracy: "58.0%"."""
        return value_text(self.corrected) if self.corrected else ""

    @property
    def interval(self) -> str:
        """Its interval in percent: "48.2–67.2"."""
        return interval_text(self.corrected) if self.corrected else ""

    @property
    def bar(self) -> dict[str, float]:
        """Places on an axis of 100: the interval's ends, the corrected and the reported accuracy."""
        places = {"reported": self.reported, "corrected": self.corrected.value if self.corrected else None}
        if self.corrected and self.corrected.interval:
            places |= {"low": self.corrected.interval.low, "high": self.corrected.interval.high}
        return {name: round(100 * min(max(x, 0.0), 1.0), 2) for name, x in places.items() if x is not None}


def verdicts(models: Sequence[AuditedModel]) -> list[Verdict]:
    """A row for each classifier; none if no audit has a verdict."""
    rows = [_verdict(model) for model in models]
    return rows if any(row.corrected for row in rows) else []


def _verdict(model: AuditedModel) -> Verdict:
    result = model.results.get("diagnosis")
    if result is None or "verdict" not in result.details:
        return Verdict(model.name, "no verdict", note="The check diagnosis has no result.")
    stored, mode, words = result.details["verdict"], common.status_mode(result), comparison.mode_words(model)
    corrected = result.metrics.one("corrected_accuracy", mode=mode, **common.threat(result))
    reported = float(stored["reported"])
    return Verdict(
        model.name,
        str(stored["status"]),
        corrected,
        reported,
        "; ".join(filter(None, [words, _note(result, stored, corrected, mode)])),
        threat_title(str(result.details["threat"])).replace(" ", "\u00a0"),
        words,
    )


def _note(result: CheckResult, stored: Mapping[str, Any], corrected: Metric, mode: str) -> str:
    """What was reported and how it compares; the failed tests or the missing evidence."""
    reported = float(stored["reported"])
    claimed = Metric.model_validate(stored["reported_metric"]).n == 0 if "reported_metric" in stored else False
    said = f"{100 * reported:.1f}% {'claimed' if claimed else 'reported'}"
    excess = reported - (corrected.value or 0.0)
    if stored["status"] in ("overstated", "broken"):
        failed = [purpose_title(test["test"]) for test in _of_mode(result, mode)["tests"] if test["status"] == "fail"]
        tests = f"; failed tests: {listed(failed)}" if failed else ""
        return f"{said}, {100 * excess:.1f} points too high{tests}"
    difference = None if claimed else _difference(result, mode)
    notes = [f"{said}{_excess(reported, corrected, difference, float(stored.get('tolerance', 0.0)))}"]
    if stored["status"] == "undecided":
        notes += str(stored.get("reason", "")).split("; ")[1:]
    return "; ".join(notes)


def _excess(reported: float, corrected: Metric, difference: Metric | None, tolerance: float) -> str:
    """What is known of an accuracy that was reported well above the corrected one, though no verdict refutes it.

    Args:
        difference: paired difference of the two; None for a claim, which has no outcomes by example.
        tolerance: the verdict's.
    """
    excess = round(reported - (corrected.value or 0.0), 9)
    if excess <= TOLERANCE or corrected.interval is None:
        return ""
    if difference is None or difference.interval is None:
        needed = _needed(corrected.n, corrected.interval.high - (corrected.value or 0.0), excess)
        return f", not shown to differ at {size(corrected.n)}{needed}"
    low = difference.interval.low
    if low > 0:
        needed = _needed(corrected.n, excess - low, excess - tolerance)
        return f", not shown to differ by more than {100 * tolerance:.0f} points at {size(corrected.n)}{needed}"
    return f", not shown to differ at {size(corrected.n)}{_needed(corrected.n, excess - low, excess)}"


def _difference(result: CheckResult, mode: str) -> Metric | None:
    """Reported less corrected accuracy on the same examples."""
    found = [result.arrays.get(common.in_mode(f"{word}_robust", mode)) for word in ("corrected", "reported")]
    if found[0] is None or found[1] is None:
        return None
    return metrics.paired_difference(found[0], found[1])


def _needed(n: int, half_width: float, gap: float) -> str:
    """The number of examples at which the same fractions would differ significantly, to two digits.

    The width of an interval is taken to fall with the square root of n.
    """
    if gap <= 0 or half_width <= gap:
        return ""
    exact = n * (half_width / gap) ** 2
    digits = 10 ** max(0, math.floor(math.log10(exact)) - 1)
    return f"; about {math.ceil(exact / digits) * digits:,} examples would decide"


def _of_mode(result: CheckResult, mode: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = result.details["modes"][mode]
    return found
