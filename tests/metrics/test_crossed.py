"""Means over draws and examples: what is known in closed form, and coverage where both are random."""

import math

import numpy as np
import pytest
from scipy import stats

from isthmus.metrics.crossed import crossed_mean


def test_without_draws_that_differ_it_is_the_interval_of_a_mean():
    """All draws alike: the variance is that of the examples, with their degrees of freedom."""
    values = np.random.default_rng(0).normal(size=50)
    found = crossed_mean(np.tile(values, (4, 1)), "nats")
    low, high = stats.t.interval(0.95, 49, loc=values.mean(), scale=stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert found.n == 50


def test_without_examples_that_differ_it_is_that_of_the_draws():
    values = np.random.default_rng(0).normal(size=5)
    found = crossed_mean(np.tile(values[:, None], (1, 300)), "nats")
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("between", "among"), [(0.3, 1.0), (0.0, 1.0), (0.5, 0.0)])
def test_intervals_cover_where_both_are_random(between, among):
    generator = np.random.default_rng(3)
    runs, covered = 400, 0
    for _ in range(runs):
        rows, columns = between * generator.normal(size=(5, 1)), among * generator.normal(size=(1, 80))
        interval = crossed_mean(rows + columns + generator.normal(size=(5, 80)), "nats").interval
        covered += interval.low <= 0 <= interval.high
    assert 0.92 <= covered / runs <= 0.995


def test_bounds_and_tables_that_say_nothing():
    table = np.ones((3, 10))
    table[:, 0] = 0
    found = crossed_mean(table, "fraction", least=0.0, most=1.0)
    assert found.interval.high == 1.0
    constant = crossed_mean(np.full((3, 10), 0.5), "fraction")
    assert (constant.interval.low, constant.interval.high) == (0.5, 0.5)
    single = crossed_mean(np.ones((1, 10)), "fraction")
    assert (single.value, single.interval) == (1.0, None)
    assert "two draws" in single.note
    assert crossed_mean(np.ones((3, 0)), "fraction").value is None
    assert math.isfinite(crossed_mean(np.random.default_rng(0).random((2, 2)), "fraction").interval.high)
    with pytest.raises(ValueError, match="draws × examples"):
        crossed_mean([1.0], "fraction")
