"""Sandwich on I(X;Z): limits, the Gaussian channel with its known information: identities 5 and 6."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.information import rates
from isthmus.information.gaussians import DiagonalGaussian, FullGaussian, IdentityGaussian, kl
from isthmus.information.rates import rate_sandwich


def channel(n: int, dim: int = 2, power: float = 3.0, seed: int = 0):
    """X ~ N(0, power·I), Z = X + unit noise: I(X;Z) = dim/2·ln(1 + power)."""
    generator = torch.Generator().manual_seed(seed)
    x = math.sqrt(power) * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    encoder = IdentityGaussian(x)
    return encoder, torch.randn(n, dim, generator=generator, dtype=torch.float64)


@given(st.integers(2, 40), st.integers(0, 1000), st.floats(0.01, 100))
def test_lower_bound_never_exceeds_ln_of_the_batch(n, seed, power):
    """Identity 5."""
    lower, _ = rate_sandwich(*channel(n, power=power, seed=seed))
    assert (lower <= math.log(n) + 1e-9).all()


def test_far_codes_reach_ln_of_the_batch():
    """Identity 5."""
    encoder = IdentityGaussian(1000.0 * torch.eye(16, dtype=torch.float64))
    lower, upper = rate_sandwich(encoder, torch.zeros_like(encoder.mean))
    torch.testing.assert_close(lower, torch.full((16,), math.log(16), dtype=torch.float64))
    assert (upper > 1000).all()


def test_equal_encoders_give_zero():
    """Identity 5."""
    encoder = DiagonalGaussian(torch.zeros(16, 3), torch.full((16, 3), -1.0))
    lower, upper = rate_sandwich(encoder, torch.randn(5, 16, 3))
    torch.testing.assert_close(lower, torch.zeros(16, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(upper, torch.zeros(16, dtype=torch.float64), atol=1e-9, rtol=0)


def test_gaussian_channel_lies_between_the_bounds():
    """Identity 5: 1.368 ≤ ln 4 = 1.3863 ≤ 1.405 at batches of 256."""
    pairs = [rate_sandwich(*channel(256, seed=seed)) for seed in range(200)]
    lower, upper = (torch.stack([pair[i] for pair in pairs]).mean().item() for i in (0, 1))
    assert lower == pytest.approx(1.368, abs=0.02)
    assert upper == pytest.approx(1.405, abs=0.02)
    assert lower <= math.log(4) <= upper


def test_rows_in_blocks_change_nothing(monkeypatch):
    encoder, noise = channel(50)
    whole = rate_sandwich(encoder, noise)
    monkeypatch.setattr(rates, "ROWS", 7)
    for a, b in zip(whole, rate_sandwich(encoder, noise), strict=True):
        torch.testing.assert_close(a, b)


def test_samples_are_averaged():
    encoder, noise = channel(30)
    other = torch.randn(30, 2, dtype=torch.float64)
    both = rate_sandwich(encoder, torch.stack([noise, other]))
    for i in (0, 1):
        mean = (rate_sandwich(encoder, noise)[i] + rate_sandwich(encoder, other)[i]) / 2
        torch.testing.assert_close(both[i], mean)


def test_full_covariance_agrees_with_diagonal():
    encoder, noise = channel(30)
    full = FullGaussian(encoder.mean, torch.eye(2, dtype=torch.float64).expand(30, 2, 2))
    for a, b in zip(rate_sandwich(encoder, noise), rate_sandwich(full, noise), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_do_not_flow_into_the_bounds():
    mean = torch.randn(8, 3, requires_grad=True)
    lower, _ = rate_sandwich(IdentityGaussian(mean), mean)
    assert not lower.requires_grad


def test_a_single_example_has_no_upper_bound():
    encoder, noise = channel(1)
    lower, upper = rate_sandwich(encoder, noise)
    assert lower.item() == pytest.approx(0.0)
    assert upper.item() == math.inf


@pytest.mark.parametrize("power", [0.5, 3.0, 10.0])
def test_rate_against_the_true_marginal_is_the_capacity(power):
    """Identity 6: R with m = N(0, (P+1)I) is d/2·ln(1+P); another m' adds KL(true ‖ m')."""
    dim, n = 3, 200_000
    encoder, noise = channel(n, dim, power)
    codes = encoder.sample(noise)
    true = DiagonalGaussian(torch.zeros(dim).double(), torch.full((dim,), 0.5 * math.log(power + 1)).double())
    ratios = encoder.log_prob(codes) - true.log_prob(codes)
    error = 4 * ratios.std().item() / math.sqrt(n)
    capacity = dim / 2 * math.log1p(power)
    assert ratios.mean().item() == pytest.approx(capacity, abs=error)
    other = DiagonalGaussian(torch.ones(dim).double(), torch.full((dim,), 0.3).double())
    ratios = encoder.log_prob(codes) - other.log_prob(codes)
    error = 4 * ratios.std().item() / math.sqrt(n)
    assert ratios.mean().item() == pytest.approx(capacity + kl(true, other).item(), abs=error)
