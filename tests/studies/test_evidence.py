"""Estimates and verdicts: against Wilson, against simulated coverage, and that verdicts can be negative."""

import numpy as np
import pytest

from isthmus.core.types import Interval, Metric
from isthmus.metrics import wilson
from isthmus.studies.claims import Claim, Comparison, judge
from isthmus.studies.estimates import Estimate, points
from isthmus.studies.measured import fraction
from isthmus.studies.quantities import estimate, select
from isthmus.studies.rows import Rows
from isthmus.studies.verdicts import Verdict, all_of, any_of, bonferroni, exceeds, falls_below

N = 300
X = select("x")
GAP = select("a") - select("b")


def counted(n=N, **counts):
    """Fractions of n images: name -> one count for each seed."""
    return [fraction(name, count, n, seed=seed) for name, column in counts.items() for seed, count in enumerate(column)]


def share(counts, n=N, level=0.95):
    return estimate(X, Rows(counted(n, x=counts)), level)


def average(values, unit="nats"):
    """A mean over seeds of a number without an interval over images."""
    return estimate(
        X, Rows(Metric(name="x", value=v, unit=unit, n=1, coords={"seed": s}) for s, v in enumerate(values))
    )


def bootstrapped(measured):
    """A mean over seeds of a measure in [0, 1] with an interval over images for each seed."""
    return estimate(
        X,
        Rows(
            Metric(
                name="x",
                value=value,
                unit="fraction",
                n=N,
                interval=Interval(low=low, high=high, method="bootstrap"),
                coords={"seed": seed},
            )
            for seed, (value, low, high) in enumerate(measured)
        ),
    )


def test_one_seed_has_wilsons_interval():
    one = share([30], 200)
    assert (one.low, one.high) == pytest.approx((wilson(30, 200).low, wilson(30, 200).high))
    assert "1 seed alone" in one.metric.interval.method


def test_seeds_that_agree_add_nothing_and_seeds_that_do_not_widen():
    alone, agreeing, apart = share([30], 200), share([30, 30, 30], 200), share([20, 30, 40], 200)
    assert (agreeing.low, agreeing.high) == pytest.approx((alone.low, alone.high))
    assert apart.value == pytest.approx(agreeing.value)
    assert apart.low < agreeing.low < agreeing.high < apart.high


def _counts(generator, seeds, truth=0.4, scatter=0.05):
    """Counts of correct images: models differ in skill, and an image is correct if the skill exceeds its difficulty."""
    hard = generator.random(N)
    skills = np.clip(truth + scatter * generator.standard_normal(seeds), 0, 1)
    return [int((hard < skill).sum()) for skill in skills]


def _of_share(generator, seeds, scatter):
    return share(_counts(generator, seeds, scatter=scatter)), 0.4


def _of_gap(generator, seeds, scatter):
    a, b = (_counts(generator, seeds, truth, scatter) for truth in (0.5, 0.4))
    return estimate(GAP, Rows(counted(a=a, b=b))), 0.1


def _of_four_terms(generator, seeds, scatter):
    a, b, c, d = (_counts(generator, seeds, truth, scatter) for truth in (0.9, 0.6, 0.8, 0.65))
    return estimate(GAP - (select("c") - select("d")), Rows(counted(a=a, b=b, c=c, d=d))), 0.15


def _of_bootstrap(generator, seeds, scatter):
    """Means of a measure on the same images, with the interval of each seed's images."""
    images = 0.2 * generator.standard_normal(N)
    values = 0.5 + scatter * generator.standard_normal(seeds) + images.mean()
    reach = 1.96 * images.std() / N**0.5
    return bootstrapped([(value, value - reach, value + reach) for value in values]), 0.5


def _of_average(generator, seeds, scatter):
    return average(list(1 + (scatter + 0.01) * generator.standard_normal(seeds))), 1.0


def _of_slope(generator, seeds, scatter):
    rows, hard = [], generator.random(N)
    for seed in range(seeds):
        slope = 0.05 + scatter / 4 * generator.standard_normal()
        rows += [fraction("x", int((hard < 0.4 + slope * place).sum()), N, seed=seed, rho=place) for place in range(4)]
    return estimate(X.slope("rho"), Rows(rows)), 0.05


MAKERS = (_of_share, _of_gap, _of_four_terms, _of_bootstrap, _of_average, _of_slope)


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


def test_a_claim_of_several_parts_at_the_truth_is_rarely_decided_either():
    """One failed part contradicts a claim of six, so that the parts share the error; 95% each would not do."""
    generator, trials, names = np.random.default_rng(7), 200, "abcdef"
    parts = [Comparison(left=select(name), right=0.4) for name in names]
    claim = Claim("All six exceed 40%.", left=parts[0].left, right=0.4, also=tuple(parts[1:]))
    together = uncorrected = 0
    for _ in range(trials):
        rows = Rows(counted(**{name: _counts(generator, 3) for name in names}))
        together += judge(claim, rows).verdict is not Verdict.UNDECIDED
        uncorrected += all_of([exceeds(estimate(select(n), rows), 0.4) for n in names]) is not Verdict.UNDECIDED
    assert together / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    assert together < uncorrected


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seeds", [1, 2])
def test_two_seeds_decide_nothing_about_training(make, seeds):
    found, _ = make(np.random.default_rng(0), seeds, 0.05)
    assert exceeds(found, -9.0) is falls_below(found, 9.0) is Verdict.UNDECIDED


@pytest.mark.parametrize("seeds", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 117, N])
def test_no_interval_is_narrower_than_that_over_images(seeds, count):
    """Seeds that agree leave Wilson's interval, which has a width even if all or none are correct."""
    counts, alone, other = [count] * seeds, wilson(count, N), wilson(100, N)
    made = Rows(counted(a=counts, b=[100] * seeds, c=[50] * seeds))
    for found in (
        share(counts),
        estimate(GAP, made),
        estimate(GAP + select("c"), made),
        bootstrapped([(count / N, alone.low, alone.high)] * seeds),
    ):
        assert found.high - found.low >= min(alone.high - alone.low, other.high - other.low) - 1e-12
    flat = bootstrapped([(0.7, 0.7, 0.7)] * seeds)  # resamples that are all alike
    assert flat.low < 0.7 < flat.high


def test_quantities_without_images_that_agree_have_no_interval_and_decide_nothing():
    same = average([0.5] * 4)
    assert exceeds(same, 0.1) is falls_below(same, 0.9) is Verdict.UNDECIDED
    assert same.metric.interval is None
    assert str(same) == "0.500 nats (4 seeds)"
    assert average([0.5, 0.51]).metric.interval is None


def test_estimates_print_n_and_what_their_interval_covers():
    assert str(share([30, 32], 200)).endswith("over images alone 11.1 to 21.2%, n = 200, 2 seeds)")
    assert "over" not in str(share([30, 32, 31], 200))
    assert str(average([1.0, 1.1, 1.2])).endswith("over seeds alone 0.852 to 1.348 nats, 3 seeds)")
    both = estimate(GAP, Rows([*counted(200, a=[150] * 3), *counted(150, b=[100] * 3)]))
    assert both.n == 150
    assert both.value == pytest.approx(0.75 - 2 / 3)


def test_a_slope_needs_a_seed_at_two_places_and_is_the_mean_of_the_seeds_slopes():
    def slope(places):
        rows = (fraction("x", count, 10, seed=seed, rho=place) for seed, place, count in places)
        return estimate(X.slope("rho"), Rows(rows))

    assert slope([(0, 0.0, 1), (0, 2.0, 5), (1, 0.0, 3), (1, 1.0, 4)]).value == pytest.approx(0.15)
    assert slope([(0, 1.0, 1), (1, 2.0, 1)]) is None


def test_verdicts_can_be_of_each_kind():
    high, low, wide = share([190, 191, 192], 200), share([20, 21, 22], 200), share([40, 100, 160], 200)
    kinds = [Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED]
    assert [exceeds(one, 0.5) for one in (high, low, wide)] == kinds
    assert [falls_below(one, 0.5) for one in (low, high, wide)] == kinds


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


def test_estimates_as_text():
    assert str(share([30], 200)) == "15.0% (95% interval over images alone 10.7 to 20.6%, n = 200, 1 seed)"
    assert "points" in str(estimate(GAP, Rows(counted(200, a=[30, 31], b=[20, 25]))))
    assert points(-0.004) == "−0.40 points"


def test_a_single_seed_has_no_interval_without_width():
    assert str(average([0.03], unit="points")) == "3.0 points (1 seed)"
    assert "interval" in str(average([0.03, 0.05, 0.04], unit="points"))
