"""What a verdict says, from numbers alone."""

import numpy as np
import pytest

from isthmus import metrics
from isthmus.diagnosis.verdict import verdict

CASES = {  # right under the usual attack and after everything, of 120
    "is not shown to differ from": (83, 83),
    "is 9.2 points more than": (94, 83),
}


@pytest.mark.parametrize(("words", "case"), CASES.items())
def test_what_is_not_shown_to_differ_is_not_said_to_agree(words, case):
    before, after = case
    margin = metrics.paired_difference(np.arange(120) < after, np.arange(120) < before)
    found = verdict(None, metrics.proportion(before, 120), metrics.proportion(after, 120), margin, 0.1)
    assert found.status == "holds"
    assert f"{words} the 69.2% (95% interval 60.4% to 76.7%, n = 120) that are left" in found.reason
    assert "agree" not in found.reason
    assert ("no test failed" in found.reason) == (before > after)


def test_a_claim_is_compared_with_the_interval_of_what_is_left():
    left = metrics.proportion(83, 120)
    margin = metrics.proportion(0, 120)
    said = {claim: verdict(claim, left, left, margin, 0.1, ("ensemble",)) for claim in (0.5, 0.75, 0.8)}
    assert [found.status for found in said.values()] == ["holds", "holds", "overstated"]
    assert "is less than" in said[0.5].reason
    assert "is not shown to differ from" in said[0.75].reason
    assert said[0.75].reported_metric.n == 0
