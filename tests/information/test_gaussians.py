"""Closed forms against torch.distributions, Monte Carlo and each other: identities 1, 2 and 4."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl

from isthmus.information.gaussians import (
    DiagonalGaussian,
    FullGaussian,
    Gaussian,
    IdentityGaussian,
    concatenate,
    kl,
)
from isthmus.information.mixtures import Mixture, uniform_mixture

DIM = 4
FAMILIES = ["identity", "diagonal", "full"]


def make(family: str, batch: int, seed: int, dim: int = DIM) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mean = normal(batch, dim)
    if family == "identity":
        return IdentityGaussian(mean)
    if family == "diagonal":
        return DiagonalGaussian(mean, 0.5 * normal(batch, dim))
    factor = torch.tril(0.4 * normal(batch, dim, dim), -1) + torch.diag_embed(normal(batch, dim).abs() + 0.3)
    return FullGaussian(mean, factor)


def reference(gaussian: Gaussian) -> torch.distributions.Distribution:
    if isinstance(gaussian, FullGaussian):
        return MultivariateNormal(gaussian.mean, scale_tril=gaussian.factor)
    return Independent(Normal(gaussian.mean, gaussian.std), 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_prob_agrees_with_torch(family):
    gaussian = make(family, 7, 0)
    z = torch.randn(3, 7, DIM, dtype=torch.float64)
    torch.testing.assert_close(gaussian.log_prob(z), reference(gaussian).log_prob(z))


@pytest.mark.parametrize("p", FAMILIES)
@pytest.mark.parametrize("q", FAMILIES)
def test_kl_agrees_with_torch(p, q):
    """Identity 2."""
    first, second = make(p, 9, 1), make(q, 9, 2)
    as_full = [MultivariateNormal(g.mean, scale_tril=g.scale_tril) for g in (first, second)]
    torch.testing.assert_close(kl(first, second), torch_kl(*as_full))


@pytest.mark.parametrize("p", FAMILIES)
@pytest.mark.parametrize("q", FAMILIES)
def test_kl_agrees_with_monte_carlo(p, q):
    """Identity 2: within three standard errors of 1e5 samples."""
    first, second = make(p, 1, 3), make(q, 1, 4)
    z = first.sample(torch.randn(100_000, 1, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    ratios = first.log_prob(z) - second.log_prob(z)
    error = 3 * ratios.std().item() / math.sqrt(len(z))
    assert kl(first, second).item() == pytest.approx(ratios.mean().item(), abs=error + 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_kl_of_a_gaussian_to_itself_is_zero_and_to_others_positive(family):
    """Identity 2."""
    gaussian = make(family, 5, 5)
    torch.testing.assert_close(kl(gaussian, gaussian), torch.zeros(5, dtype=torch.float64))
    assert (kl(gaussian, make(family, 5, 6)) > 0).all()


def test_full_with_diagonal_factor_is_diagonal():
    """Identity 2."""
    diagonal = make("diagonal", 6, 7)
    full = FullGaussian(diagonal.mean, torch.diag_embed(diagonal.std))
    z = torch.randn(6, DIM, dtype=torch.float64)
    torch.testing.assert_close(full.log_prob(z), diagonal.log_prob(z))
    torch.testing.assert_close(kl(full, make("full", 6, 8)), kl(diagonal, make("full", 6, 8)))


def test_identity_residual_is_the_exact_per_sample_formula():
    """Identity 1: log e(z|x) − log b(z|y) = ½(f−μ)·(f−μ+2ε) at z = f + ε, and its mean is ½‖f−μ‖²."""
    encoder, backward = make("identity", 50, 9), make("identity", 50, 10)
    noise = torch.randn(50, DIM, dtype=torch.float64)
    z = encoder.sample(noise)
    d = encoder.mean - backward.mean
    torch.testing.assert_close(
        encoder.log_prob(z) - backward.log_prob(z),
        0.5 * (d * (d + 2 * noise)).sum(-1),
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(kl(encoder, backward), 0.5 * d.square().sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_pairwise_log_probs(family):
    gaussian = make(family, 8, 11)
    z = torch.randn(3, 5, DIM, dtype=torch.float64)
    torch.testing.assert_close(gaussian.scores(z), gaussian.log_prob(z.unsqueeze(-2)))


def test_scores_keep_their_precision_at_tiny_scales():
    """Float32 matrix products would be wrong by whole nats here; the scores are exact up to the inputs' rounding."""
    mean = torch.randn(6, 256) * 3
    gaussian = DiagonalGaussian(mean, torch.full_like(mean, math.log(0.0067)))
    z = gaussian.sample(torch.randn(6, 256))
    own = gaussian.scores(z).diagonal()
    expected = DiagonalGaussian(mean.double(), gaussian.log_std.double()).log_prob(z.double())
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-6)


def test_log_density_stays_finite_and_differentiable_at_vanishing_scales():
    mean = torch.zeros(2, 3)
    log_std = torch.full((2, 3), -60.0, requires_grad=True)
    value = kl(DiagonalGaussian(mean, log_std), IdentityGaussian(torch.zeros(3)))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(log_std.grad).all()


@pytest.mark.parametrize("shift", [-85.0, -60.0, -14.0, 0.0, 14.0])
def test_kl_of_diagonals_depends_on_the_ratio_of_scales_alone(shift):
    """Down to σ = 1e-37, near the limit of float32, since the parameter is its logarithm."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.zeros(3, DIM)
    log_std = torch.randn(2, 3, DIM, generator=generator)
    expected = kl(DiagonalGaussian(mean, log_std[0]), DiagonalGaussian(mean, log_std[1]))
    p = (log_std + shift).requires_grad_()
    found = kl(DiagonalGaussian(mean, p[0]), DiagonalGaussian(mean, p[1]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.autograd.grad(found.sum(), p)[0].isfinite().all()


@given(st.integers(0, 1000), st.floats(1e-7, 1e-2))
def test_kl_of_near_diagonals_is_not_lost_in_rounding(seed, step):
    """Each term (σ_p/σ_q)² − 1 − ln (σ_p/σ_q)² is about 2δ², which float32 resolves without cancellation."""
    direction = make("identity", 2, seed, 64).mean.float()
    p, q = DiagonalGaussian(direction * 0, direction * 0), DiagonalGaussian(direction * 0, step * direction)
    double = kl(
        DiagonalGaussian(p.mean.double(), p.log_std.double()), DiagonalGaussian(q.mean.double(), q.log_std.double())
    )
    torch.testing.assert_close(kl(p, q).double(), double, rtol=1e-3, atol=1e-7 * step * 64)
    assert (kl(p, q) >= -1e-6 * step).all()


def test_concatenate_restores_a_split_batch():
    gaussian = make("full", 10, 12)
    joined = concatenate([gaussian[:4], gaussian[4:]])
    assert torch.equal(joined.mean, gaussian.mean)
    assert torch.equal(joined.scale_tril, gaussian.factor)


class TestMixtures:
    """Identity 4."""

    z = torch.randn(20, DIM, dtype=torch.float64)

    def test_equal_components_are_one_component(self):
        """Identity 4."""
        one = make("full", 1, 20)
        many = concatenate([one] * 5)
        torch.testing.assert_close(uniform_mixture(many).log_prob(self.z), one.log_prob(self.z))

    @given(order=st.permutations(range(6)))
    def test_order_does_not_matter(self, order):
        """Identity 4."""
        parts = make("full", 6, 21)
        weights = torch.log_softmax(torch.randn(6, generator=torch.Generator().manual_seed(1)).double(), 0)
        index = torch.tensor(order)
        shuffled = Mixture(parts[index], weights[index])
        torch.testing.assert_close(shuffled.log_prob(self.z), Mixture(parts, weights).log_prob(self.z))

    def test_a_one_hot_weight_selects_its_component(self):
        """Identity 4."""
        parts = make("full", 4, 22)
        weights = torch.full((4,), -math.inf, dtype=torch.float64)
        weights[2] = 0.0
        torch.testing.assert_close(Mixture(parts, weights).log_prob(self.z), parts[2].log_prob(self.z))

    def test_it_integrates_to_one(self):
        parts = make("diagonal", 3, 23, dim=1)
        grid = torch.linspace(-15, 15, 20_001, dtype=torch.float64).unsqueeze(-1)
        assert torch.trapezoid(uniform_mixture(parts).log_prob(grid).exp(), grid[:, 0]).item() == pytest.approx(1.0)
