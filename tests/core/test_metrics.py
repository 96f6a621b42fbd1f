"""Metrics with names and coordinates, and how they are looked up."""

import json

import pytest
from pydantic import ValidationError

from isthmus.core.types import Interval, Metric, Metrics


def metric(name, value=0.5, **coords):
    return Metric(name=name, value=value, unit="fraction", n=10, coords=coords)


CLEAN = metric("accuracy", 0.9, mode="mean")
SMALL = metric("accuracy", 0.8, mode="mean", eps=0.1)
LARGE = metric("accuracy", 0.7, mode="mean", eps=0.3)
ECE = metric("ece", 0.1, mode="mean")
ALL = Metrics([CLEAN, SMALL, LARGE, ECE])


def test_one_needs_exactly_the_coordinates_that_the_metric_has():
    assert ALL.one("accuracy", mode="mean") == CLEAN
    assert ALL.one("accuracy", mode="mean", eps=0.3) == LARGE
    assert ALL.get("accuracy") is None
    with pytest.raises(KeyError, match=r"eps=0\.1"):
        ALL.one("accuracy", mode="mean", eps=0.2)


def test_select_needs_at_least_these_coordinates():
    assert list(ALL.select("accuracy")) == [CLEAN, SMALL, LARGE]
    assert list(ALL.select(mode="mean", eps=0.1)) == [SMALL]
    assert list(ALL.select(eps=None)) == [CLEAN, ECE]
    assert ALL.names() == ["accuracy", "ece"]


def test_an_unknown_coordinate_is_refused():
    with pytest.raises(ValidationError, match="severity"):
        metric("accuracy", severty=3)


def test_two_metrics_with_one_name_and_the_same_coordinates_are_refused():
    with pytest.raises(ValueError, match="accuracy"):
        Metrics([CLEAN, CLEAN])


def test_metrics_survive_json_in_order():
    whole = Metrics([*ALL, Metric(name="nll", value=float("inf"), unit="nats", n=3, coords={"class": 3})])
    content = json.loads(whole.model_dump_json())
    assert [entry["name"] for entry in content] == ["accuracy", "accuracy", "accuracy", "ece", "nll"]
    assert Metrics.model_validate(content) == whole


def test_a_row_is_flat():
    interval = Interval(low=0.1, high=0.2, method="Wilson")
    row = CLEAN.model_copy(update={"interval": interval}).named("error", corruption="fog").row()
    assert (row["name"], row["mode"], row["corruption"]) == ("error", "mean", "fog")
    assert (row["value"], row["low"], row["high"], row["level"], row["method"]) == (0.9, 0.1, 0.2, 0.95, "Wilson")
    assert "eps" not in row
