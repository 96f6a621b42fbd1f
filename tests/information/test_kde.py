"""The kernel density form of the nonlinear IB: the published formula, scikit-learn's densities, the fitted width."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

from isthmus.core.errors import DataError
from isthmus.information import pairwise
from isthmus.information.kde import fit_kernel_variance, kde_information, leave_one_out

SEEDS = st.integers(0, 10**6)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def published(x, noise, kernel):
    """Entropy of the estimate less that of the noise, both without the same d/2, from squared distances."""
    n, d = x.shape
    total = noise + kernel
    distance2 = ((x[:, None] - x) ** 2).sum(-1)
    log_p = logsumexp(-distance2 / (2 * total), axis=1) - math.log(n) - d / 2 * math.log(2 * math.pi * total)
    return -log_p.mean() - d / 2 * math.log(2 * math.pi * noise)


@given(SEEDS, st.integers(1, 20), st.integers(1, 5), st.floats(-10.0, 2.0), st.floats(-10.0, 2.0))
def test_against_the_published_form(seed, n, d, log_noise, log_kernel):
    x, noise, kernel = draw(n, d, seed=seed), math.exp(log_noise), math.exp(log_kernel)
    found = kde_information(x, noise, kernel).mean().item()
    assert found == pytest.approx(published(x.numpy(), noise, kernel), rel=1e-9, abs=1e-9)


@given(SEEDS, st.floats(0.05, 5.0), st.floats(0.0, 5.0))
def test_without_a_kernel_it_is_the_upper_bound_and_with_one_above_the_lower(seed, noise, kernel):
    x = draw(20, 2, seed=seed)
    torch.testing.assert_close(kde_information(x, noise, 0.0), pairwise.upper(x, noise))
    assert kde_information(x, noise, kernel).mean() >= pairwise.lower(x, noise).mean() - 1e-12


def test_one_point_costs_what_its_width_does():
    """Equal means: d/2·ln(1 + σ_k²/σ²)."""
    assert kde_information(torch.ones(30, 4), 0.5, 1.5).mean().item() == pytest.approx(2.0 * math.log(4.0))


def test_gradients_against_differences():
    x, noise = draw(6, 2).requires_grad_(), torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, v: kde_information(x, v, 0.2), (x, noise))
    assert torch.autograd.gradcheck(leave_one_out, (x, noise))


@pytest.mark.parametrize("variance", [0.01, 0.5, 30.0])
def test_left_out_density_against_scikit_learn(variance):
    x = draw(12, 3).numpy()
    expected = [
        KernelDensity(bandwidth=math.sqrt(variance)).fit(np.delete(x, i, 0)).score_samples(x[i : i + 1])[0]
        for i in range(12)
    ]
    np.testing.assert_allclose(leave_one_out(torch.from_numpy(x), variance).numpy(), expected, rtol=1e-6)


@given(SEEDS, st.integers(2, 40), st.integers(1, 3), st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=30)
def test_no_other_width_is_more_likely(seed, n, d, scale):
    x = scale * draw(n, d, seed=seed)
    found = fit_kernel_variance(x)
    best = leave_one_out(x, found).mean()
    for log_factor in torch.linspace(-8, 8, 33).tolist():
        assert leave_one_out(x, found * math.exp(log_factor)).mean() <= best + 1e-4 * d


def test_a_width_is_stationary_and_scales_with_the_points():
    x = draw(200, 2)
    found = fit_kernel_variance(x)
    variance = torch.tensor(found, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(leave_one_out(x, variance).mean(), variance)
    assert abs(slope.item() * found) < 1e-3
    assert fit_kernel_variance(3.0 * x + 5.0) == pytest.approx(9.0 * found, rel=5e-3)


def test_two_points():
    """d·σ_k² is their squared distance: 25/2."""
    assert fit_kernel_variance(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(12.5)


def test_twins_have_no_best_width():
    """Likelihood grows as kernels narrow, also for a layer that has collapsed to clusters or to a point."""
    x = draw(10, 3)
    assert fit_kernel_variance(torch.cat([x, x])) == 0.0
    assert fit_kernel_variance(torch.full((10, 2), 0.1)) == 0.0
    assert fit_kernel_variance(torch.cat([x, x[:9]])) > 0.0


def test_more_points_than_a_block_holds(monkeypatch):
    x = draw(50, 2)
    whole = fit_kernel_variance(x)
    monkeypatch.setattr(pairwise, "BLOCK", 120)
    assert fit_kernel_variance(x) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda: kde_information(draw(3, 2), 1.0, -0.1), "not negative; got -0.1"),
        (lambda: kde_information(draw(3, 2), torch.ones(2), 0.1), r"one positive number; got \[1.0, 1.0\]"),
        (lambda: kde_information(draw(3, 2), -1.0, 2.0), "positive number; got -1.0"),
        (lambda: fit_kernel_variance(draw(1, 2)), "at least two finite points; got 1"),
        (lambda: fit_kernel_variance(torch.full((3, 2), math.nan)), "finite points"),
    ],
)
def test_faults_are_one_sentence(look, message):
    with pytest.raises(DataError, match=message):
        look()
