"""Estimates and verdicts: against Wilson, against simulated coverage, and that they can say no."""

import numpy as np
import pytest

from isthmus.metrics import wilson
from isthmus.studies.evidence import (
    Estimate,
    Verdict,
    all_of,
    any_of,
    average,
    bonferroni,
    difference,
    exceeds,
    falls_below,
    gap,
    points,
    share,
)


def test_one_seed_has_wilsons_interval():
    one = share([30], 200)
    assert (one.low, one.high) == (wilson(30, 200).low, wilson(30, 200).high)
    assert "one seed" in one.metric.interval.method


def test_seeds_that_agree_add_nothing_and_seeds_that_do_not_widen():
    alone, agreeing, apart = share([30], 200), share([30, 30, 30], 200), share([20, 30, 40], 200)
    assert (agreeing.low, agreeing.high) == (alone.low, alone.high)
    assert apart.value == agreeing.value
    assert apart.low < agreeing.low < agreeing.high < apart.high


def test_an_interval_covers_the_mean_over_all_seeds_and_images():
    """Models differ, and all are judged on the same images: the interval must hold the mean of the whole population."""
    generator = np.random.default_rng(0)
    n, seeds, truth, inside = 300, 4, 0.4, 0
    for _ in range(400):
        hard = generator.random(n)  # an image is right where the model's skill exceeds its difficulty
        skills = np.clip(truth + 0.05 * generator.standard_normal(seeds), 0, 1)
        found = share([int((hard < skill).sum()) for skill in skills], n)
        inside += found.low <= truth <= found.high
    assert inside / 400 > 0.93


def test_differences_of_the_same_models_by_seed_are_narrower_than_of_any_models():
    first, second = [150, 120, 180, 90], [140, 112, 169, 81]
    by_seed = gap(first, second, 200)
    apart = difference(share(first, 200), share(second, 200))
    assert by_seed.value == pytest.approx(apart.value) == pytest.approx(0.0475)
    assert apart.low < by_seed.low < by_seed.high < apart.high


def test_verdicts_can_say_yes_no_and_perhaps():
    high, low, wide = share([190, 192], 200), share([20, 22], 200), share([40, 160], 200)
    assert [exceeds(one, 0.5) for one in (high, low, wide)] == [Verdict.SEEN, Verdict.NOT_SEEN, Verdict.UNDECIDED]
    assert [falls_below(one, 0.5) for one in (high, low, wide)] == [Verdict.NOT_SEEN, Verdict.SEEN, Verdict.UNDECIDED]


def test_one_seed_decides_nothing_about_training_but_something_about_itself():
    one = share([1900], 2000)
    assert exceeds(one, 0.5) is falls_below(one, 0.5) is Verdict.UNDECIDED
    assert exceeds(one, 0.5, least_seeds=1) is Verdict.SEEN


def test_a_limit_that_is_just_reached_is_not_exceeded():
    nothing = Estimate(value=0.1, low=0.05, high=0.1, n=10, seeds=3)
    assert exceeds(nothing, 0.1) is Verdict.NOT_SEEN
    assert falls_below(nothing, 0.05) is Verdict.NOT_SEEN
    assert falls_below(nothing, 0.06) is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("parts", "every", "some"),
    [
        ([Verdict.SEEN, Verdict.SEEN], Verdict.SEEN, Verdict.SEEN),
        ([Verdict.SEEN, Verdict.UNDECIDED], Verdict.UNDECIDED, Verdict.SEEN),
        ([Verdict.UNDECIDED, Verdict.NOT_SEEN], Verdict.NOT_SEEN, Verdict.UNDECIDED),
        ([Verdict.NOT_SEEN], Verdict.NOT_SEEN, Verdict.NOT_SEEN),
        ([], Verdict.UNDECIDED, Verdict.UNDECIDED),
    ],
)
def test_claims_of_several_parts(parts, every, some):
    assert all_of(parts) is every
    assert any_of(parts) is some


def test_levels_of_several_intervals():
    assert bonferroni(1) == pytest.approx(0.95)
    assert bonferroni(5) == pytest.approx(0.99)
    assert share([50, 52], 100, bonferroni(5)).low < share([50, 52], 100).low


def test_estimates_speak():
    assert str(share([30], 200)) == "15.0% (95% interval 10.7 to 20.6%, n = 200, 1 seed)"
    assert "points" in str(gap([30, 31], [20, 25], 200))
    assert points(-0.004) == "−0.40 points"


@pytest.mark.parametrize(("counts", "n"), [([], 10), ([11], 10), ([-1], 10)])
def test_counts_that_cannot_be(counts, n):
    with pytest.raises(ValueError, match="one count between 0 and n = 10"):
        share(counts, n)


def test_unequal_seeds_cannot_be_paired():
    with pytest.raises(ValueError, match="as many counts on both sides; got 1 and 2"):
        gap([1], [1, 2], 10)


def test_a_single_seed_is_not_given_an_interval_without_width():
    assert str(average([0.03], unit="points")) == "3.0 points (1 seed)"
    assert "interval" in str(average([0.03, 0.05], unit="points"))
