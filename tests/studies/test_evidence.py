"""Estimates and verdicts: against Wilson, against simulated coverage, and that they can say no."""

import numpy as np
import pytest

from isthmus.metrics import wilson
from isthmus.studies.estimates import Estimate, average, difference, gap, points, pooled, share, signed_sum, trend
from isthmus.studies.verdicts import Verdict, all_of, any_of, bonferroni, exceeds, falls_below


def test_one_seed_has_wilsons_interval():
    one = share([30], 200)
    assert (one.low, one.high) == (wilson(30, 200).low, wilson(30, 200).high)
    assert "1 seed alone" in one.metric.interval.method


def test_seeds_that_agree_add_nothing_and_seeds_that_do_not_widen():
    alone, agreeing, apart = share([30], 200), share([30, 30, 30], 200), share([20, 30, 40], 200)
    assert (agreeing.low, agreeing.high) == (alone.low, alone.high)
    assert apart.value == agreeing.value
    assert apart.low < agreeing.low < agreeing.high < apart.high


N = 300


def _counts(generator, seeds, truth=0.4, scatter=0.05):
    """Counts of right images: models differ in skill, and an image is right if the skill exceeds its difficulty."""
    hard = generator.random(N)
    skills = np.clip(truth + scatter * generator.standard_normal(seeds), 0, 1)
    return [int((hard < skill).sum()) for skill in skills]


def _of_share(generator, seeds, scatter):
    return share(_counts(generator, seeds, scatter=scatter), N), 0.4


def _of_gap(generator, seeds, scatter):
    return gap(_counts(generator, seeds, 0.5, scatter), _counts(generator, seeds, 0.4, scatter), N), 0.1


def _of_difference(generator, seeds, scatter):
    first, second = (share(_counts(generator, seeds, truth, scatter), N) for truth in (0.9, 0.8))
    return difference(first, second), 0.1


def _of_signed_sum(generator, seeds, scatter):
    parts = [_counts(generator, seeds, truth, scatter) for truth in (0.9, 0.6, 0.8, 0.65)]
    return signed_sum([(sign, part, N) for sign, part in zip((1, -1, -1, 1), parts, strict=True)]), 0.15


def _of_pooled(generator, seeds, scatter):
    """Means of a measure on the same images, with the interval of each seed's images."""
    images = 0.2 * generator.standard_normal(N)
    values = 0.5 + scatter * generator.standard_normal(seeds) + images.mean()
    reach = 1.96 * images.std() / N**0.5
    return pooled([(value, value - reach, value + reach) for value in values], N), 0.5


def _of_average(generator, seeds, scatter):
    return average(list(1 + (scatter + 0.01) * generator.standard_normal(seeds))), 1.0


def _of_trend(generator, seeds, scatter):
    runs = []
    hard = generator.random(N)
    for seed in range(seeds):
        slope = 0.05 + scatter / 4 * generator.standard_normal()
        for x in range(4):
            right = (hard < 0.4 + slope * x).mean()
            found = wilson(round(right * N), N)
            runs.append((seed, float(x), (right, found.low, found.high)))
    return trend(runs, N), 0.05


MAKERS = (_of_share, _of_gap, _of_difference, _of_signed_sum, _of_pooled, _of_average, _of_trend)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seeds", [3, 6])
@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.1])
def test_a_limit_that_is_the_truth_is_rarely_decided(make, seeds, scatter):
    """Of the whole population of seeds and images: at most 5% of verdicts are firm and thus false, but for chance."""
    generator = np.random.default_rng([seeds, round(100 * scatter), MAKERS.index(make)])
    trials, firm = 300, 0
    for _ in range(trials):
        found, truth = make(generator, seeds, scatter)
        firm += exceeds(found, truth) is not Verdict.UNDECIDED
    assert firm / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


def test_of_a_claim_with_several_parts_a_limit_that_is_the_truth_is_rarely_decided_either():
    """One part that is not seen refutes a claim of six: each has a sixth of the error, since 95% each would not do."""
    generator, trials, parts = np.random.default_rng(7), 200, 6
    firm = {0.95: 0, bonferroni(parts): 0}
    for _ in range(trials):
        counts = [_counts(generator, 3) for _ in range(parts)]
        for level in firm:
            firm[level] += all_of([exceeds(share(each, N, level), 0.4) for each in counts]) is not Verdict.UNDECIDED
    assert firm[bonferroni(parts)] / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    assert firm[bonferroni(parts)] < firm[0.95]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seeds", [1, 2])
def test_two_seeds_decide_nothing_about_training(make, seeds):
    found, _ = make(np.random.default_rng(0), seeds, 0.05)
    assert exceeds(found, -9.0) is falls_below(found, 9.0) is Verdict.UNDECIDED


@pytest.mark.parametrize("seeds", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 117, N])
def test_no_interval_is_narrower_than_what_the_images_alone_give(seeds, count):
    """Seeds that agree leave Wilson's interval; not even where all or none are right is it without width."""
    counts, alone = [count] * seeds, wilson(count, N)
    other = wilson(100, N)
    for found in (
        share(counts, N),
        gap(counts, [100] * seeds, N),
        signed_sum([(1, counts, N), (-1, [100] * seeds, N), (1, [50] * seeds, N)]),
        difference(share(counts, N), share([100] * seeds, N)),
        pooled([(count / N, alone.low, alone.high)] * seeds, N),
    ):
        assert found.high - found.low >= min(alone.high - alone.low, other.high - other.low) - 1e-12
    flat = pooled([(0.7, 0.7, 0.7)] * seeds, N)  # a bootstrap whose resamples are all alike
    assert flat.low < 0.7 < flat.high


def test_quantities_without_images_that_agree_have_no_interval_and_decide_nothing():
    same = average([0.5] * 4)
    assert exceeds(same, 0.1) is falls_below(same, 0.9) is Verdict.UNDECIDED
    assert same.metric.interval is None
    assert str(same) == "0.500 nats (4 seeds)"
    assert average([0.5, 0.51]).metric.interval is None


def test_estimates_print_the_n_and_the_chance_that_their_interval_has():
    assert str(share([30, 32], 200)).endswith("over images alone 11.1 to 21.2%, n = 200, 2 seeds)")
    assert "over" not in str(share([30, 32, 31], 200))
    assert str(average([1.0, 1.1, 1.2])).endswith("over seeds alone 0.852 to 1.348 nats, 3 seeds)")
    both = signed_sum([(1, [150] * 3, 200), (-1, [100] * 3, 150)])
    assert both.n == 150
    assert both.value == pytest.approx(0.75 - 2 / 3)


def test_a_trend_needs_a_seed_at_two_places_and_is_the_mean_of_the_seeds_slopes():
    runs = [(0, 0.0, (0.1, 0.1, 0.1)), (0, 2.0, (0.5, 0.5, 0.5)), (1, 0.0, (0.3, 0.3, 0.3)), (1, 1.0, (0.4, 0.4, 0.4))]
    assert trend(runs, 10).value == pytest.approx(0.15)
    assert trend([(0, 1.0, (0.1, 0.0, 0.2)), (1, 2.0, (0.1, 0.0, 0.2))], 10) is None


def test_differences_of_the_same_models_by_seed_are_narrower_than_of_any_models():
    first, second = [150, 120, 180, 90], [140, 112, 169, 81]
    by_seed = gap(first, second, 200)
    apart = difference(share(first, 200), share(second, 200))
    assert by_seed.value == pytest.approx(apart.value) == pytest.approx(0.0475)
    assert apart.low < by_seed.low < by_seed.high < apart.high


def test_verdicts_can_say_yes_no_and_perhaps():
    high, low, wide = share([190, 191, 192], 200), share([20, 21, 22], 200), share([40, 100, 160], 200)
    assert [exceeds(one, 0.5) for one in (high, low, wide)] == [
        Verdict.SUPPORTED,
        Verdict.CONTRADICTED,
        Verdict.UNDECIDED,
    ]
    assert [falls_below(one, 0.5) for one in (high, low, wide)] == [
        Verdict.CONTRADICTED,
        Verdict.SUPPORTED,
        Verdict.UNDECIDED,
    ]


def test_one_seed_decides_nothing_about_training_but_something_about_itself():
    one = share([1900], 2000)
    assert exceeds(one, 0.5) is falls_below(one, 0.5) is Verdict.UNDECIDED
    assert exceeds(one, 0.5, least_seeds=1) is Verdict.SUPPORTED


def test_a_limit_that_is_just_reached_is_not_exceeded():
    nothing = Estimate(value=0.1, low=0.05, high=0.1, n=10, seeds=3)
    assert exceeds(nothing, 0.1) is Verdict.CONTRADICTED
    assert falls_below(nothing, 0.05) is Verdict.CONTRADICTED
    assert falls_below(nothing, 0.06) is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("parts", "every", "some"),
    [
        ([Verdict.SUPPORTED, Verdict.SUPPORTED], Verdict.SUPPORTED, Verdict.SUPPORTED),
        ([Verdict.SUPPORTED, Verdict.UNDECIDED], Verdict.UNDECIDED, Verdict.SUPPORTED),
        ([Verdict.UNDECIDED, Verdict.CONTRADICTED], Verdict.CONTRADICTED, Verdict.UNDECIDED),
        ([Verdict.CONTRADICTED], Verdict.CONTRADICTED, Verdict.CONTRADICTED),
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
    assert str(share([30], 200)) == "15.0% (95% interval over images alone 10.7 to 20.6%, n = 200, 1 seed)"
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
    assert "interval" in str(average([0.03, 0.05, 0.04], unit="points"))
