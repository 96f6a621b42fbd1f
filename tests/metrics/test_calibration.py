import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from isthmus.metrics import bin_edges, calibration_error, ece, reliability_bins

confidences = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.05, 0.15, 0.3, 0.7])), min_size=1, max_size=80
)
schemes = st.sampled_from(["width", "mass"])


@given(confidences, st.integers(1, 30), schemes)
def test_every_example_is_in_exactly_one_bin(values, count, scheme):
    bins = reliability_bins(values, [True] * len(values), count, scheme)
    assert sum(b.n for b in bins) == len(values)
    assert bins[0].low == 0.0
    assert bins[-1].high == 1.0
    assert all(a.high == b.low for a, b in itertools.pairwise(bins))
    for b in bins:
        inside = [v for v in values if b.low <= v < b.high or (v == b.high == 1.0)]
        assert b.n == len(inside)
        if inside:
            assert b.confidence == pytest.approx(np.mean(inside))


@given(confidences, st.integers(1, 30), schemes, st.randoms(use_true_random=False))
def test_order_of_the_examples_does_not_matter(values, count, scheme, random):
    outcomes = [random.random() < v for v in values]
    order = random.sample(range(len(values)), len(values))
    shuffled = ece([values[i] for i in order], [outcomes[i] for i in order], count, scheme)
    assert shuffled == pytest.approx(ece(values, outcomes, count, scheme), abs=1e-12)


def test_bins_of_equal_mass_hold_equally_many_and_ties_stay_together():
    values = np.random.default_rng(0).random(200)
    assert {b.n for b in reliability_bins(values, values > 0.5, 20, "mass")} == {10}
    saturated = reliability_bins(np.r_[np.ones(180), values[:20]], np.ones(200), 20, "mass")
    assert max(b.n for b in saturated) >= 180


def test_a_bin_knows_its_accuracy_and_its_exact_interval():
    bins = reliability_bins([0.91] * 10 + [0.2], [True] * 9 + [False, False], bins=20)
    full = bins[18]
    assert (full.n, full.confidence, full.accuracy) == (10, pytest.approx(0.91), 0.9)
    assert full.interval.level == 0.9
    assert full.interval.low == pytest.approx(0.6058, abs=1e-4)  # beta quantile of 9 in 10 at 5%
    assert bins[0].accuracy is bins[0].interval is bins[0].confidence is None


@pytest.mark.parametrize("count", [5, 15, 20])
def test_ece_agrees_with_torchmetrics(count):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.classification import multiclass_calibration_error
    import torch

    random = np.random.default_rng(2)
    probabilities = random.dirichlet([0.4] * 5, 500)
    labels = random.integers(5, size=500)
    theirs = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(labels), num_classes=5, n_bins=count, norm="l1"
    )
    ours = ece(probabilities.max(1), probabilities.argmax(1) == labels, count)
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_ece_in_closed_form():
    assert ece([1.0, 1.0], [True, True]) == 0.0  # certain and right
    assert ece([1.0, 1.0], [False, False]) == 1.0  # certain and wrong
    assert ece([0.9] * 10, [True] * 9 + [False]) == pytest.approx(0.0, abs=1e-12)
    assert ece([0.9] * 10 + [0.5] * 10, [True] * 5 + [False] * 5 + [True] * 5 + [False] * 5) == pytest.approx(0.2)


def calibrated(random, n, shift=0.0):
    confidence = 0.1 + 0.9 * random.beta(5, 1.5, n)
    return confidence, random.random(n) < (confidence - shift).clip(0, 1)


def test_calibrated_data_lie_inside_nine_in_ten_of_the_bins_intervals():
    random = np.random.default_rng(3)
    inside = total = 0
    for _ in range(40):
        confidence, correct = calibrated(random, 2000)
        for b in reliability_bins(confidence, correct):
            if b.n:
                total += 1
                inside += b.interval.low <= b.confidence <= b.interval.high
    assert 0.88 <= inside / total <= 0.97  # exact intervals are conservative in small bins


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_the_debiased_estimate_is_nearer_to_the_truth(shift):
    random = np.random.default_rng(4)
    samples = [calibrated(random, 400, shift) for _ in range(200)]
    plain = np.mean([ece(*sample) for sample in samples])
    debiased = np.mean([ece(*sample, debiased=True) for sample in samples])
    assert abs(debiased - shift) < 0.8 * abs(plain - shift)


@pytest.mark.parametrize("n", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shift", [0.0, pytest.param(0.02, marks=pytest.mark.slow), 0.1])
@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_the_interval_covers_the_populations_error(n, shift, scheme):
    random = np.random.default_rng(5)
    trials, covered = 60, 0
    for trial in range(trials):
        interval = calibration_error(*calibrated(random, n, shift), seed=trial, scheme=scheme, resamples=150).interval
        covered += interval.low <= shift <= interval.high
    # 95% nominal; 0.88 is three standard errors below it at 60 trials
    assert covered / trials >= 0.88


@settings(max_examples=30)
@given(confidences, schemes, st.integers(0, 5))
def test_the_interval_holds_its_estimate_and_repeats_itself(values, scheme, seed):
    outcomes = np.arange(len(values)) % 3 > 0
    metric = calibration_error(values, outcomes, seed, scheme=scheme, resamples=20)
    assert 0 <= metric.interval.low <= metric.value <= metric.interval.high <= 1
    assert metric == calibration_error(values, outcomes, seed, scheme=scheme, resamples=20)


def test_nothing_to_measure_and_impossible_input():
    assert calibration_error([], [], seed=0).value is None
    with pytest.raises(ValueError, match="no examples"):
        ece([], [])
    for wrong in ([1.2], [-0.1], [float("nan")]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            ece(wrong, [True])
    with pytest.raises(ValueError, match="2 confidences and 1"):
        reliability_bins([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="at least one bin"):
        bin_edges([0.1], bins=0)


def test_the_oracle_of_the_calibration_tests_is_calibrated():
    confidence, correct = calibrated(np.random.default_rng(6), 20000)
    residual = (correct - confidence) / np.sqrt(confidence * (1 - confidence) + 1e-9)
    blocks = residual.reshape(200, 100).mean(1) * 10
    assert kstest(blocks, "norm").pvalue > 0.01
