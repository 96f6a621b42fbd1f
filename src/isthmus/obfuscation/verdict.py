"""The verdict: whether the robust accuracy that was reported is there."""

from __future__ import annotations

from typing import Literal

from isthmus.obfuscation.finding import percent
from isthmus.types import Metric, Record

NATURAL = 0.02
"""By how much even an honest model's reported accuracy may surely exceed the corrected one: attacks are never equal."""

Word = Literal["holds", "undecided", "overstated", "broken"]


class Verdict(Record):
    """What became of a reported robust accuracy.

    Attributes:
        status: ``holds`` where it agrees with what is left after all tests and follow-ups, within the intervals;
            ``undecided`` where it agrees with what is left so far, but the budget was spent before all of them were
            tried; ``overstated`` where it does not agree; ``broken`` where nothing above chance is left although more
            was reported.
        reported: the robust accuracy in question, in [0, 1]: what was claimed, else what one run of PGD of 40 steps on
            the cross-entropy says.
        corrected: what is left, in [0, 1]; an upper bound still.
        reported_metric, corrected_metric: the same with n and interval; a claim has none.
        untested: tests that could not be asked of this model; what they would have found is not known.
        not_tried: tests and follow-ups that the budget left out or cut short; ``corrected`` may be too high for that.
        reason: one sentence.
    """

    status: Word
    reported: float
    corrected: float
    reported_metric: Metric
    corrected_metric: Metric
    untested: tuple[str, ...] = ()
    not_tried: tuple[str, ...] = ()
    reason: str


def verdict(
    claimed: float | None,
    reported: Metric,
    corrected: Metric,
    gap: Metric,
    chance: float,
    failed: bool,
    untested: tuple[str, ...] = (),
    not_tried: tuple[str, ...] = (),
) -> Verdict:
    """Compare what is reported with what is left.

    Args:
        claimed: somebody's robust accuracy, in [0, 1]; None to ask about ``reported``.
        reported: of the usual attack, on the same examples as ``corrected``.
        gap: paired difference of the two.
        chance: accuracy of the best constant answer.
        failed: whether a test failed. Without that, a measured report that is some points too high is an attack's
            ordinary weakness, and no illusion.
        untested: tests that could not be asked.
        not_tried: tests and follow-ups that the budget left out.
    """
    said = reported.value if claimed is None else claimed
    left = corrected.value
    assert said is not None
    assert left is not None
    assert corrected.interval is not None
    assert gap.interval is not None
    beyond = said > corrected.interval.high
    if claimed is None:
        beyond = beyond and failed and gap.interval.low > NATURAL
    by = f"{100 * (said - left):.1f} points"
    status: Word = "holds"
    agrees = "is no more than" if said < corrected.interval.low else "agrees with"
    reason = f"{percent(said)} {agrees} the {percent(left)} that are left after every test and follow-up"
    if beyond and left <= chance:
        status, reason = "broken", f"{percent(said)} was reported, and no more than chance is left: {percent(left)}"
    elif beyond:
        status, reason = "overstated", f"{percent(said)} is {by} more than the {percent(left)} that are left"
    elif not_tried:
        status = "undecided"
        reason = f"{percent(said)} {agrees} the {percent(left)} that are left so far, but the budget is spent"
    if not_tried:
        reason += f" (not tried or cut short for want of budget: {', '.join(not_tried)})"
    if untested:
        reason += f" (not tested: {', '.join(untested)})"
    return Verdict(
        status=status,
        reported=said,
        corrected=left,
        reported_metric=reported if claimed is None else Metric(value=claimed, unit="fraction", n=0, note="claimed"),
        corrected_metric=corrected,
        untested=untested,
        not_tried=not_tried,
        reason=reason,
    )
