"""The one knob ρ: identity 12."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.core.tradeoff import Rho

rhos = st.floats(-20, 20)


@given(rhos)
def test_round_trips(rho):
    """Identity 12."""
    knob = Rho(rho)
    assert Rho.from_rate_weight(knob.rate_weight).value == pytest.approx(rho, abs=1e-6)
    assert Rho.from_residual_weight(knob.residual_weight).value == pytest.approx(rho, abs=1e-9)
    assert Rho.from_relevance_weight(knob.relevance_weight).value == pytest.approx(rho, abs=1e-6)


@given(rhos)
def test_the_weights_are_one_number(rho):
    knob = Rho(rho)
    assert knob.rate_weight * knob.relevance_weight == pytest.approx(1.0)
    assert knob.residual_weight * (knob.relevance_weight - 1.0) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("weight", "rho"), [(0.1, 2.197), (1e-2, 4.595), (1e-3, 6.907)])
def test_published_pairs(weight, rho):
    assert Rho.from_rate_weight(weight).value == pytest.approx(rho, abs=5e-4)


def test_rho_zero_is_vib_half_and_ceb_one():
    assert Rho(0.0).rate_weight == 0.5
    assert Rho(0.0).residual_weight == 1.0


@pytest.mark.parametrize("rho", [100.0, math.inf])
def test_negligible_weights_are_zero(rho):
    """e^-100 is a float32 denormal; 0 times an overflowing rate would be NaN."""
    assert Rho(rho).rate_weight == 0.0
    assert Rho(rho).residual_weight == 0.0


@pytest.mark.parametrize("rho", [-1e6, -math.inf])
def test_very_negative_rho_stays_finite(rho):
    assert Rho(rho).rate_weight == 1.0
    assert math.isfinite(Rho(rho).residual_weight)


@pytest.mark.parametrize(
    ("constructor", "weight"),
    [
        ("from_rate_weight", 0.0),
        ("from_rate_weight", 1.0),
        ("from_residual_weight", 0.0),
        ("from_relevance_weight", 1.0),
    ],
)
def test_impossible_weights_are_refused(constructor, weight):
    with pytest.raises(ValueError, match="must"):
        getattr(Rho, constructor)(weight)
