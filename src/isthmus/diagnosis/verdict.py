"""The verdict on a reported robust accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from isthmus.core.format import in_words
from isthmus.core.notebook import Summarized
from isthmus.core.types import Metric, Record
from isthmus.diagnosis.diagnostic_result import percent

TOLERANCE, WITHOUT_FAILED_TEST = 0.02, 0.05
"""Excess of the baseline over the corrected accuracy that is tolerated, in [0, 1]: if a test failed, and if none did.

On sound, adversarially trained networks one run of PGD is up to 6 points too high, and no test fails.
"""

Word = Literal["holds", "undecided", "overstated", "broken"]


class Verdict(Summarized, Record):
    """Verdict on a reported robust accuracy.

    Attributes:
        status: ``overstated`` if the reported accuracy is significantly too high: a claim if it lies above the 95%
            interval of the corrected accuracy, the accuracy against the baseline attack if the 95% interval of the
            paired difference lies above ``tolerance``. ``broken`` if, besides, the corrected accuracy is no better than
            chance. Otherwise ``undecided`` if decisive evidence is missing (a test or follow-up attack raised an error,
            the budget was exhausted, or no attack is shown to work on the model), and ``holds`` if none is. Without a
            gradient of the model itself, PGD reports nothing: only a claim can be ``overstated``, and the verdict is
            otherwise ``undecided`` or ``broken``.
        reported: the robust accuracy in question, in [0, 1]: the claimed one, otherwise that against the baseline
            attack.
        corrected: robust accuracy against everything that was tried, in [0, 1]; still an upper bound.
        reported_metric, corrected_metric: the same with n and interval; a claim has none.
        tolerance: excess of the reported accuracy that is tolerated, in [0, 1]: 0 for a claim, otherwise 2 points if a
            test failed and 5 if none did.
        untested: tests that could not run on this model.
        not_tried: tests and follow-up attacks that the budget left out or cut short; without them ``corrected`` may be
            too high.
        reason: one sentence.
    """

    status: Word
    reported: float
    corrected: float
    reported_metric: Metric
    corrected_metric: Metric
    tolerance: float = 0.0
    untested: tuple[str, ...] = ()
    not_tried: tuple[str, ...] = ()
    reason: str

    def _summary(self) -> dict[str, str]:
        return {
            "Verdict": self.status,
            "reported": in_words(self.reported_metric),
            "corrected": in_words(self.corrected_metric),
        }


@dataclass(frozen=True)
class Evidence:
    """Evidence for a verdict besides the accuracies.

    Attributes:
        failed: tests that failed.
        missing: reasons why an accuracy that is not shown to be too high cannot be said to hold.
        untested: tests that could not run.
        not_tried: tests and follow-up attacks that the budget left out.
        gradient: whether the model's own backward pass reaches the images.
    """

    failed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()
    not_tried: tuple[str, ...] = ()
    gradient: bool = True


def decide(
    claimed: float | None,
    baseline: Metric,
    corrected: Metric,
    difference: Metric,
    chance: float,
    evidence: Evidence = Evidence(),
) -> Verdict:
    """Compare the reported accuracy with the corrected one.

    Args:
        claimed: a robust accuracy in [0, 1]; None to decide about ``baseline``.
        baseline: accuracy against the baseline attack, on the same examples as ``corrected``.
        difference: paired difference of the two.
        chance: accuracy of the best constant prediction.
    """
    reported, value = baseline.value if claimed is None else claimed, corrected.value
    assert reported is not None
    assert value is not None
    assert corrected.interval is not None
    assert difference.interval is not None
    if claimed is None:
        tolerance = TOLERANCE if evidence.failed else WITHOUT_FAILED_TEST
        too_high = difference.interval.low > tolerance
    else:
        tolerance, too_high = 0.0, reported > corrected.interval.high
    status: Word = "undecided" if evidence.missing or evidence.not_tried else "holds"
    if too_high and value <= chance:
        status = "broken"
    elif too_high and (claimed is not None or evidence.gradient):
        status = "overstated"
    elif too_high:
        status = "undecided"
    below = not too_high and reported < corrected.interval.low
    exceeds = not below and (too_high or (claimed is None and difference.interval.low > 0))
    return Verdict(
        status=status,
        reported=reported,
        corrected=value,
        reported_metric=baseline if claimed is None else Metric(value=claimed, unit="fraction", n=0, note="claimed"),
        corrected_metric=corrected,
        tolerance=tolerance,
        untested=evidence.untested,
        not_tried=evidence.not_tried,
        reason="; ".join(
            [_comparison(status, reported, corrected, exceeds, None if too_high else tolerance), *_remarks(evidence)]
        ),
    )


def _comparison(status: Word, reported: float, corrected: Metric, exceeds: bool, tolerance: float | None) -> str:
    """How the accuracies compare; ``tolerance`` is None if more than that separates them."""
    interval, value = corrected.interval, corrected.value
    assert interval is not None
    assert value is not None
    shown = (
        f"{percent(value)} ({interval.level:.0%} interval {percent(interval.low)} to {percent(interval.high)}, "
        f"n = {corrected.n:,})"
    )
    if status == "broken":
        return f"{percent(reported)} was reported, but the corrected robust accuracy is no better than chance: {shown}"
    if not exceeds:
        relation = "is below" if reported < interval.low else "does not differ significantly from"
        return f"the reported {percent(reported)} {relation} the corrected robust accuracy of {shown}"
    comparison = (
        f"the reported {percent(reported)} exceeds the corrected robust accuracy of {shown} by "
        f"{100 * (reported - value):.1f} points"
    )
    if tolerance is None:
        return comparison
    return f"{comparison}, not significantly more than the {100 * tolerance:g} that are tolerated"


def _remarks(evidence: Evidence) -> list[str]:
    remarks = list(evidence.missing)
    for title, names in (
        ("the budget is exhausted (not tried or cut short: {})", evidence.not_tried),
        ("failed tests: {}", evidence.failed),
        ("not tested: {}", evidence.untested),
    ):
        if names:
            remarks.append(title.format(", ".join(names)))
    return remarks
