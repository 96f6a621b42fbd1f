"""Quantities and claims on made-up rows: intervals of both kinds of chance, pairing, and each relation."""

import math

import numpy as np
import pytest

from isthmus.core.types import Interval, Metric
from isthmus.metrics import wilson
from isthmus.studies.claims import Claim, Comparison, OtherClaim, judge, judge_all
from isthmus.studies.measured import Measured, fraction, measured
from isthmus.studies.quantities import estimate, select
from isthmus.studies.rows import Rows
from isthmus.studies.verdicts import Verdict

N = 10_000
ACCURACY = select("accuracy")


def rows(numbers, seeds=3, n=N):
    """Accuracies from (model, rho) -> value; seeds differ by a thousandth."""
    return Rows(
        fraction("accuracy", round((value + 0.001 * seed) * n), n, model=model, rho=rho, seed=seed)
        for (model, rho), value in numbers.items()
        for seed in range(seeds)
    )


TWO = {("B", 0): 0.8, ("A", 0): 0.7, ("B", 1): 0.7, ("A", 1): 0.65}


def better(**options):
    return Claim("B is better.", left=ACCURACY.at(model="B"), right=ACCURACY.at(model="A"), over=("rho",), **options)


def test_a_claim_holds_at_each_place_or_at_one():
    assert judge(better(), rows(TWO)).verdict is Verdict.SUPPORTED
    mixed = rows(TWO | {("A", 1): 0.9})
    assert judge(better(), mixed).verdict is Verdict.CONTRADICTED
    assert judge(better(every="any"), mixed).verdict is Verdict.SUPPORTED
    assert judge(better(margin=0.07), rows(TWO)).verdict is Verdict.CONTRADICTED


def test_the_reason_has_the_numbers_and_the_limit():
    reason = judge(better(margin=0.02), rows(TWO)).reason
    assert "10.0 points (97.5% interval" in reason
    assert "n = 10,000, 3 seeds" in reason
    assert "above 2.0 points" in reason


def test_fewer_than_three_seeds_decide_nothing_about_training():
    two = rows(TWO, seeds=2)
    assert judge(better(), two).verdict is Verdict.UNDECIDED
    found = judge_all([better(of_models=True)], two)
    assert [each.verdict for each in found] == [Verdict.UNDECIDED, Verdict.SUPPORTED]


def test_a_comparison_is_made_only_where_another_one_is_supported():
    mixed = rows(TWO | {("A", 1): 0.9})
    accurate = Comparison(left=ACCURACY.at(model="B"), right=0.75)
    assert judge(better(where=accurate), mixed).verdict is Verdict.SUPPORTED
    nowhere = Comparison(left=ACCURACY.at(model="B"), right=0.85)
    assert judge(better(where=nowhere), mixed).verdict is Verdict.UNDECIDED


def test_a_mean_over_seeds_goes_with_each_single_seed():
    lead = ACCURACY.at(model="B", rho=0) - ACCURACY.at(model="A", rho=0).mean_over_seeds()
    found = estimate(lead.at(seed=2), rows(TWO))
    assert found.value == pytest.approx(0.802 - 0.701)


def test_what_was_not_measured_decides_nothing_or_is_left_out():
    nothing = rows({("B", 0): 0.8})
    assert judge(better(), nothing).verdict is Verdict.UNDECIDED
    assert judge_all([better(optional=True)], nothing) == []


def test_seeds_are_paired():
    """Seeds that differ widely, but alike for both models: the difference is known well."""
    numbers = [(model, seed, base + 0.1 * seed) for model, base in (("B", 0.52), ("A", 0.5)) for seed in range(3)]
    made = Rows(Metric(name="x", value=v, unit="bits", n=1, coords={"model": m, "seed": s}) for m, s, v in numbers)
    found = estimate(select("x", model="B") - select("x", model="A"), made)
    assert found.value == pytest.approx(0.02)
    assert found.high - found.low < 1e-9
    alone = estimate(select("x", model="B"), made)
    assert alone.high - alone.low > 0.2


def test_the_choice_of_images_adds_to_that_of_seeds():
    one = rows({("A", 0): 0.8}, seeds=1)
    found, alone = estimate(ACCURACY, one), wilson(8000, N)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    spread = estimate(ACCURACY, rows({("A", 0): 0.8}))
    t = 4.302653 * 0.001 / math.sqrt(3)
    assert spread.high - spread.value == pytest.approx(math.hypot(wilson(8010, N).high - 0.801, t), rel=1e-3)


def test_outcomes_of_the_same_images_narrow_a_difference():
    """Two models that err on the same images: Newcombe's interval for paired proportions."""
    right = np.arange(1000) < 800
    better_ = np.arange(1000) < 820

    def made(images):
        found = [
            measured(
                [fraction("accuracy", int(bits.sum()), 1000)], {"model": m, "seed": 0}, {"accuracy": bits}, images_
            )
            for m, bits, images_ in (("B", better_, "x"), ("A", right, images))
        ]
        read = [Measured.from_plain(each) for each in found]
        kept = {key: value for each in read for key, value in each.outcomes_by_metric().items()}
        return Rows([each.metrics[0] for each in read], kept)

    lead = ACCURACY.at(model="B") - ACCURACY.at(model="A")
    paired, apart = (estimate(lead, made(images)) for images in ("x", "other images"))
    assert paired.value == apart.value == pytest.approx(0.02)
    assert paired.low > 0 > apart.low
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_a_course_is_reduced():
    made = Rows(
        Metric(name="x", value=value + seed, unit="bits", n=1, coords={"epoch": epoch, "seed": seed})
        for seed in range(3)
        for epoch, value in enumerate((1.0, 4.0, 2.0))
    )
    x = select("x")
    values = [x.max("epoch"), x.min("epoch"), x.first("epoch"), x.last("epoch"), x.mean("epoch"), x.slope("epoch")]
    assert [estimate(each, made).value for each in values] == pytest.approx([5.0, 2.0, 2.0, 3.0, 10 / 3, 0.5])
    rise = estimate(x.last("epoch") - x.first("epoch"), made)
    assert (rise.value, rise.high - rise.low) == pytest.approx((1.0, 0.0))
    with pytest.raises(ValueError, match="several rows"):
        estimate(x, made)


def test_the_number_of_seeds_is_that_of_both_sides():
    made = Rows([*rows({("B", 0): 0.8}).all, *rows({("A", 0): 0.7}, seeds=2).all])
    assert estimate(ACCURACY.at(model="B") - ACCURACY.at(model="A"), made).seeds == 2


def test_a_mean_over_seeds_goes_with_every_model():
    made = rows({("B", 0): 0.8, ("A", 0): 0.7})
    some = Claim(
        "Some B is better than A.",
        left=ACCURACY.at(model="B"),
        right=ACCURACY.at(model="A").mean_over_seeds(),
        over=("rho",),
        least_seeds=1,
    )
    assert judge(some, made).verdict is Verdict.SUPPORTED


def test_within_refuted_by_and_requires():
    made = rows({("A", 0): 0.7, ("B", 0): 0.705})
    near = Claim("Alike.", left=ACCURACY.at(model="A"), op="within", right=ACCURACY.at(model="B"), margin=0.05)
    assert judge(near, made).verdict is Verdict.SUPPORTED
    small = Claim("Small.", left=ACCURACY.at(model="A"), op="<", right=0.5)
    assert judge(small, made).verdict is Verdict.CONTRADICTED
    open_ = Claim("Small.", left=small.left, op="<", right=0.5, refuted_by=Comparison(left=small.left, right=0.9))
    assert judge(open_, made).verdict is Verdict.UNDECIDED
    weak = Claim("Large.", left=small.left, right=0.5, requires=(Comparison(left=small.left, right=0.8),))
    assert judge(weak, made).verdict is Verdict.UNDECIDED


def test_all_parts_must_hold_and_share_the_error():
    made = rows({("A", 0): 0.7, ("B", 0): 0.8})
    parts = Claim(
        "Both.",
        left=ACCURACY.at(model="A"),
        right=0.6,
        also=(Comparison(left=ACCURACY.at(model="B"), right=0.9),),
    )
    found = judge(parts, made)
    assert found.verdict is Verdict.CONTRADICTED
    assert "97.5% interval" in found.reason


def test_a_plain_function_is_the_last_resort():
    (found,) = judge_all([OtherClaim("Printed.", lambda _: (Verdict.CONTRADICTED, "Impossible."))], Rows([]))
    assert (found.verdict, found.reason) == (Verdict.CONTRADICTED, "Impossible.")


def test_rows_come_back_from_a_file():
    made = [
        *(fraction("accuracy", count, 10, eps=eps) for eps, count in ((0.1, 3), (0.2, 0))),
        Metric(name="steps", value=None, unit="steps", n=0, note="none reached"),
        Metric(name="x", value=1.5, unit="bits", n=4, interval=Interval(low=1.0, high=2.0, method="bootstrap")),
    ]
    plain = measured(made, {"model": "A", "seed": 0}, details={"k": [1]}, collapsed=True)
    read = Measured.from_plain(plain)
    assert list(read.metrics) == [each.named(each.name, model="A", seed=0, **each.coords) for each in made]
    assert read.plain() == plain
    assert read.collapsed
