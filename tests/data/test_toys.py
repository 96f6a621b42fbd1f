"""Toy problems: closed forms against the printed numbers, against samples, and against each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.toys import Gaussians, Intervals, Points, Rule, exceeds

N = 200_000
FIRST, SECOND = Rule((1.0, 0.0)), Rule((0.0, 1.0))
weights = st.floats(-3, 3, allow_subnormal=False)


def share_right(rule: Rule, points: Points) -> float:
    score = points.features.double() @ torch.tensor(rule.weights, dtype=torch.float64) + rule.bias
    return float(((score > 0) == points.labels.bool()).double().mean())


def close(measured: float, expected: float) -> bool:
    """Within five standard deviations of N trials."""
    return abs(measured - expected) <= 5 * math.sqrt(max(expected * (1 - expected), 1e-5) / N)


def test_printed_numbers_of_the_intervals():
    toy = Intervals()
    assert (toy.accuracy(FIRST), toy.accuracy_on_rare(FIRST), toy.accuracy_when_shifted(FIRST)) == (1, 1, 1)
    assert toy.accuracy(SECOND) == pytest.approx(0.9)
    assert toy.accuracy_on_rare(SECOND) == 0
    assert toy.accuracy_when_shifted(SECOND) == 0
    assert toy.information_of_second / math.log(2) == pytest.approx(0.531, abs=5e-4)


def test_printed_numbers_of_the_gaussians():
    toy = Gaussians()
    alone = Rule((0.0, *(1.0,) * 100))
    only_first = Rule((1.0, *(0.0,) * 100))
    assert toy.accuracy(alone) == pytest.approx(0.99865, abs=1e-5)
    assert toy.accuracy(toy.bayes) == pytest.approx(0.99947, abs=1e-5)
    assert toy.accuracy_under_attack(toy.bayes) == pytest.approx(0.00576, abs=1e-5)
    assert toy.accuracy(only_first) == toy.accuracy_under_attack(only_first) == pytest.approx(0.95)


@pytest.mark.parametrize(
    "rule", [Rule((1.0, 0.4)), Rule((0.2, 3.0), 0.3), Rule((-0.3, 1.0), -0.2), Rule((0.05, 2.0), 1.0)]
)
def test_intervals_agree_with_samples(rule):
    toy, generator = Intervals(), torch.Generator().manual_seed(1)
    points = toy.sample(N, generator)
    assert close(share_right(rule, points), toy.accuracy(rule))
    assert close(share_right(rule, toy.rare(N, generator)), toy.accuracy_on_rare(rule))
    assert close(share_right(rule, toy.shifted(points)), toy.accuracy_when_shifted(rule))
    assert close(share_right(rule, toy.shifted(points, 0.25)), toy.accuracy_when_shifted(rule, 0.25))


@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_gaussians_agree_with_samples(bias):
    toy, generator = Gaussians(others=20), torch.Generator().manual_seed(2)
    numbers = np.random.default_rng(3).normal(0.3, 0.5, toy.dim)
    rule = Rule(tuple(numbers.tolist()), bias)
    points = toy.sample(N, generator)
    assert close(share_right(rule, points), toy.accuracy(rule))
    assert close(share_right(rule, toy.attacked(points)), toy.accuracy_under_attack(rule))


def test_a_rule_that_leans_on_the_second_feature_loses_a_twentieth_of_its_slope():
    """For w₂/w₁ = r ≤ 10 and no bias the rare set is right with 1 − r/20."""
    for r in (0.1, 1.0, 7.0):
        assert Intervals().accuracy_on_rare(Rule((1.0, r))) == pytest.approx(1 - r / 20)
        assert Intervals().accuracy(Rule((1.0, r))) == pytest.approx(1 - 0.1 * r / 20)


@given(weights, weights, st.floats(-7, 7))
def test_the_area_on_one_side_of_a_line(first, second, threshold):
    grid = (np.arange(1000) + 0.5) / 1000
    inside = first * grid[:, None] + second * grid[None] > threshold
    assert exceeds(first, second, threshold) == pytest.approx(float(inside.mean()), abs=5e-3)


@given(weights, weights, st.floats(-7, 7))
def test_both_sides_of_a_line_make_the_whole(first, second, threshold):
    both = exceeds(first, second, threshold) + exceeds(-first, -second, -threshold)
    assert both == pytest.approx(1, abs=1e-6) or (abs(first) + abs(second)) * threshold == 0  # a tie is on no side


def test_the_same_seed_gives_the_same_points_and_another_one_others():
    one, same, other = (Intervals().sample(50, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.features, same.features)
    assert not torch.equal(one.features, other.features)


def test_an_attack_leaves_the_first_feature_and_the_points_it_was_given():
    toy = Gaussians(others=5)
    points = toy.sample(100, torch.Generator().manual_seed(0))
    before = points.features.clone()
    moved = toy.attacked(points)
    assert torch.equal(points.features, before)
    assert torch.equal(moved.features[:, 0], before[:, 0])
    torch.testing.assert_close(moved.features[:, 1:], before[:, 1:] - 0.6 * points.signs[:, None])


def test_a_rule_of_another_size_is_refused():
    with pytest.raises(ValueError, match="has 2 weights; got 3"):
        Intervals().accuracy(Rule((1.0, 2.0, 3.0)))
