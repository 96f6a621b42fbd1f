"""Accuracies that a classifier must reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.core.errors import ConfigError
from isthmus.report import thresholds
from tests.report.test_verdicts import models
from tests.report.verdict_standins import diagnosis


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("robust=40%", {"robust": 0.4}),
        ("robust=0.4, clean=90%", {"robust": 0.4, "clean": 0.9}),
        ("clean=1", {"clean": 1.0}),
    ],
)
def test_thresholds_are_fractions(text: str, found: dict[str, float]) -> None:
    assert thresholds.parse(text) == found


@pytest.mark.parametrize("text", ["", "robust", "robst=40%", "robust=40", "robust=40%,robust=50%", "clean=-1%"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        thresholds.parse(text)


def test_the_measured_value_is_compared(runs: list[Path]) -> None:
    audited = models(runs[0], a=diagnosis("holds", 58, 58), b=diagnosis("overstated", 92, 51))
    assert not any(each.missed for each in thresholds.judged(audited, {"robust": 0.5}))
    reached, below = thresholds.judged(audited, {"robust": 0.55})
    assert (reached.missed, below.missed) == (False, True)
    assert (below.model, below.kind, below.metric.value if below.metric else None) == ("b", "robust", 0.51)
    assert not any(each.missed for each in thresholds.judged(audited, {"robust": 0.51}))


def test_what_was_not_measured_is_missed(runs: list[Path]) -> None:
    (missing,) = thresholds.judged(models(runs[0], a=diagnosis("holds", 58, 58)), {"clean": 0.1})
    assert (missing.kind, missing.metric, missing.missed) == ("clean", None, True)
    assert "not measured" in str(missing)
