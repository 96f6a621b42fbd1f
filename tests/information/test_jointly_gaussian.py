"""Jointly Gaussian variables: information against determinants, the bottleneck against its own optimality."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from isthmus.information.jointly_gaussian import canonical_correlations, gaussian_bottleneck, gaussian_information


def covariance(seed, size):
    root = np.random.default_rng(seed).standard_normal((size, size + 2))
    return root @ root.T


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))
def test_information_is_that_of_the_determinants(seed, first, second):
    """I(U;V) = ½ ln det Σ_U det Σ_V / det Σ."""
    whole = covariance(seed, first + second)
    parts = [np.linalg.slogdet(m)[1] for m in (whole[:first, :first], whole[first:, first:], whole)]
    found = gaussian_information(canonical_correlations(whole, first))
    assert found == pytest.approx(0.5 * (parts[0] + parts[1] - parts[2]), abs=1e-8)


@given(st.integers(0, 10_000))
def test_linear_maps_of_either_side_change_nothing(seed):
    whole, maps = covariance(seed, 5), np.random.default_rng(seed + 1).standard_normal((5, 5))
    maps[:2, 2:] = maps[2:, :2] = 0.0
    moved = maps @ whole @ maps.T
    np.testing.assert_allclose(
        canonical_correlations((moved + moved.T) / 2, 2), canonical_correlations(whole, 2), atol=1e-5
    )


@pytest.mark.parametrize(("correlation", "rho"), [(0.9, 3.0), (0.9, 0.0), (0.5, 2.0), (0.3, 1.0)])
def test_the_bottleneck_is_the_best_of_all_noisy_linear_codes(correlation, rho):
    """z = s·x + noise: minimise I(X;Z) − (1 + e^ρ)·I(Y;Z) over s numerically."""

    def both(s):
        power = s * s
        return 0.5 * math.log1p(power), 0.5 * math.log((1 + power) / (1 + power * (1 - correlation**2)))

    def loss(s):
        x, y = both(float(s[0]))
        return x - (1 + math.exp(rho)) * y

    x, y = both(float(minimize(loss, [3.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).x[0]))
    exact = gaussian_bottleneck([correlation], rho)
    assert (exact.i_xz, exact.i_yz) == pytest.approx((x, y), abs=1e-5)
    assert exact.i_xz_given_y == pytest.approx(x - y, abs=1e-5)


def test_too_tight_a_bottleneck_says_nothing_and_a_loose_one_everything():
    assert gaussian_bottleneck([0.5], math.log(1 / 0.25 - 1) - 1e-6).i_xz == 0.0
    assert gaussian_bottleneck([0.5, 0.2], 25.0).i_yz == pytest.approx(gaussian_information([0.5, 0.2]), abs=1e-9)


def test_a_certain_pair_has_no_finite_information():
    assert gaussian_information([1.0, 0.5]) == math.inf
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        gaussian_bottleneck([1.0], 1.0)


@pytest.mark.parametrize("matrix", [np.ones((2, 3)), np.array([[1.0, 2.0], [0.0, 1.0]]), -np.eye(2)])
def test_no_covariance_is_said_so(matrix):
    with pytest.raises(ValueError, match="canonical correlations need"):
        canonical_correlations(matrix, 1)
