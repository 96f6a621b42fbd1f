"""The scorecard's line about a verdict."""

from isthmus import metrics
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.report.sections.diagnosis import _headline


def result(word: str, mode: str, left: int, n: int = 40) -> CheckResult:
    """A stored result with what the scorecard reads of it."""
    corrected = metrics.proportion(left, n).named("corrected_accuracy", mode=mode, norm="linf", eps=0.1)
    verdict = {"status": word, "reported": 0.55, "corrected": left / n}
    details = {"threat": "linf:0.1", "norm": "linf", "eps": 0.1, "verdict": verdict, "mode": mode}
    return CheckResult(check="diagnosis", status=Status.PASS, reason="", metrics=Metrics([corrected]), details=details)


def test_a_headline_has_the_verdict_the_corrected_accuracy_and_what_was_reported() -> None:
    one, other = _headline(result("overstated", "mean", 10)), _headline(result("holds", "stochastic", 22))
    assert (one.word, one.note) == ("overstated", "55.0% reported")
    assert (other.word, other.note) == ("holds", "55.0% reported, stochastic mode")
    assert (one.metric.value, one.metric.n) == (0.25, 40)
    assert one.label == other.label == "robust accuracy after all attacks, ℓ∞\u00a00.1"
