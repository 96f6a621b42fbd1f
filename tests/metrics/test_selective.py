"""Selective classification against closed forms and a plain loop."""

import numpy as np
import pytest

from isthmus import metrics
from isthmus.metrics.selective import least_aurc


def loop(uncertainty, wrong):
    """The definition, without ties."""
    order = np.argsort(uncertainty)
    return np.mean([wrong[order[:k]].mean() for k in range(1, len(order) + 1)])


def test_the_area_is_the_mean_risk_of_all_prefixes():
    random = np.random.default_rng(0)
    uncertainty, wrong = random.random(50), random.random(50) < 0.3
    assert metrics.aurc(uncertainty, wrong) == pytest.approx(loop(uncertainty, wrong))
    coverage, risk = metrics.risk_coverage(uncertainty, wrong)
    assert (coverage[0], coverage[-1], risk[-1]) == (1 / 50, 1.0, pytest.approx(wrong.mean()))
    assert metrics.aurc(np.where(uncertainty > 0.9, np.inf, uncertainty), wrong) > 0


def test_ties_have_the_expected_risk_over_all_orders():
    random = np.random.default_rng(1)
    uncertainty, wrong = random.integers(4, size=40), random.random(40) < 0.4
    orders = [loop(uncertainty + 0.5 * random.random(40), wrong) for _ in range(2000)]
    assert metrics.aurc(uncertainty, wrong) == pytest.approx(np.mean(orders), abs=4 * np.std(orders) / 2000**0.5)
    assert metrics.aurc(np.zeros(40), wrong) == pytest.approx(wrong.mean())


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_the_least_area_is_that_of_a_perfect_ranking(rate):
    n, errors = 100_000, round(rate * 100_000)
    uncertainty = np.arange(n)
    assert metrics.aurc(uncertainty, uncertainty >= n - errors) == pytest.approx(least_aurc(errors, n))
    closed = rate + (1 - rate) * np.log(1 - rate) if rate < 1 else 1.0
    assert least_aurc(errors, n) == pytest.approx(closed, abs=1e-4)


def test_a_calibrated_uncertainty_has_the_area_of_its_integral():
    """Errors with probability u, uniform: the risk at coverage c is c/2, the area 1/4, the least ½ − ½·ln 2."""
    random = np.random.default_rng(2)
    u = random.random(40_000)
    found = metrics.selective_metrics(u, random.random(40_000) < u, seed=0, resamples=20)
    assert found["aurc"].value == pytest.approx(0.25, abs=0.01)
    assert found["excess_aurc"].value == pytest.approx(0.25 - (0.5 - 0.5 * np.log(2)), abs=0.01)


@pytest.mark.parametrize("most", [1.0, 0.1])
def test_intervals_cover(most):
    """Of 60 samples of 400 examples, 95% intervals cover the area of the population in 88% or more.

    An example of uncertainty u is wrong with probability most·u, so that the risk at coverage c is most·c/2.
    """
    random = np.random.default_rng(3)
    covered, rate = dict.fromkeys(metrics.SELECTIVE, 0), most / 2
    truth = {"aurc": most / 4, "excess_aurc": most / 4 - (rate + (1 - rate) * np.log(1 - rate))}
    for seed in range(60):
        u = random.random(400)
        found = metrics.selective_metrics(u, random.random(400) < most * u, seed, resamples=100)
        for name, metric in found.items():
            covered[name] += metric.interval.low <= truth[name] <= metric.interval.high
    assert min(covered.values()) >= 0.88 * 60


def test_nothing_and_nonsense():
    assert metrics.selective_metrics([], [], seed=0)["aurc"].value is None
    perfect = metrics.selective_metrics(np.arange(100), np.zeros(100, bool), seed=0)["aurc"]
    assert (perfect.value, perfect.interval.low) == (0.0, 0.0)
    assert perfect.interval.high == pytest.approx(1 - 0.025 ** (1 / 100))  # the rule of three, two-sided
    ranked = metrics.selective_metrics(np.arange(100), np.arange(100) >= 95, seed=0)["excess_aurc"]
    assert (ranked.value, ranked.interval) == (0.0, perfect.interval)
    with pytest.raises(ValueError, match="1 of them NaN"):
        metrics.aurc([0.1, np.nan], [True, False])
    with pytest.raises(ValueError, match="2 uncertainties, 0 of them NaN, and 1 outcomes"):
        metrics.risk_coverage([0.1, 0.2], [True])
