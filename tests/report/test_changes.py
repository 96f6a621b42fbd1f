"""What changed from one audit to another: what is worse beyond its interval, and what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isthmus import metrics
from isthmus.core.errors import ConfigError
from isthmus.core.types import CheckResult, Metrics, Status
from isthmus.report.changes import compare
from isthmus.report.exports.markdown import comparison
from isthmus.report.loading import AuditedModel, load
from tests.report.verdict_standins import diagnosis

N = 100


def accuracy(right: int) -> CheckResult:
    correct = np.arange(N) < right
    metric = metrics.accuracy(correct).named("accuracy", mode="mean")
    return CheckResult(
        check="accuracy", status=Status.MEASURED, reason="", metrics=Metrics([metric]), arrays={"correct": correct}
    )


def calibration(brier: np.ndarray) -> CheckResult:
    metric = metrics.mean(brier, "squared distance", 0).named("brier", mode="mean")
    return CheckResult(
        check="calibration", status=Status.MEASURED, reason="", metrics=Metrics([metric]), arrays={"brier": brier}
    )


@pytest.fixture
def audited(runs: list[Path]):
    base = load(runs[0])

    def model(name: str, *results: CheckResult, data: str = "ab") -> AuditedModel:
        record = base.record.model_copy(update={"data_hash": data})
        return replace(base, name=name, record=record, results={result.check: result for result in results})

    return model


def test_a_number_is_worse_if_its_paired_interval_excludes_zero(audited) -> None:
    before = audited("before", diagnosis("holds", 80, 80), accuracy(95))
    after = audited("after", diagnosis("holds", 50, 50), accuracy(94))
    found = compare(before, after)
    assert [(change.title, change.outcome) for change in found.changes] == [
        ("robust accuracy", "worse"),
        ("clean accuracy", "not shown to differ"),
    ]
    robust = found.changes[0].difference
    wanted = metrics.paired_difference(np.arange(N) < 80, np.arange(N) < 50, level=0.975)  # of two intervals
    assert (robust.value, robust.interval) == (pytest.approx(-0.3), wanted.interval)
    assert [change.title for change in found.regressions] == ["robust accuracy"]
    assert not compare(after, before).regressions
    assert compare(after, before).changes[0].outcome == "better"
    assert len(repr(found).splitlines()) <= 3
    assert "after is worse than before" in repr(found)


def test_the_same_audit_is_no_regression(audited) -> None:
    model = audited("a", diagnosis("holds", 80, 80), accuracy(95), calibration(np.full(N, 0.25)))
    found = compare(model, model)
    assert {change.outcome for change in found.changes} == {"not shown to differ"}
    assert {change.difference.value for change in found.changes} == {0.0}


def test_a_larger_loss_is_worse(audited) -> None:
    rng = np.random.default_rng(0)
    loss = rng.uniform(0, 1, N)
    (change,) = compare(audited("a", calibration(loss)), audited("b", calibration(loss + 0.1))).changes
    assert change.outcome == "worse"
    assert change.difference.value == pytest.approx(0.1)
    assert change.difference.interval.high - change.difference.interval.low < 1e-9  # every example differs by as much


def test_without_a_difference_of_examples_one_of_means_is_not_shown(audited) -> None:
    """Paired: the same marginal numbers on other examples have a wider interval."""
    flags = np.arange(N) < 80
    shifted = np.roll(flags, 50)
    one = audited("a", accuracy(80))
    result = accuracy(80).model_copy(update={"arrays": {"correct": shifted}})
    near, far = (compare(one, other).changes[0].difference.interval for other in (one, audited("b", result)))
    assert far.high - far.low > 2 * (near.high - near.low)


def test_other_images_are_refused(audited) -> None:
    with pytest.raises(ConfigError, match="on different images .* same --data and --n"):
        compare(audited("a", accuracy(90)), audited("b", accuracy(90), data="cd"))


def test_what_only_the_first_audit_has_is_missing(audited) -> None:
    failed = CheckResult(check="diagnosis", status=Status.ERROR, reason="The service stopped.")
    found = compare(audited("a", diagnosis("holds", 80, 80), accuracy(90)), audited("b", failed, accuracy(90)))
    assert found.missing == ("b has no robust accuracy: The service stopped.",)
    assert [change.title for change in found.changes] == ["clean accuracy"]
    with pytest.raises(ConfigError, match="no number in common"):
        compare(audited("a", diagnosis("holds", 80, 80)), audited("b", accuracy(90)))


def test_another_threat_is_not_compared(audited) -> None:
    other = diagnosis("holds", 80, 80)
    other = other.model_copy(update={"details": other.details | {"threat": "linf:0.05"}})
    found = compare(audited("a", diagnosis("holds", 80, 80), accuracy(90)), audited("b", other, accuracy(90)))
    assert found.missing == ("The robust accuracy was not measured under the same conditions.",)


def test_errors_under_corruptions_are_averaged_for_each_example(audited) -> None:
    rng = np.random.default_rng(1)
    right = {f"correct_{name}": rng.random((3, N)) < 0.7 for name in ("fog", "snow")}
    worse = {name: rows & (rng.random((3, N)) < 0.5) for name, rows in right.items()}

    def corruptions(arrays: dict[str, np.ndarray]) -> CheckResult:
        error = metrics.mean(1 - np.mean(list(arrays.values()), axis=(0, 1)), "fraction", 0)
        named = Metrics(
            [error.named("mean_error", mode="mean"), error.named("mean_error", mode="mean", corruption="fog")]
        )
        return CheckResult(check="corruptions", status=Status.MEASURED, reason="", metrics=named, arrays=arrays)

    (change,) = compare(audited("a", corruptions(right)), audited("b", corruptions(worse))).changes
    assert change.difference.value == pytest.approx(change.after.value - change.before.value)
    assert change.outcome == "worse"
    fewer = corruptions({"correct_fog": right["correct_fog"]})
    with pytest.raises(ConfigError, match="same conditions"):
        compare(audited("a", corruptions(right)), audited("b", fewer))


def test_rows_document_and_markdown_have_every_change(audited) -> None:
    before = audited("a|b", diagnosis("holds", 80, 80), accuracy(95))
    found = compare(before, audited("c", diagnosis("holds", 50, 50), accuracy(94)))
    assert [row["outcome"] for row in found.rows()] == ["worse", "not shown to differ"]
    assert found.to_dataframe().shape == (2, 12)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["regression"] is True
    assert document["changes"][0]["difference"]["interval"]["level"] == 0.975
    text = comparison(found).decode()
    assert "| **worse** |" in text
    assert "a\\|b" in text
    assert "80.0% (95% interval 71.1–86.7, n = 100)" in text
