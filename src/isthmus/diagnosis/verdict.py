"""The verdict: whether the robust accuracy that was reported is there."""

from __future__ import annotations

from typing import Literal

from isthmus.core.types import Metric, Record
from isthmus.diagnosis.finding import percent

NATURAL = 0.02
"""By how much even an honest model's reported accuracy may surely exceed the corrected one: attacks are never equal."""

Word = Literal["holds", "undecided", "overstated", "broken"]


class Verdict(Record):
    """What became of a reported robust accuracy.

    Attributes:
        status: ``holds`` where it is not shown to be too high after all tests and follow-ups; ``undecided`` where it is
            not shown to be too high, but a test or follow-up broke off, no gradient could be had, the budget was spent
            before all were tried, or the evidence shows that no attack works on this model; ``overstated`` where it is
            shown to be too high; ``broken`` where, besides, nothing above chance is left.
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
    margin: Metric,
    chance: float,
    failed: tuple[str, ...] = (),
    doubts: tuple[str, ...] = (),
    untested: tuple[str, ...] = (),
    not_tried: tuple[str, ...] = (),
) -> Verdict:
    """Compare what is reported with what is left.

    Args:
        claimed: somebody's robust accuracy, in [0, 1]; None to ask about ``reported``.
        reported: of the usual attack, on the same examples as ``corrected``.
        gap: paired difference of the two.
        chance: accuracy of the best constant answer.
        failed: tests that failed. Without one, a measured report that is some points too high is an attack's ordinary
            weakness, and no illusion. (A difference that surely exceeds 5 points is a failed test, ``ensemble``.)
        doubts: what keeps a number that is not shown to be too high from being said to hold.
        untested: tests that could not be asked.
        not_tried: tests and follow-ups that the budget left out.
    """
    said = reported.value if claimed is None else claimed
    left = corrected.value
    assert said is not None
    assert left is not None
    assert corrected.interval is not None
    assert margin.interval is not None
    too_high = said > corrected.interval.high if claimed is not None else bool(failed) and margin.interval.low > NATURAL
    interval = f"{corrected.interval.level:.0%} interval {percent(corrected.interval.low)} to "
    what = f"{percent(left)} ({interval}{percent(corrected.interval.high)}, n = {corrected.n:,}) that are left"
    by = f"{100 * (said - left):.1f} points"
    if not_tried:
        doubts = (*doubts, f"the budget is spent (not tried or cut short: {', '.join(not_tried)})")
    status: Word = "undecided" if doubts else "holds"
    if not too_high and not doubts:
        what += " after every test and follow-up"
    if too_high and left <= chance:
        status, reason = "broken", f"{percent(said)} was reported, and no more than chance is left: the {what}"
    elif too_high:
        status, reason = "overstated", f"{percent(said)} is {by} more than the {what}"
    elif said < corrected.interval.low:
        reason = f"{percent(said)} is less than the {what}"
    elif claimed is None and margin.interval.low > 0:
        natural = f"not shown to exceed the {100 * NATURAL:g} that sound attacks differ by"
        reason = f"{percent(said)} is {by} more than the {what}, {'and no test failed' if not failed else natural}"
    else:
        reason = f"{percent(said)} is not shown to differ from the {what}"
    if doubts:
        reason += f"; {'; '.join(doubts)}"
    if failed:
        reason += f"; failed tests: {', '.join(failed)}"
    if untested:
        reason += f"; not tested: {', '.join(untested)}"
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
