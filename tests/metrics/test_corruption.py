import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus import metrics
from isthmus.metrics import (
    ALEXNET,
    ALEXNET_CLEAN,
    CORRUPTIONS,
    corruption_errors,
    errors_by_severity,
    mce_shares,
    mean_corruption_error,
    measured_mce,
    measured_relative_mce,
    relative_mean_corruption_error,
)

FEW = ("fog", "snow")


def outcomes(n=40, seed=0, corruptions=CORRUPTIONS, right=0.6):
    random = np.random.default_rng(seed)
    return {name: random.random((5, n)) < right for name in corruptions}


def by_severity():
    random = np.random.default_rng(1)
    return {name: tuple(random.random(5)) for name in CORRUPTIONS}


def test_the_benchmark_has_fifteen_corruptions_and_alexnet_s_mean_error_is_the_published_one():
    assert len(CORRUPTIONS) == len(set(CORRUPTIONS)) == 15
    assert set(ALEXNET) == set(CORRUPTIONS)
    assert mean_corruption_error(ALEXNET, baseline=None) == pytest.approx(0.788993, abs=5e-7)


def test_the_baseline_s_own_errors_give_one():
    assert corruption_errors(ALEXNET) == dict.fromkeys(CORRUPTIONS, 1.0)
    assert mean_corruption_error(ALEXNET) == 1.0
    assert relative_mean_corruption_error(ALEXNET, clean=ALEXNET_CLEAN) == 1.0
    own = by_severity()
    assert mean_corruption_error(own, baseline=own) == pytest.approx(1.0)


@given(st.floats(0.0, 1.0))
def test_homogeneous_of_degree_one_in_the_errors_and_minus_one_in_the_baseline(factor):
    errors = by_severity()
    scaled = {name: tuple(factor * value for value in values) for name, values in errors.items()}
    assert mean_corruption_error(scaled) == pytest.approx(factor * mean_corruption_error(errors))
    if factor > 1e-6:
        baseline = {name: factor * value for name, value in ALEXNET.items()}
        assert mean_corruption_error(errors, baseline) == pytest.approx(mean_corruption_error(errors) / factor)


def test_sums_over_severities_are_divided_not_the_errors_of_each():
    # CE = (0.1 + … + 0.5) / (0.2 + 0.2 + 0.2 + 0.2 + 1.0) = 1.5 / 1.8; a mean of ratios would be 1.1
    errors, baseline = {"fog": (0.1, 0.2, 0.3, 0.4, 0.5)}, {"fog": (0.2, 0.2, 0.2, 0.2, 1.0)}
    assert corruption_errors(errors, baseline, ("fog",)) == {"fog": pytest.approx(1.5 / 1.8)}


def test_relative_mce_by_hand():
    errors, baseline = {"fog": 0.5, "snow": (0.2, 0.3, 0.4, 0.5, 0.6)}, {"fog": 0.7, "snow": 0.9}
    expected = ((0.5 - 0.1) / (0.7 - 0.3) + (0.4 - 0.1) / (0.9 - 0.3)) / 2
    assert relative_mean_corruption_error(errors, 0.1, baseline, 0.3, FEW) == pytest.approx(expected)
    # errors that corruption does not change at all
    assert relative_mean_corruption_error(dict.fromkeys(FEW, 0.1), 0.1, baseline, 0.3, FEW) == pytest.approx(0.0)


@pytest.mark.parametrize("baseline", [ALEXNET, None, by_severity()])
def test_outcomes_and_their_errors_give_the_same_mce(baseline):
    right = outcomes()
    expected = mean_corruption_error(errors_by_severity(right), baseline)
    assert mce_shares(right, baseline).mean() == pytest.approx(expected)
    measured = measured_mce(right, seed=0, baseline=baseline, resamples=50)
    assert measured.value == pytest.approx(expected)
    assert measured.n == 40
    assert measured.interval.low < expected < measured.interval.high
    assert (measured.unit == "fraction") == (baseline is None)


def test_the_measured_relative_mce_is_the_one_of_the_errors():
    right, clean = outcomes(), np.random.default_rng(5).random(40) < 0.8
    expected = relative_mean_corruption_error(errors_by_severity(right), clean=1 - clean.mean())
    measured = measured_relative_mce(right, clean, seed=0, resamples=50)
    assert measured.value == pytest.approx(expected)
    assert measured.interval.low < expected < measured.interval.high


def test_the_interval_covers_where_an_image_s_versions_err_together():
    """Each image has its own difficulty, so its 75 versions are one draw rather than 75."""
    n, truth, covered, naive = 60, 0.5, 0, 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        difficulty = random.random(n)
        right = {name: random.random((5, n)) > difficulty for name in CORRUPTIONS}
        measured = measured_mce(right, seed, baseline=None, resamples=200)
        covered += measured.interval.low <= truth <= measured.interval.high
        alone = metrics.proportion(round(measured.value * 75 * n), 75 * n).interval
        naive += alone.low <= truth <= alone.high
    assert 0.88 <= covered / 150 <= 0.99
    assert naive / 150 < 0.5


def test_where_all_images_behave_alike_the_interval_still_has_a_width():
    n = 30
    right, wrong = ({name: np.full((5, n), value) for name in CORRUPTIONS} for value in (True, False))
    none = measured_mce(right, seed=0, baseline=None)
    every = measured_mce(wrong, seed=0, baseline=None)
    bound = metrics.clopper_pearson(0, n).high
    assert (none.value, none.interval.low, none.interval.high) == (0.0, 0.0, pytest.approx(bound))
    assert (every.value, every.interval.low) == (1.0, pytest.approx(1 - bound))
    assert every.interval.high == pytest.approx(1.0)
    ends = measured_mce(wrong, seed=0).interval
    assert ends.low < ends.high == pytest.approx(np.mean([1 / value for value in ALEXNET.values()]))


def test_two_classifiers_are_compared_image_by_image():
    ours, theirs = outcomes(200, seed=1), outcomes(200, seed=2)
    theirs = {name: np.where(np.arange(200) < 180, ours[name], theirs[name]) for name in CORRUPTIONS}
    gap = metrics.mean(mce_shares(theirs) - mce_shares(ours), "fraction of the baseline", seed=0)
    apart = measured_mce(theirs, seed=0).value - measured_mce(ours, seed=0).value
    assert gap.value == pytest.approx(apart)
    width = measured_mce(ours, seed=0).interval.high - measured_mce(ours, seed=0).interval.low
    assert gap.interval.high - gap.interval.low < width


def test_no_images_are_not_measured():
    assert measured_mce(outcomes(0), seed=0).value is None


def without(errors, *names):
    return {name: value for name, value in errors.items() if name not in names}


FAULTS = {
    "missing corruptions": (
        lambda: mean_corruption_error(without(ALEXNET, "fog", "frost")),
        "lack 2 of 15.*frost, fog",
    ),
    "missing outcomes": (lambda: mce_shares(without(outcomes(), "snow")), "the outcomes lack 1 of 15.*snow"),
    "missing baseline": (
        lambda: mean_corruption_error(ALEXNET, without(ALEXNET, "snow")),
        "the baseline's errors lack 1 of 15.*snow",
    ),
    "four severities": (
        lambda: mean_corruption_error({**ALEXNET, "fog": (0.1,) * 4}),
        "fog.*\\(4,\\).*severity 1 to 5",
    ),
    "outcomes of three severities": (
        lambda: measured_mce({**outcomes(), "fog": np.ones((3, 40), dtype=bool)}, seed=0),
        "fog have the shape \\(3, 40\\)",
    ),
    "other images": (
        lambda: measured_mce({**outcomes(), "fog": np.ones((5, 39), dtype=bool)}, seed=0),
        "same images.*39, 40",
    ),
    "other clean images": (
        lambda: measured_relative_mce(outcomes(), np.ones(39, dtype=bool), seed=0),
        "39 clean outcomes but 40",
    ),
    "percents": (lambda: mean_corruption_error({**ALEXNET, "fog": 53.1}), "fog is 53.1.*divide percents by 100"),
    "a clean percent": (lambda: relative_mean_corruption_error(ALEXNET, clean=20.0), "clean images.*divide"),
    "not a number": (lambda: mean_corruption_error({**ALEXNET, "fog": float("nan")}), "fog is nan"),
    "a baseline without errors": (lambda: mean_corruption_error(ALEXNET, {**ALEXNET, "fog": 0.0}), "fog adds 0 to"),
    "a baseline that corruption helps": (
        lambda: relative_mean_corruption_error(ALEXNET, 0.2, ALEXNET, 0.6),
        "brightness adds -0.03",
    ),
    "no corruptions": (lambda: mean_corruption_error(ALEXNET, corruptions=()), "no corruptions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_say_what_is_wrong(fault):
    call, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_corruption_of_one_s_own_counts_where_it_is_named():
    assert mean_corruption_error({"rain": 0.3}, {"rain": 0.6}, ("rain",)) == pytest.approx(0.5)
    # what is given beside the fifteen does not count
    assert mean_corruption_error({**ALEXNET, "saturate": 0.9}) == 1.0


def test_the_corruption_error_needs_no_torch():
    code = "import sys, isthmus.metrics.corruption_intervals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_mean_error_of_any_severities_is_that_of_an_mce_without_a_baseline():
    random = np.random.default_rng(0)
    right = {name: random.random((5, 50)) < 0.7 for name in ("fog", "snow")}
    whole = metrics.measured_mce(right, 3, baseline=None, corruptions=("fog", "snow"))
    assert metrics.measured_error(right, 3) == whole
    some = {name: rows[[0, 4]] for name, rows in right.items()}
    clean = random.random(50) < 0.9
    error, added = metrics.measured_error(some, 3), metrics.measured_error(some, 3, clean)
    assert error.value == pytest.approx(1 - np.mean(list(some.values())))
    assert added.value == pytest.approx(error.value - (1 - clean.mean()))
    assert -1 <= added.interval.low < added.value < added.interval.high <= 1


def test_the_added_error_is_paired_and_has_an_interval_where_nothing_varies():
    right = {"fog": np.random.default_rng(0).random((1, 400)) < 0.5}
    same = metrics.measured_error(right, 0, right["fog"][0])
    assert same.value == 0
    assert same.interval.low == pytest.approx(-same.interval.high)
    assert 0 < same.interval.high < 0.02
    with pytest.raises(ValueError, match="3 clean outcomes but 400"):
        metrics.measured_error(right, 0, [True] * 3)
    with pytest.raises(ValueError, match="severities × images"):
        metrics.measured_error({"fog": right["fog"], "snow": right["fog"][:, :3]}, 0)
