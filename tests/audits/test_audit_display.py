"""What an audit shows in a notebook: its summary, what to cite, and plots that hold its numbers."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import isthmus
from isthmus.core.errors import ConfigError
from isthmus.data import Digits
from isthmus.data.images import as_float

ROBUSTNESS = {"name": "robustness", "levels": 2, "attacks": ["fgsm", "pgd:5"]}


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def audit():
    test = Digits().load().test
    images, labels = as_float(test.images[:60]), test.labels[:60]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[1].weight.data = torch.stack([images[labels == c].mean(0).flatten() for c in range(10)])
    diagnosis = {"name": "diagnosis", "sample": 10, "passes": 300}
    options = isthmus.AuditOptions(name="<b>mine</b>", data="digits")
    return isthmus.audit(
        model, images, labels, "linf:0.2", [ROBUSTNESS, "calibration", diagnosis], claimed=0.9, options=options
    )


def test_an_audit_says_threat_n_verdict_and_number(audit):
    first, second, third = repr(audit).splitlines()
    assert first == "Audit: <b>mine</b> on digits, ℓ∞ 0.2, n = 60"
    number, ends = audit.robust_accuracy, audit.robust_accuracy.interval
    assert number == audit.verdict.corrected_metric
    text = f"{number.value:.1%} (95% interval {100 * ends.low:.1f}–{100 * ends.high:.1f}, n = 60)"
    assert second == f"verdict: {audit.verdict.status}; robust accuracy {text}"
    assert third.startswith("checks: ")
    assert "robustness: " in third
    assert "&lt;b&gt;mine&lt;/b&gt;" in audit._repr_html_()
    assert "<b>" not in audit._repr_html_()
    assert f"is at most {text}, measured with isthmus {isthmus.__version__}, seed 0." in audit.citation
    assert audit.citation.endswith(f"Verdict on the reported 90.0% (claimed): {audit.verdict.status}.")
    assert repr(audit.verdict) == f"Verdict: {audit.verdict.status}\nreported: 90.0% (claimed)\ncorrected: {text}"


def test_an_audit_without_a_verdict_has_a_summary_too(audit):
    part = isthmus.Audit(audit.record, {"calibration": audit.results["calibration"]})
    assert "verdict: none" in repr(part)
    with pytest.raises(ConfigError, match="no verdict"):
        _ = part.citation


def test_robust_accuracy_is_drawn_against_eps(audit):
    _, axes = audit.plot()
    metrics = audit.results["robustness"].metrics
    at = {"mode": "mean", "norm": "linf"}
    found = [metrics.one("accuracy", mode="mean"), *(metrics.one("robust_accuracy", eps=e, **at) for e in (0.1, 0.2))]
    np.testing.assert_allclose(
        axes.lines[0].get_xydata(), list(zip((0, 0.1, 0.2), (metric.value for metric in found), strict=True))
    )


def test_calibration_is_drawn_as_a_reliability_diagram(audit):
    _, axes = audit.plot("calibration")
    bins = [b for b in audit.results["calibration"].details["bins"]["mean"]["equal_width"] if b["n"]]
    intervals, points = axes.collections
    np.testing.assert_allclose(points.get_offsets(), [(b["confidence"], b["accuracy"]) for b in bins])
    assert len(intervals.get_segments()) == len(bins)


def test_adversarial_examples_are_drawn(audit):
    _, axes = audit.plot("examples")
    result = audit.results["robustness"]
    broken = [i for i, fact in enumerate(result.details["gallery"]) if fact["predicted"] is not None][:8]
    assert axes.shape == (3, len(broken))
    for column, i in enumerate(broken):
        fact = result.details["gallery"][i]
        for row, name in enumerate(("original", "adversarial")):
            drawn = axes[row, column].images[0].get_array()
            np.testing.assert_allclose(np.squeeze(drawn), result.arrays[f"gallery_{name}"][i, ..., 0] / 255)
        assert axes[0, column].get_title() == f"image {fact['index']}, class {fact['label']}"


def test_an_unknown_plot_lists_what_there_is(audit):
    with pytest.raises(ConfigError, match=r"Did you mean 'examples'.*calibration.*robustness"):
        audit.plot("exampels")
    part = isthmus.Audit(audit.record, {"calibration": audit.results["calibration"]})
    with pytest.raises(ConfigError, match="There is: calibration"):
        part.plot("examples")
