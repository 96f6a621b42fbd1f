"""The printed numbers of the CEB papers agree with one another: what one row of a table prints follows from others."""

import numpy as np
import pytest

from isthmus.metrics import CORRUPTIONS, mean_corruption_error
from isthmus.studies.paper_values import paper_value, paper_values

VARIANTS = {"wide": "wide", "autoaugment": "AutoAugment", "plain": "plain"}
OBJECTIVES = {"chosen": "CEB", "determ": "deterministic"}
MODELS = pytest.mark.parametrize(
    ("depth", "variant", "objective"), [(d, v, o) for d in (50, 152) for v in VARIANTS for o in OBJECTIVES]
)


def summary(depth, variant, objective):
    found = paper_values("ceb", f"imagenet-{depth}", variant=variant, objective=objective)
    return {each.metric: each.value for each in found}


def corruptions(depth, variant, objective):
    head = f"{VARIANTS[variant]} {OBJECTIVES[objective]}"
    found = paper_values("ceb", f"imagenet-{depth}-corruptions")
    return {each.coords["corruption"]: each.value for each in found if each.metric == head}


@MODELS
def test_mce_and_average_follow_from_the_rows_of_the_corruptions(depth, variant, objective):
    errors, total = corruptions(depth, variant, objective), summary(depth, variant, objective)
    assert tuple(errors) == CORRUPTIONS
    assert mean_corruption_error(errors) == pytest.approx(total["mCE"], abs=0.001)
    assert mean_corruption_error(errors, baseline=None) == pytest.approx(
        total["average error under corruptions"], abs=0.001
    )


@MODELS
def test_errors_are_fractions_to_a_tenth_of_a_percent(depth, variant, objective):
    values = np.array([*summary(depth, variant, objective).values(), *corruptions(depth, variant, objective).values()])
    assert len(values) == 6 + 15
    assert ((values > 0.1) & (values < 1)).all()
    np.testing.assert_array_equal(values, values.round(3))


@pytest.mark.parametrize("depth", [50, 152])
@pytest.mark.parametrize("variant", VARIANTS)
def test_ceb_beats_its_baseline_in_every_number_as_the_paper_claims(depth, variant):
    ours, baseline = (summary(depth, variant, objective) for objective in OBJECTIVES)
    assert all(ours[name] < baseline[name] for name in ours)


def test_what_the_text_claims_of_the_tables_is_in_them():
    pgd = [each.value for each in paper_values("ceb", "imagenet-50") if "PGD" in each.metric]
    assert len(pgd) == 12
    assert all(1 - value < 0.01 for value in pgd)
    narrow, wide = (summary(152, variant, "determ") for variant in ("autoaugment", "wide"))
    assert narrow["mCE"] < wide["mCE"]
    assert narrow["clean error"] == wide["clean error"]
    wide, plain, augmented = (
        summary(152, variant, "chosen")["error under PGD in ℓ∞"] for variant in ("wide", "plain", "autoaugment")
    )
    assert wide < plain < augmented
    low, high = (each.value for each in paper_values("ceb", "imagenet-152-pgd"))
    assert 187 < high / low < 191  # printed "187 times", from numbers before rounding
    assert [each.value for each in paper_values("ceb", "imagenet-50-rho")] == [2, 5, 6]


def test_the_gap_to_the_new_cifar_test_set_is_the_printed_one():
    ceb_0 = {each.metric: each.value for each in paper_values("ceb", "cifar-62x7", objective="ceb", rho=0.0)}
    assert ceb_0["clean"] - ceb_0["cifar10_1:v6"] == pytest.approx(0.039, abs=0.0005)
    assert paper_value("ceb", "cifar-62x7-mce", "mCE", rho=0.0) < paper_value("ceb", "cifar-62x7-mce", "mCE", rho=5.0)


def test_the_deterministic_network_lies_within_the_printed_range_and_madrys_two_numbers_stay_apart():
    low, high = (paper_value("ceb", "cifar-28x10-range", name) for name in ("least clean", "greatest clean"))
    assert low <= paper_value("ceb", "cifar-28x10", "clean", objective="determ") <= high
    madry = [paper_value("ceb", "cifar-28x10", f"PGD {norm}", objective="determ_pgd") for norm in ("ℓ∞", "ℓ2")]
    assert madry == [0.458, 0.457]
