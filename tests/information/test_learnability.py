"""The onset of learning: closed forms, and the functional and the singular values as each other's oracle."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from isthmus.core.errors import ConfigError, DataError
from isthmus.core.tradeoff import Rho
from isthmus.information.learnability import (
    learnability,
    noise_threshold,
    threshold_of_function,
    threshold_of_subset,
)
from isthmus.information.tables import noisy_labels

seeds = st.integers(0, 10_000)


def random_table(seed, rows=4, columns=3):
    return np.random.default_rng(seed).dirichlet(np.full(rows * columns, 0.5)).reshape(rows, columns)


@pytest.mark.parametrize(
    ("classes", "noise", "threshold"),
    [(2, 0.1, 1.5625), (2, 0.2, 2.7778), (2, 0.3, 6.25), (10, 0.2, 1.6531), (10, 0.4, 3.24)],
)
def test_published_thresholds(classes, noise, threshold):
    """Fact sheet §2.4."""
    assert noise_threshold(classes, noise) == pytest.approx(threshold, abs=5e-5)
    found = learnability(noisy_labels(classes, noise))
    assert found.relevance_weight == pytest.approx(noise_threshold(classes, noise), rel=1e-12)
    assert found.rho == pytest.approx(math.log(threshold - 1), abs=1e-4)


@given(st.integers(2, 12), st.floats(0.0, 1.0))
def test_uniform_noise_in_closed_form(classes, noise):
    closed = noise_threshold(classes, noise)
    if closed < 1e12:
        assert learnability(noisy_labels(classes, noise)).relevance_weight == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 1, 1, 2, 0], [0, 1]])
def test_labels_that_follow_from_x_are_learned_at_every_rho(rows):
    p = np.eye(max(rows) + 1)[rows] / len(rows)
    found = learnability(p)
    assert found.relevance_weight == 1.0
    assert found.rho == -math.inf
    assert noise_threshold(3, 0.0) == 1.0


@given(seeds)
def test_independent_labels_are_never_learned(seed):
    generator = np.random.default_rng(seed)
    p = np.outer(generator.dirichlet(np.ones(5)), generator.dirichlet(np.ones(3)))
    found = learnability(p)
    assert found.relevance_weight == found.rho == math.inf
    assert not found.function.any()
    assert threshold_of_function(p, generator.normal(size=5)) == math.inf
    assert threshold_of_subset(p, np.arange(5) < 2) == math.inf
    assert noise_threshold(4, 0.75) == math.inf


@pytest.mark.parametrize("p", [np.array([[0.3, 0.7]]), np.array([[0.3], [0.7]])])
def test_one_value_alone_has_nothing_to_be_learned(p):
    assert learnability(p).relevance_weight == math.inf


@given(seeds)
def test_the_function_that_is_learned_first_attains_the_threshold(seed):
    p = random_table(seed)
    found = learnability(p)
    p_x = p.sum(1)
    assert p_x @ found.function == pytest.approx(0.0, abs=1e-7)
    assert p_x @ found.function**2 == pytest.approx(1.0)
    assert threshold_of_function(p, found.function) == pytest.approx(found.relevance_weight, rel=1e-6)


@given(seeds, seeds)
def test_every_function_is_an_upper_bound(seed, other):
    p = random_table(seed)
    h = np.random.default_rng(other).normal(size=4)
    assert threshold_of_function(p, h) >= learnability(p).relevance_weight * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_infimum_over_functions_is_the_singular_value(seed):
    p = random_table(seed)
    h = np.random.default_rng(seed).normal(size=4)
    best = minimize(lambda h: threshold_of_function(p, h), h, method="Nelder-Mead", options={"xatol": 1e-9})
    assert best.fun == pytest.approx(learnability(p).relevance_weight, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-200, -1.0, 1e200])
def test_neither_shift_nor_scale_of_a_function_matters(scale):
    p, h = random_table(0), np.arange(4.0) ** 2
    assert threshold_of_function(p, scale * (h + 5)) == pytest.approx(threshold_of_function(p, h))


@given(seeds, st.floats(0.5, 3.0))
def test_the_form_of_the_paper(seed, shift):
    """β₀[h] = (E h²/(E h)² − 1) / (E_y (E[h|y])²/(E h)² − 1) for h of non-zero mean."""
    p = random_table(seed)
    h = np.random.default_rng(seed).normal(size=4)
    h = h - p.sum(1) @ h + shift
    p_x, p_y = p.sum(1), p.sum(0)
    square = (p_x @ h) ** 2
    paper = (p_x @ h**2 / square - 1) / (p_y @ (p.T @ h / p_y) ** 2 / square - 1)
    assert threshold_of_function(p, h) == pytest.approx(paper, rel=1e-5)


@given(seeds)
def test_subsets_in_the_form_of_the_paper(seed):
    """(1/p(Ω) − 1) / (E_{y|Ω}[p(y|Ω)/p(y)] − 1)."""
    p = random_table(seed)
    for members in itertools.product([False, True], repeat=4):
        inside = np.array(members)
        if 0 < inside.sum() < 4:
            share, p_y = p[inside].sum(), p.sum(0)
            given_inside = p[inside].sum(0) / share
            paper = (1 / share - 1) / (given_inside @ (given_inside / p_y) - 1)
            assert threshold_of_subset(p, inside) == pytest.approx(paper, rel=1e-5)
            assert threshold_of_subset(p, inside) >= learnability(p).relevance_weight * (1 - 1e-9)


def test_a_single_class_is_a_best_subset_of_uniform_noise():
    p = noisy_labels(10, 0.2)
    assert threshold_of_subset(p, np.arange(10) == 3) == pytest.approx(noise_threshold(10, 0.2))


@given(seeds)
def test_values_that_never_occur_change_nothing(seed):
    p = random_table(seed)
    padded = np.pad(p, ((1, 1), (0, 2)))
    found, plain = learnability(padded), learnability(p)
    assert found.relevance_weight == pytest.approx(plain.relevance_weight)
    assert found.function[[0, -1]].tolist() == [0.0, 0.0]
    h = np.arange(6.0)
    assert threshold_of_function(padded, h) == pytest.approx(threshold_of_function(p, h[1:-1]))


@given(seeds)
def test_thresholds_are_weights_of_the_one_knob(seed):
    found = learnability(random_table(seed))
    assert Rho(found.rho).relevance_weight == pytest.approx(found.relevance_weight)


def test_what_is_refused():
    p = noisy_labels(3, 0.1)
    for h in ([1.0, 2.0], [1.0, 2.0, math.nan], [[1.0, 2.0, 3.0]]):
        with pytest.raises(DataError, match="one finite number per value of X"):
            threshold_of_function(p, h)
    with pytest.raises(DataError, match="constant"):
        threshold_of_function(p, [2.0, 2.0, 2.0])
    for members in ([0, 1, 1], [True, False]):
        with pytest.raises(DataError, match="one bool per value of X"):
            threshold_of_subset(p, members)
    for members in ([False] * 3, [True] * 3):
        with pytest.raises(DataError, match="strictly between"):
            threshold_of_subset(p, members)
    with pytest.raises(DataError, match="sum to 1"):
        learnability([[1, 2], [3, 4]])
    for classes, noise in ((1, 0.1), (3, 1.5)):
        with pytest.raises(ConfigError, match="classes must be at least 2"):
            noise_threshold(classes, noise)
