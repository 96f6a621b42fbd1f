"""What is shown to differ: between classifiers, and between reported and corrected accuracy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isthmus.core.types import CheckResult, Metric, Metrics, Status
from isthmus.metrics import accuracy, paired_difference
from isthmus.report import comparison
from isthmus.report.loading import AuditedModel, load_all

N = 120


def first(count: int) -> np.ndarray:
    """The first examples are robust."""
    return np.arange(N) < count


def diagnosed(model: AuditedModel, name: str, corrected: np.ndarray, reported: np.ndarray | float) -> AuditedModel:
    """A classifier with a verdict, from the examples that are robust; a number is a claim."""
    metric = (
        Metric(value=reported, unit="fraction", n=0, note="claimed")
        if isinstance(reported, float)
        else accuracy(reported)
    )
    verdict = {"status": "holds", "reason": "so", "corrected": float(corrected.mean()), "reported": metric.value}
    verdict |= {"reported_metric": metric.plain(), "corrected_metric": accuracy(corrected).plain()}
    arrays = {"corrected_robust": corrected}
    if not isinstance(reported, float):
        arrays["reported_robust"] = reported
    result = CheckResult(
        check="diagnosis",
        status=Status.PASS,
        reason="so",
        metrics=Metrics(),
        details={"threat": "linf:0.1", "verdict": verdict, "mode": "mean", "modes": {"mean": {}}},
        arrays=arrays,
    )
    return replace(model, name=name, results={"diagnosis": result})


@pytest.fixture
def model(runs: list[Path]) -> AuditedModel:
    return load_all(runs[:1])[0]


def test_pairs_are_paired_differences_that_hold_jointly(model: AuditedModel) -> None:
    rows = [first(60), first(66), first(10)]
    models = [diagnosed(model, name, row, row) for name, row in zip("abc", rows, strict=True)]
    found = comparison.pairs(models)
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair, (i, j) in zip(found, [(0, 1), (0, 2), (1, 2)], strict=True):
        assert pair.difference.interval == paired_difference(rows[j], rows[i], 1 - 0.05 / 3).interval
    assert [pair.shown for pair in found] == [None, ("a", "c"), ("b", "c")]


def test_no_classifier_is_shown_to_be_more_robust(model: AuditedModel) -> None:
    models = [diagnosed(model, name, first(60 + k), first(60 + k)) for k, name in enumerate("abcde")]
    assert comparison.sentence(models) == (
        "No classifier is shown to be more robust than another: all 10 paired intervals contain 0 "
        "(jointly 95%, n = 120)."
    )
    assert comparison.sentence(models[:2]) == (
        "No classifier is shown to be more robust than another: the paired interval contains 0 (95%, n = 120)."
    )
    assert comparison.sentence(models[:1]) == ""


def test_who_is_more_robust_than_whom_is_named(model: AuditedModel) -> None:
    models = [diagnosed(model, name, first(k), first(k)) for name, k in (("a", 60), ("b", 62), ("c", 10))]
    assert comparison.sentence(models) == (
        "By paired intervals (jointly 95%, n = 120), a and b are shown to be more robust than c. "
        "The other pair is not shown to differ."
    )
    assert comparison.short_sentence(models).startswith("2 of three pairs of classifiers are shown to differ")


def test_other_images_or_threats_are_not_compared(model: AuditedModel) -> None:
    a, b = (diagnosed(model, name, first(60), first(60)) for name in "ab")
    elsewhere = replace(b, record=b.record.model_copy(update={"data_hash": "cd" * 32}))
    assert comparison.pairs([a, elsewhere]) == []
    assert "not compared" in comparison.sentence([a, elsewhere])
    fewer = diagnosed(model, "b", first(60)[:100], first(60)[:100])
    assert comparison.pairs([a, fewer]) == []
    assert comparison.pairs([a, replace(b, results={})]) == []


def test_reported_and_corrected_are_equal_shown_or_not_shown_to_differ(model: AuditedModel) -> None:
    equal = diagnosed(model, "equal", first(60), first(60))
    close = diagnosed(model, "close", first(60), first(62))
    above = diagnosed(model, "above", first(60), first(90))
    assert comparison.reported_sentence([equal, close, above]) == (
        "Compared with the corrected robust accuracy, the reported one is higher for above (25.0 points), "
        "not shown to differ at n = 120 for close and equal for equal."
    )
    claims = [diagnosed(model, name, first(60), claim) for name, claim in (("x", 0.9), ("y", 0.55), ("z", 0.2))]
    assert comparison.reported_sentence(claims) == (
        "Compared with the corrected robust accuracy, the reported one is higher for x (40.0 points), "
        "lower for z (30.0 points) and not shown to differ at n = 120 for y."
    )
    assert comparison.reported_sentence([replace(equal, results={})]) == ""
