"""What the scorecard says of a verdict."""

from isthmus import metrics
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.report.sections.diagnosis import _headlines


def result(word: str, mode: str, left: int, n: int = 40) -> CheckResult:
    """A stored result as far as the scorecard looks at it."""
    corrected = metrics.proportion(left, n)
    verdict = {"status": word, "reported": 0.55, "corrected": left / n, "corrected_metric": corrected.model_dump()}
    details = {"threat": "linf:0.1", "verdict": verdict, "mode": mode}
    return CheckResult(check="diagnosis", status=Status.PASS, reason="", metrics=Metrics([corrected]), details=details)


def test_the_verdict_goes_before_what_is_left_of_what_was_reported() -> None:
    found = _headlines({"a": result("overstated", "mean", 10), "b": result("holds", "stochastic", 22)})
    assert (found["a"].word, found["a"].note) == ("overstated", "55.0% reported")
    assert (found["b"].word, found["b"].note) == ("holds", "55.0% reported, stochastic mode")
    assert found["a"].metric == metrics.proportion(10, 40)
    assert found["a"].label == found["b"].label == "robust accuracy after all attacks, ℓ∞\u00a00.1"
