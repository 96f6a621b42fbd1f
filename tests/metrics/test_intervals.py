import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from isthmus.metrics import (
    accuracy,
    bootstrap,
    clopper_pearson,
    mean,
    mean_difference,
    norm_of_mean,
    paired_difference,
    proportion,
    wilson,
)

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_intervals_of_a_proportion_agree_with_scipy(count, level):
    successes, n = count
    test = binomtest(successes, n)
    for ours, method in (
        (wilson(successes, n, level), "wilson"),
        (clopper_pearson(successes, n, level), "exact"),
    ):
        theirs = test.proportion_ci(level, method=method)
        assert ours.low == pytest.approx(theirs.low, abs=1e-9)
        assert ours.high == pytest.approx(theirs.high, abs=1e-9)
        assert 0 <= ours.low <= successes / n <= ours.high <= 1


@pytest.mark.parametrize("n", [20, 150])
def test_coverage_is_exact_for_clopper_pearson_and_right_on_average_for_wilson(n):
    k = np.arange(n + 1)

    def coverage(interval, p):
        limits = [interval(int(s), n) for s in k]
        inside = [i.low <= p <= i.high for i in limits]
        return binom.pmf(k, n, p)[inside].sum()

    probabilities = np.linspace(0.01, 0.99, 50)
    assert min(coverage(clopper_pearson, p) for p in probabilities) >= 0.95
    assert np.mean([coverage(wilson, p) for p in probabilities]) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_no_trials_say_nothing_and_impossible_counts_are_refused(interval):
    assert (interval(0, 0).low, interval(0, 0).high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="5 of 3"):
        interval(5, 3)
    with pytest.raises(ValueError, match="level"):
        interval(1, 3, level=1.0)


def test_accuracy_is_a_proportion_and_not_measured_without_examples():
    assert accuracy([True, False, True]) == proportion(2, 3)
    assert accuracy([]).value is None
    assert accuracy([]).note


def test_paired_difference_reproduces_the_worked_example_of_altman_2000():
    # Altman et al., Statistics with confidence (2000), table 6.2: 14 both, 5 only the second, 22 neither
    second = np.repeat([1, 1, 0], [14, 5, 22])
    first = np.repeat([1, 0, 0], [14, 5, 22])
    difference = paired_difference(first, second)
    assert difference.value == pytest.approx(5 / 41)
    assert difference.interval.low == pytest.approx(0.011, abs=5e-4)
    assert difference.interval.high == pytest.approx(0.226, abs=5e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_difference_is_antisymmetric_and_holds_its_estimate(pairs):
    first, second = np.array(pairs).T
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there.value == pytest.approx(-back.value)
    assert there.interval.low == pytest.approx(-back.interval.high)
    assert -1 - 1e-9 <= there.interval.low <= there.value <= there.interval.high <= 1 + 1e-9


def test_paired_difference_covers_the_truth_and_uses_the_pairing():
    random = np.random.default_rng(0)
    covered, paired_width, separate_width = 0, 0.0, 0.0
    for _ in range(500):
        easy = random.random(150)
        first, second = easy < 0.7, easy + 0.05 * random.standard_normal(150) < 0.78
        interval = paired_difference(first, second).interval
        covered += interval.low <= 0.08 <= interval.high
        paired_width += interval.high - interval.low
        a, b = accuracy(first).interval, accuracy(second).interval
        separate_width += np.hypot(a.high - a.low, b.high - b.low)
    assert covered / 500 >= 0.93
    assert paired_width < 0.7 * separate_width


def test_pairs_must_be_of_the_same_examples():
    with pytest.raises(ValueError, match="3 and 2"):
        paired_difference([1, 0, 1], [1, 0])


def test_mean_covers_the_truth_and_repeats_itself():
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        interval = mean(random.exponential(2.0, 100), "nats", seed=trial, resamples=300).interval
        covered += interval.low <= 2.0 <= interval.high
    assert covered / 200 >= 0.92
    values = random.random(50)
    assert mean(values, "nats", seed=3) == mean(values, "nats", seed=3)
    assert mean(values, "nats", seed=3) != mean(values, "nats", seed=4)


SKEWED = {
    "exponential": (lambda random, n: random.exponential(1.0, n), 1.0),
    "log-normal": (lambda random, n: random.lognormal(0.0, 1.0, n), np.exp(0.5)),
    "losses": (lambda random, n: random.gamma(0.3, 1.0, n), 0.3),
    "normal": (lambda random, n: random.standard_normal(n), 0.0),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in ("losses", "normal") else []) for kind in SKEWED]
)
def test_the_mean_of_thirty_skewed_values_is_covered(kind):
    """A percentile bootstrap covers 88 to 92%; log-normal values are too skewed for the studentised one as well."""
    draw, truth = SKEWED[kind]
    random, covered, runs = np.random.default_rng(2), 0, 200
    for trial in range(runs):
        interval = mean(draw(random, 30), "nats", seed=trial, resamples=150).interval
        covered += interval.low <= truth <= interval.high
    assert covered / runs >= (0.88 if kind == "log-normal" else 0.915)


def test_the_difference_of_two_skewed_means_is_covered():
    random, covered, runs = np.random.default_rng(3), 0, 200
    for trial in range(runs):
        first, second = random.lognormal(0.0, 1.0, 30), random.exponential(1.0, 25)
        interval = mean_difference(first, second, "nats", seed=trial, resamples=150).interval
        covered += interval.low <= 1.0 - np.exp(0.5) <= interval.high
    assert covered / runs >= 0.915


def test_an_interval_stays_within_the_values_and_holds_their_mean():
    for values in ([0.0] * 9 + [1.0], [0.2, 0.9], [3.0, 3.0, 3.0]):
        found = mean(values, "fraction", seed=0, resamples=200)
        assert min(values) <= found.interval.low <= found.value <= found.interval.high <= max(values)


def test_mean_of_nothing_is_not_measured_and_infinite_losses_are_not_hidden():
    assert mean([], "nats", seed=0).value is None
    infinite = mean([1.0, np.inf], "nats", seed=0)
    assert infinite.value == np.inf
    assert infinite.interval is None
    assert "not finite" in infinite.note


def test_bootstrap_draws_as_many_examples_as_there_are():
    drawn = bootstrap(7, lambda indices: indices, seed=0, resamples=50)
    assert drawn.shape == (50, 7)
    assert set(np.unique(drawn)) == set(range(7))


@pytest.mark.parametrize("truth", [(0.0, 0.0), (0.15, 0.0), (2.0, -1.0)], ids=str)
def test_the_length_of_a_mean_is_covered_also_at_zero(truth):
    """Means of skewed, correlated vectors; quantiles of resampled lengths would never reach down to 0."""
    random, covered = np.random.default_rng(0), 0
    for trial in range(100):
        noise = random.exponential(1.0, (80, 2)) @ np.array([[1.0, 0.5], [0.0, 0.7]]) - np.array([1.0, 1.2])
        found = norm_of_mean(noise + truth, "nats", seed=trial, resamples=300)
        assert found.interval.low <= found.value <= found.interval.high
        covered += found.interval.low <= math.hypot(*truth) <= found.interval.high
    assert covered >= 88  # of 100; see above


def test_the_length_of_a_mean_of_numbers_is_its_absolute_value():
    values = np.random.default_rng(1).normal(-3.0, 1.0, 400)
    length, signed = norm_of_mean(values, "nats", seed=0), mean(values, "nats", seed=0)
    assert length.value == pytest.approx(-signed.value)
    assert length.interval.low == pytest.approx(-signed.interval.high, abs=0.02)
    assert length.interval.high == pytest.approx(-signed.interval.low, abs=0.02)
    assert norm_of_mean(values + 3.0, "nats", seed=0).interval.low == 0.0


def test_the_length_of_a_mean_without_variation_is_certain():
    found = norm_of_mean(np.tile([3.0, 4.0], (20, 1)), "nats", seed=0)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((5.0, 5.0, 5.0))
    along = norm_of_mean(np.stack([np.linspace(-1, 1, 50), np.full(50, 2.0)], 1), "nats", seed=0)  # never nearer than 2
    assert along.interval.low == pytest.approx(2.0, abs=1e-3)
    assert norm_of_mean(np.zeros((20, 2)), "nats", seed=0).interval.high == 0.0
    assert norm_of_mean(np.zeros((0, 2)), "nats", seed=0).value is None
    assert norm_of_mean([[1.0, math.inf]], "nats", seed=0).interval is None


def test_the_difference_of_two_means_is_that_of_two_independent_samples():
    """Its interval is the normal one, of the sum of both variances, where there are many examples."""
    random = np.random.default_rng(3)
    first, second = random.exponential(1.0, 900), random.exponential(2.0, 1600)
    found = mean_difference(first, second, "nats", seed=0, resamples=4000)
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.n == 900
    error = 1.96 * math.sqrt(first.var() / 900 + second.var() / 1600)
    assert found.interval.low == pytest.approx(found.value - error, abs=0.1 * error)
    assert found.interval.high == pytest.approx(found.value + error, abs=0.1 * error)
    reverse = mean_difference(second, first, "nats", seed=0, resamples=4000)
    assert reverse.value == pytest.approx(-found.value)


def test_the_examples_of_two_means_are_drawn_apart():
    """Equal samples in one order: drawn together, their difference would be 0 in every resample."""
    values = np.arange(50.0)
    found = mean_difference(values, values, "nats", seed=0)
    assert found.value == 0
    assert found.interval.high - found.interval.low > 5


def test_differences_of_means_without_an_interval():
    assert mean_difference([], [1.0], "nats", seed=0).value is None
    single = mean_difference([1.0], [3.0, 4.0], "nats", seed=0)
    assert (single.value, single.interval) == (2.5, None)
    assert "two examples" in single.note
    lost = mean_difference([1.0, 2.0], [3.0, math.inf], "nats", seed=0)
    assert lost.interval is None
    assert "not finite" in lost.note
