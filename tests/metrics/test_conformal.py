"""Conformal prediction against its finite-sample guarantee, closed forms and a plain loop."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from isthmus.metrics import aps_scores, conformal_threshold, coverage_range, lac_scores, probabilities


def test_the_threshold_is_the_order_statistic():
    scores = np.arange(1, 10)[:, None] / 10  # 0.1 … 0.9, one class
    labels = np.zeros(9, int)
    assert conformal_threshold(scores, labels, 0.1) == 0.9  # the ninth of 9
    assert conformal_threshold(scores, labels, 0.2) == 0.8
    assert conformal_threshold(scores, labels, 0.05) == math.inf


def test_aps_adds_the_probability_of_all_classes_above():
    logits = np.log([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(aps_scores(logits, [1.0]), [[1.0, 0.5, 0.8]])
    np.testing.assert_allclose(aps_scores(logits, [0.0]), [[0.8, 0.0, 0.5]])
    np.testing.assert_allclose(lac_scores(logits), [[0.8, 0.5, 0.7]])


def test_aps_of_the_true_probabilities_is_uniform():
    """If labels follow the probabilities, the score of the label is U(0, 1), so the threshold is 1 − α."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4))
    labels = np.array([random.choice(4, p=row) for row in probabilities(logits)])
    own = np.take_along_axis(aps_scores(logits, random.random(20_000)), labels[:, None], 1)[:, 0]
    np.testing.assert_allclose(np.quantile(own, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.015)


@pytest.mark.parametrize("randomised", [True, False])
def test_coverage_over_many_splits_is_beta_distributed(randomised):
    """Of 400 splits with a wrong model: mean (k)/(n + 1), and 95% within the range, as the theory says."""
    random = np.random.default_rng(1)
    n, m, alpha, inside, covered = 60, 200, 0.1, 0, []
    low, high = coverage_range(n, m, alpha)
    for _ in range(400):
        logits, labels = random.normal(size=(n + m, 3)), random.integers(3, size=n + m)
        scores = aps_scores(logits, random.random(n + m)) if randomised else lac_scores(logits)
        within = scores[n:] <= conformal_threshold(scores[:n], labels[:n], alpha)
        covered.append(np.take_along_axis(within, labels[n:, None], 1).mean())
        inside += low <= covered[-1] <= high
    assert np.mean(covered) == pytest.approx(55 / 61, abs=0.006)  # ⌈61·0.9⌉ = 55
    assert 0.93 * 400 <= inside <= 0.995 * 400


def test_the_range_tends_to_the_beta_distribution():
    low, high = coverage_range(100, 10**4, 0.1)
    np.testing.assert_allclose([low, high], beta.ppf([0.025, 0.975], 91, 10), atol=5e-3)
    assert coverage_range(5, 100, 0.1) == (1.0, 1.0)
