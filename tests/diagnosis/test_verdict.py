"""The verdict, from numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus import metrics
from isthmus.core.types import Metric
from isthmus.diagnosis.verdict import Evidence, Verdict, decide


def verdict(claimed: float | None, baseline: int, corrected: int, n: int = 100, **evidence: tuple[str, ...]) -> Verdict:
    """For these numbers of robust examples, with chance 10%."""
    left, usual = np.arange(n) < corrected, np.arange(n) < baseline
    difference = metrics.paired_difference(left & usual, usual)
    return decide(claimed, accuracy(baseline, n), accuracy(corrected, n), difference, 0.1, Evidence(**evidence))


def accuracy(robust: int, n: int) -> Metric:
    return metrics.accuracy(np.arange(n) < robust)


@pytest.mark.parametrize(("failed", "tolerated"), [((), 5), (("restarts",), 2)])
def test_a_small_or_missing_difference_holds(failed, tolerated):
    for baseline, numbers in ((83, ["69.2%"]), (88, ["73.3%", "4.2 points", f"the {tolerated} that are"])):
        found = verdict(None, baseline, 83, n=120, failed=failed)
        assert (found.status, 100 * found.tolerance) == ("holds", tolerated)
        assert "69.2% (95% interval 60.4% to 76.7%, n = 120)" in found.reason
        assert all(number in found.reason for number in numbers)


def test_a_claim_is_compared_with_the_interval_of_the_corrected_accuracy():
    found = {claim: verdict(claim, 83, 83, n=120, failed=("ensemble",)) for claim in (0.5, 0.75, 0.8)}
    assert [each.status for each in found.values()] == ["holds", "holds", "overstated"]
    assert found[0.75].reported_metric.n == 0


def test_a_baseline_that_significantly_exceeds_the_corrected_accuracy_is_overstated_even_if_no_test_failed():
    assert verdict(None, 100, 83, n=120).status == "overstated"
    assert verdict(None, 94, 83, n=120, failed=("restarts",)).status == "overstated"
    assert verdict(None, 94, 83, n=120).status == "holds"
    found = verdict(None, 52, 34, failed=("ensemble", "restarts"))
    assert found.status == "overstated"
    assert "18.0 points" in found.reason
    assert "ensemble, restarts" in found.reason
    assert verdict(None, 52, 50, failed=("restarts",)).status == "holds"


@pytest.mark.parametrize(("claimed", "status"), [(0.52, "overstated"), (0.40, "holds")])
def test_a_claim_is_judged_without_regard_to_failed_tests(claimed, status):
    assert verdict(claimed, 52, 34).status == status


@pytest.mark.parametrize(("corrected", "status"), [(34, "overstated"), (0, "broken")])
def test_missing_evidence_does_not_excuse_a_number_that_is_too_high(corrected, status):
    assert verdict(0.52, 52, corrected, missing=("restarts raised an error",)).status == status


def test_missing_evidence_leaves_a_number_that_may_be_right_undecided():
    found = verdict(0.34, 52, 34, missing=("restarts raised an error",))
    assert (found.status, "restarts raised an error" in found.reason) == ("undecided", True)


def test_an_exhausted_budget_leaves_a_number_that_may_be_right_undecided():
    found = verdict(0.34, 52, 34, not_tried=("ensemble",))
    assert (found.status, found.not_tried, "ensemble" in found.reason) == ("undecided", ("ensemble",), True)
