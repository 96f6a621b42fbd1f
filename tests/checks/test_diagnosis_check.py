"""The diagnosis check on linear models, whose robust accuracy has a closed form, and its headline on the page."""

import numpy as np
import pytest
import torch
from torch import nn

from isthmus import metrics
from isthmus.attacks.threats import Linf
from isthmus.checks import Diagnosis
from isthmus.checks.context import Context
from isthmus.checks.diagnosis import ADVERSARIAL
from isthmus.core import results
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.report.sections import diagnosis as page

WEIGHT = torch.linspace(-1, 1, 12)
EPS = 0.06


class Linear(nn.Module):
    """Two classes; ``rounded`` has no gradient."""

    def __init__(self, rounded=False):
        super().__init__()
        self.register_buffer("weight", WEIGHT)
        self.rounded = rounded

    def forward(self, images):
        images = (images * 50).round() / 50 + 0 * images if self.rounded else images
        score = (images - 0.5).flatten(1) @ self.weight
        return torch.stack([-score, score], 1)


def context(model=None, n=60, **options):
    images = torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = ((images - 0.5).flatten(1) @ WEIGHT > 0).long()
    return Context(model or Linear(), images, labels, 2, Linf(EPS), **options)


def robust(ctx):
    """Which examples of the linear model no perturbation breaks."""
    images = ctx.images.double().flatten(1)
    reach = (images - 0.5) @ WEIGHT.double()
    sign = 2 * ctx.labels - 1
    worst = images - EPS * sign[:, None] * WEIGHT.double().sign()
    return (sign * ((worst.clamp(0, 1) - 0.5) @ WEIGHT.double()) > 0).numpy(), reach


def test_a_genuine_robust_accuracy_holds(tmp_path):
    ctx = context(folder=tmp_path)
    result = Diagnosis(passes=2000, sample=20, ensemble="apgd:20").run(ctx)
    assert result.status is Status.PASS
    at = {"mode": "mean", "norm": "linf", "eps": EPS}
    expected, _ = robust(ctx)
    np.testing.assert_array_equal(result.arrays["corrected_robust"], expected)
    assert result.metrics.one("corrected_accuracy", **at).value == pytest.approx(expected.mean())
    assert result.metrics.one("clean_accuracy", mode="mean").value == 1.0
    assert len(result.arrays["adversarial"]) == len(result.arrays["broken"]) == (~expected).sum()
    assert sum(result.details["modes"]["mean"]["broken_by"].values()) == (~expected).sum()
    assert (tmp_path / ADVERSARIAL).exists()
    results.save_result(tmp_path, result)
    loaded = results.load_result(tmp_path, "diagnosis")
    section = page.section({"a": loaded})
    assert section == page.section({"a": result})
    assert section.headlines["a"].metric == result.metrics.one("corrected_accuracy", **at)


def test_a_masked_gradient_is_found_on_the_first_examples():
    result = Diagnosis(passes=600, sample=20, examples=40).run(context(Linear(rounded=True), claimed=1.0))
    assert result.status is Status.FAIL
    assert result.details["verdict"]["status"] in ("overstated", "broken")
    assert result.metrics.one("corrected_accuracy", mode="mean", norm="linf", eps=EPS).n == 40
    tests = {test["test"]: test["status"] for test in result.details["modes"]["mean"]["tests"]}
    assert "fail" in tests.values()


def test_a_mode_that_the_classifier_lacks_is_an_error():
    with pytest.raises(ConfigError, match="no stochastic mode"):
        Diagnosis(modes=["stochastic"]).run(context())


def stored(word: str, mode: str, left: int, n: int = 40) -> CheckResult:
    """A stored result with what the scorecard reads of it."""
    corrected = metrics.proportion(left, n).named("corrected_accuracy", mode=mode, norm="linf", eps=0.1)
    verdict = {"status": word, "reported": 0.55, "corrected": left / n}
    details = {"threat": "linf:0.1", "norm": "linf", "eps": 0.1, "verdict": verdict, "mode": mode}
    return CheckResult(check="diagnosis", status=Status.PASS, reason="", metrics=Metrics([corrected]), details=details)


def test_a_headline_has_the_verdict_the_corrected_accuracy_and_what_was_reported():
    one, other = page._headline(stored("overstated", "mean", 10)), page._headline(stored("holds", "stochastic", 22))
    assert (one.word, one.note) == ("overstated", "55.0% reported")
    assert (other.word, other.note) == ("holds", "55.0% reported, stochastic mode")
    assert (one.metric.value, one.metric.n) == (0.25, 40)
    assert one.label == other.label == "robust accuracy after all attacks, ℓ∞\u00a00.1"
