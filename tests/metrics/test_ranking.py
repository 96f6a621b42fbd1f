import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc

from isthmus.metrics import DETECTION, aupr, auroc, detection_metrics, fpr_at_tpr, roc_curve
from isthmus.metrics.ranking import ranked
from isthmus.metrics.ranking_intervals import _delong_variance, _newcombe

# few distinct values, so that there are ties of all kinds
few = st.lists(st.integers(-3, 3).map(lambda k: k / 2), min_size=1, max_size=25)
many = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=25)
scores = st.one_of(few, many)


def as_sklearn(inside, outside, positive):
    """Labels and scores that are larger for the positive class."""
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))] == (positive == "out")
    values = np.r_[inside, outside]
    return truth, values if positive == "out" else -values


@given(scores, scores, st.sampled_from(["in", "out"]), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_scikit_learn_agrees(inside, outside, positive, tpr):
    truth, values = as_sklearn(inside, outside, positive)
    assert auroc(inside, outside) == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    assert aupr(inside, outside, positive) == pytest.approx(average_precision_score(truth, values), abs=1e-12)
    false, true, _ = sklearn_roc_curve(truth, values, drop_intermediate=False)
    assert fpr_at_tpr(inside, outside, tpr, positive) == pytest.approx(false[true >= tpr].min(), abs=1e-12)
    for ours, theirs in zip(roc_curve(inside, outside, positive), (false, true), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("positive", ["in", "out"])
@pytest.mark.parametrize("decimals", [1, 6])
def test_torchmetrics_agrees(positive, decimals):
    random = np.random.default_rng(decimals)
    inside, outside = random.normal(0, 1, 300).round(decimals), random.normal(1.2, 2, 170).round(decimals)
    truth, values = as_sklearn(inside, outside, positive)
    # torchmetrics squashes what does not lie in [0, 1]; ranks within it are enough
    given_scores, target = torch.tensor((values + 20) / 40), torch.tensor(truth.astype(int))
    assert auroc(inside, outside) == pytest.approx(float(binary_auroc(given_scores, target)), abs=1e-6)
    theirs = float(binary_average_precision(given_scores, target))
    assert aupr(inside, outside, positive) == pytest.approx(theirs, abs=1e-6)
    false, true, _ = binary_roc(given_scores, target)
    expected = float(false[true >= 0.95].min())
    assert fpr_at_tpr(inside, outside, positive=positive) == pytest.approx(expected, abs=1e-6)


@given(scores, scores)
def test_auroc_counts_pairs_and_turns_with_the_score(inside, outside):
    a, b = np.array(inside)[:, None], np.array(outside)[None]
    assert auroc(inside, outside) == pytest.approx(((b > a) + 0.5 * (b == a)).mean(), abs=1e-12)
    assert auroc(-a, -b) == pytest.approx(1 - auroc(inside, outside), abs=1e-12)


@given(scores, scores, st.sampled_from(["in", "out"]), st.sampled_from([0.5, 0.95]))
def test_auroc_is_at_least_what_one_point_of_the_curve_says(inside, outside, positive, tpr):
    """The inequality that four rows of the CEB paper's Table 1 violate."""
    assert auroc(inside, outside) >= tpr * (1 - fpr_at_tpr(inside, outside, tpr, positive)) - 1e-12


@given(scores, scores, st.sampled_from(["in", "out"]))
def test_only_ranks_matter(inside, outside, positive):
    a, b = (np.array(values) for values in (inside, outside))
    ordered = np.unique(np.r_[a, b])
    places = [np.searchsorted(ordered, values) ** 3 for values in (a, b)]
    assert aupr(a, b, positive) == aupr(*places, positive)
    assert fpr_at_tpr(a, b, positive=positive) == fpr_at_tpr(*places, positive=positive)
    assert auroc(a, b) == auroc(*places)


@given(few, few, st.integers(2, 60), st.sampled_from(["in", "out"]))
def test_the_curve_is_the_auroc_s_and_thinning_keeps_its_ends(inside, outside, most, positive):
    false, true = roc_curve(inside, outside, positive)
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    assert area == pytest.approx(auroc(inside, outside), abs=1e-12)
    thin = roc_curve(inside, outside, positive, most)
    assert len(thin[0]) <= most
    assert (thin[0][0], thin[1][0], thin[0][-1], thin[1][-1]) == (0, 0, 1, 1)
    assert set(zip(*thin, strict=True)) <= set(zip(false, true, strict=True))


def test_separable_scores_are_told_apart_and_constant_ones_are_not():
    low, high = np.linspace(0, 1, 40), np.linspace(2, 3, 60)
    assert (fpr_at_tpr(low, high), auroc(low, high), aupr(low, high), aupr(low, high, "out")) == (0, 1, 1, 1)
    assert (fpr_at_tpr(high, low), auroc(high, low)) == (1, 0)
    same = np.ones(40), np.ones(60)
    assert (fpr_at_tpr(*same), auroc(*same), aupr(*same), aupr(*same, "out")) == (1, 0.5, 0.4, 0.6)
    assert auroc([-np.inf, 0], [np.inf, 0]) == 0.875


def test_the_positive_class_makes_a_difference():
    inside, outside = np.r_[np.zeros(90), np.full(10, 9.0)], np.full(50, 5.0)
    assert fpr_at_tpr(inside, outside, positive="in") == 1.0  # to keep 95 of them all of the others pass
    assert fpr_at_tpr(inside, outside, positive="out") == 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([], [1.0]), "no in-distribution scores"),
        (([1.0], []), "no out-of-distribution scores"),
        (([1.0, 2.0], [np.nan, 1.0, np.nan]), "2 of 3 out-of-distribution scores are NaN"),
        (([np.nan], [1.0]), "1 of 1 in-distribution scores are NaN"),
        (([1.0], [1.0], 0.0), "lies above 0"),
        (([1.0], [1.0], 0.95, "ood"), 'is "in" or "out"; got \'ood\''),
    ],
)
def test_bad_input_is_one_sentence(arguments, said):
    with pytest.raises(ValueError, match=said):
        fpr_at_tpr(*arguments)


def test_the_metrics_are_those_of_the_functions_and_hold_their_intervals():
    random = np.random.default_rng(0)
    inside, outside = random.normal(0, 1, 200), random.normal(1.5, 1, 100)
    found = detection_metrics(inside, outside, seed=0, resamples=300)
    assert tuple(found) == DETECTION
    assert found["auroc"].value == auroc(inside, outside)
    assert found["aupr_out"].value == aupr(inside, outside, "out")
    assert found["fpr95_out"].value == fpr_at_tpr(inside, outside, positive="out")
    assert [found[name].n for name in DETECTION] == [100, 200, 300, 300, 300]
    for metric in found.values():
        assert metric.unit == "fraction"
        assert 0 <= metric.interval.low < metric.value < metric.interval.high <= 1
    assert found == detection_metrics(inside, outside, seed=0, resamples=300)
    assert found != detection_metrics(inside, outside, seed=1, resamples=300)


def test_resamples_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch):
    random = np.random.default_rng(0)
    inside, outside = random.normal(0, 1, 50).round(1), random.normal(1, 1, 30).round(1)
    whole = detection_metrics(inside, outside, seed=3, resamples=100)
    monkeypatch.setattr("isthmus.metrics.ranking_intervals._AT_A_TIME", 700)
    assert detection_metrics(inside, outside, seed=3, resamples=100) == whole


def test_intervals_cover_the_truth():
    """Normal scores one and a half deviations apart: AUROC Φ(1.5/√2), FPR at 95% TPR Φ(1.645 − 1.5)."""
    truth = {"auroc": norm.cdf(1.5 / np.sqrt(2)), "fpr95_in": norm.cdf(norm.ppf(0.95) - 1.5)}
    covered = dict.fromkeys(truth, 0)
    for trial in range(100):
        random = np.random.default_rng(trial)
        found = detection_metrics(random.normal(0, 1, 100), random.normal(1.5, 1, 80), seed=trial, resamples=150)
        for name, value in truth.items():
            covered[name] += found[name].interval.low <= value <= found[name].interval.high
    assert min(covered.values()) >= 90, covered


def test_delongs_variance_is_that_of_the_pairs():
    """As DeLong et al. (1988) write it, with a kernel of pairs; ties count one half."""
    random = np.random.default_rng(4)
    inside, outside = random.normal(0, 1, 40).round(1), random.normal(1, 2, 25).round(1)
    kernel = (outside[:, None] > inside) + 0.5 * (outside[:, None] == inside)
    expected = kernel.mean(0).var(ddof=1) / 40 + kernel.mean(1).var(ddof=1) / 25
    counts = ranked(inside, outside)
    assert _delong_variance(counts, kernel.mean()) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(100, 100), (30, 200), (200, 30)])
@pytest.mark.parametrize("value", [0.02, 0.5, 0.9, 0.9995])
def test_newcombes_ends_lie_z_deviations_away(value, sizes):
    """Variance of Hanley & McNeil (1982) with Q1 = x/(2 − x) and Q2 = 2x²/(1 + x), in the less favourable order."""
    for end in _newcombe(value, *sizes, 1.96):
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        variances = [
            (end * (1 - end) + (m - 1) * (q1 - end**2) + (n - 1) * (q2 - end**2)) / (m * n)
            for m, n in (sizes, sizes[::-1])
        ]
        assert abs(end - value) == pytest.approx(1.96 * max(variances) ** 0.5, rel=1e-6)


def scores_with(auroc, n, random, ratio=1.0):
    """Normal scores, n of each class, the outside ones with ``ratio`` times the deviation of the others."""
    return random.normal(0, 1, n), random.normal(np.hypot(1, ratio) * norm.ppf(auroc), ratio, n)


@pytest.mark.parametrize("ratio", [1.0, pytest.param(2.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "truth",
    [0.71, pytest.param(0.983, marks=pytest.mark.slow), 0.995, pytest.param(0.9993, marks=pytest.mark.slow), 0.9995],
)
@pytest.mark.parametrize(("n", "runs"), [(200, 250), pytest.param(1000, 150, marks=pytest.mark.slow)])
def test_auroc_is_covered_up_to_the_end(truth, n, runs, ratio):
    """A percentile bootstrap covers 82 to 92% near 1."""
    random, covered = np.random.default_rng([n, round(1e4 * truth)]), 0
    for _ in range(runs):
        interval = detection_metrics(*scores_with(truth, n, random, ratio), seed=0, resamples=2)["auroc"].interval
        covered += interval.low <= truth <= interval.high
    assert covered / runs >= 0.93 - 1.65 * (0.93 * 0.07 / runs) ** 0.5


@pytest.mark.parametrize("truth", [*(pytest.param(truth, marks=pytest.mark.slow) for truth in (0.983, 0.9993)), 0.995])
def test_aupr_is_covered_up_to_the_end(truth):
    """Of normal scores with equal deviations and equally many of either class; its truth by integration over recall."""
    recall = np.concatenate([np.geomspace(1e-9, 0.5, 5000), 1 - np.geomspace(0.5, 1e-9, 5000)[1:]])
    false = norm.cdf(norm.ppf(recall) - np.sqrt(2) * norm.ppf(truth))
    area = np.trapezoid(recall / (recall + false), recall)
    random, runs = np.random.default_rng(round(1e4 * truth)), 120
    covered = dict.fromkeys(("aupr_in", "aupr_out"), 0)
    for trial in range(runs):
        found = detection_metrics(*scores_with(truth, 100, random), seed=trial, resamples=100)
        for name in covered:
            covered[name] += found[name].interval.low <= area <= found[name].interval.high
    assert min(covered.values()) / runs >= 0.93 - 1.65 * (0.93 * 0.07 / runs) ** 0.5


@pytest.mark.parametrize(("inside", "outside"), [(20, 30), (200, 50)])
def test_scores_that_do_not_overlap_are_no_proof_of_perfection(inside, outside):
    low, high = np.arange(inside, dtype=float), 1000.0 + np.arange(outside)
    right, wrong = (detection_metrics(*pair, seed=0, resamples=50) for pair in ((low, high), (high, low)))
    for name in ("auroc", "aupr_in", "aupr_out"):
        interval = right[name].interval
        assert right[name].value == interval.high == 1.0
        assert interval.low < 0.99
        assert interval.method.startswith("exact")
        assert wrong[name].interval.low <= wrong[name].value < wrong[name].interval.high < 1.0
    # of the n that were seen none failed: at 97.5% no more than 1 − 0.025^(1/n) of all would
    none = [1 - 0.025 ** (1 / n) for n in (inside, outside)]
    assert right["auroc"].interval.low == pytest.approx((1 - none[0]) * (1 - none[1]))
    assert wrong["auroc"].interval.low == 0.0
    assert right["fpr95_in"].value == right["fpr95_in"].interval.low == 0.0
    assert 0 < right["fpr95_in"].interval.high < 4 / outside
    assert wrong["fpr95_in"].interval.low > 1 - 4 / len(low)


def test_of_samples_without_overlap_the_interval_covers_the_truth():
    """Normal scores 4 deviations apart: of samples of 25 most do not overlap, though AUROC is 0.9977."""
    truth, apart, covered = norm.cdf(4 / np.sqrt(2)), 0, 0
    for trial in range(120):
        random = np.random.default_rng(trial)
        found = detection_metrics(random.normal(0, 1, 25), random.normal(4, 1, 25), seed=trial, resamples=20)["auroc"]
        if found.value == 1.0:
            apart += 1
            covered += found.interval.low <= truth
    assert apart > 40
    assert covered == apart


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (1, 5), (5, 1)])
def test_fewer_than_two_examples_are_not_measured(sizes):
    found = detection_metrics(np.arange(sizes[0]), np.arange(sizes[1]), seed=0)
    assert {metric.value for metric in found.values()} == {None}
    assert f"there are {sizes[0]} in- and {sizes[1]} out-of-distribution" in found["auroc"].note


def test_scores_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="1 of 3 in-distribution scores are NaN"):
        detection_metrics([1.0, np.nan, 2.0], [1.0, 2.0], seed=0)
