"""Full covariances that are nearly singular, in float32, against exact rational arithmetic and torch in float64.

Off-diagonals of L are 1 and means near 10, so that with a small diagonal L⁻¹ amplifies every rounding of z: at a
diagonal of 0.001 the log-density of a sample, whitened after it was rounded to float32, is too low by 5e9 nats.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch.distributions import MultivariateNormal

from isthmus.information.codes import Codes
from isthmus.information.gaussians import LOG_2PI, FullGaussian, kl
from isthmus.information.measures import Measures
from isthmus.information.mixtures import BatchMixture, uniform_mixture
from isthmus.information.rates import rate_sandwich
from isthmus.models.gaussian_heads import CONDITIONAL_FLOOR, gaussian, parameters_per_code
from isthmus.objectives.objective import residual

N, DIM = 6, 4
DIAGONALS = [1.0, 0.1, 0.01, 0.001]


def narrow(diagonal, seed=0, mean=None):
    """Float32 Gaussians with off-diagonals of 1 and this diagonal of L; means are near 10, or near those given."""
    generator = torch.Generator().manual_seed(seed)
    factor = (torch.ones(DIM, DIM).tril(-1) + diagonal * torch.eye(DIM)).expand(N, DIM, DIM)
    drawn = torch.randn(N, DIM, generator=generator)
    return FullGaussian(10.0 * drawn if mean is None else mean + torch.einsum("nij,nj->ni", factor, drawn), factor)


def drawn(seed=1):
    return torch.randn(1, N, DIM, generator=torch.Generator().manual_seed(seed))


def rational(tensor):
    return [rational(part) for part in tensor] if tensor.dim() else Fraction(float(tensor))


def sample(gaussian, noise):
    """Every μ + L·ε of these float32 numbers, exactly."""
    means, factors = rational(gaussian.mean), rational(gaussian.factor)
    return [
        [m + sum(a * e for a, e in zip(row, own, strict=True)) for m, row in zip(mean, factor, strict=True)]
        for mean, factor, own in zip(means, factors, rational(noise), strict=True)
    ]


def solve(factor, vector):
    found = []
    for row, value in zip(factor, vector, strict=True):
        found.append((value - sum(a * b for a, b in zip(row, found, strict=False))) / row[len(found)])
    return found


def log_density(gaussian, member, z):
    """ln N(z; μ, L·Lᵀ), rounded once at the end."""
    factor = rational(gaussian.factor[member])
    white = solve(factor, [a - b for a, b in zip(z, rational(gaussian.mean[member]), strict=True)])
    log_scale = sum(math.log(factor[i][i]) for i in range(DIM))
    return float(-sum(part * part for part in white) / 2) - log_scale - 0.5 * DIM * LOG_2PI


def coded(encoder, backward=None):
    noise = drawn()
    return Codes(encoder.sample(noise), torch.zeros(1, N, N), None, encoder, backward, noise=noise)


@pytest.mark.parametrize("diagonal", DIAGONALS)
def test_the_log_density_of_an_own_sample(diagonal):
    encoder = narrow(diagonal)
    codes = coded(encoder)
    z = sample(encoder, codes.noise[0])
    expected = torch.tensor([[log_density(encoder, i, z[i]) for i in range(N)]])
    torch.testing.assert_close(codes.log_encoder, expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(Measures(codes, torch.arange(N)).log_encoder, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("diagonal", DIAGONALS)
@pytest.mark.parametrize("other", [1.0, 0.1, 0.01])
def test_other_densities_of_that_sample(diagonal, other):
    """b(z|y), mixtures and the closed form; a diagonal of 0.01 is the narrowest that a head makes."""
    encoder = narrow(diagonal)
    backward = narrow(other, seed=2, mean=encoder.mean)
    codes = coded(encoder, backward)
    z = sample(encoder, codes.noise[0])
    table = torch.tensor([[log_density(backward, k, z[i]) for k in range(N)] for i in range(N)], dtype=torch.float64)
    scores = backward.scores(codes.exact)[0]
    torch.testing.assert_close(scores, table, rtol=1e-6, atol=1e-4)
    mixture = uniform_mixture(backward).log_prob(codes.exact)[0]
    torch.testing.assert_close(mixture, torch.logsumexp(table, 1) - math.log(N), rtol=1e-6, atol=1e-4)
    own = torch.tensor([log_density(encoder, i, z[i]) for i in range(N)], dtype=torch.float64)
    found = residual(codes, torch.arange(N), "sampled")
    torch.testing.assert_close(found.double(), own - table.diagonal(), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("diagonal", DIAGONALS[:3])
@pytest.mark.parametrize("other", [1.0, 0.1, 0.01])
def test_the_closed_form(diagonal, other):
    p = narrow(diagonal)
    q = narrow(other, seed=2, mean=p.mean)
    expected = []
    for i in range(N):
        lower, factor = rational(q.factor[i]), rational(p.factor[i])
        columns = [solve(lower, [row[j] for row in factor]) for j in range(DIM)]
        distance = solve(lower, [a - b for a, b in zip(rational(p.mean[i]), rational(q.mean[i]), strict=True)])
        squares = sum(part * part for column in [*columns, distance] for part in column)
        expected.append(float(squares - DIM) / 2 + DIM * (math.log(lower[0][0]) - math.log(factor[0][0])))
    torch.testing.assert_close(kl(p, q), torch.tensor(expected), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("diagonal", DIAGONALS[:3])
def test_the_bounds_on_the_rate(diagonal):
    encoder = narrow(diagonal, seed=2, mean=torch.zeros(N, DIM))
    noise = drawn()
    z = sample(encoder, noise[0])
    table = torch.tensor([[log_density(encoder, k, z[i]) for k in range(N)] for i in range(N)], dtype=torch.float64)
    others = table.masked_fill(torch.eye(N, dtype=torch.bool), -math.inf)
    lower, upper = rate_sandwich(encoder, noise)
    own = table.diagonal()
    torch.testing.assert_close(lower, own - torch.logsumexp(table, 1) + math.log(N), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(upper, own - torch.logsumexp(others, 1) + math.log(N - 1), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("diagonal", DIAGONALS[:3])
def test_images_that_are_encoded_alike_are_not_told_apart(diagonal):
    """I(X;Z) = 0: own pair and others are the same density, though only the first comes from the noise."""
    encoder = FullGaussian(torch.full((N, DIM), 10.0), narrow(diagonal).factor)
    lower, upper = rate_sandwich(encoder, drawn())
    torch.testing.assert_close(lower, torch.zeros_like(lower), rtol=0, atol=1e-4)
    torch.testing.assert_close(upper, torch.zeros_like(upper), rtol=0, atol=1e-4)
    codes = coded(encoder)
    rate = codes.log_encoder - BatchMixture(encoder).log_prob(codes.exact)
    torch.testing.assert_close(rate, torch.zeros_like(rate), rtol=0, atol=1e-4)


@pytest.mark.parametrize("diagonal", DIAGONALS)
@pytest.mark.parametrize("other", [1.0, 0.1, 0.01])
def test_gradients_are_those_of_float64(diagonal, other):
    encoder = narrow(diagonal)
    backward = narrow(other, seed=2, mean=encoder.mean)
    noise = drawn()

    def leaves(dtype):
        given = [encoder.mean, encoder.factor, backward.mean, backward.factor]
        return [part.detach().clone().to(dtype).requires_grad_() for part in given]

    mean, factor, of_mean, of_factor = ours = leaves(torch.float32)
    e, b = FullGaussian(mean, factor), FullGaussian(of_mean, of_factor)
    codes = Codes(e.sample(noise), torch.zeros(1, N, N), None, e, b, noise=noise)
    found = torch.autograd.grad(residual(codes, torch.arange(N), "sampled").sum(), ours)

    mean, factor, of_mean, of_factor = theirs = leaves(torch.float64)
    z = mean + torch.einsum("nij,nj->ni", factor, noise[0].double())
    log_e = -factor.diagonal(dim1=1, dim2=2).log().sum()  # and terms without gradients
    log_b = MultivariateNormal(of_mean, scale_tril=of_factor).log_prob(z).sum()
    expected = torch.autograd.grad(log_e - log_b, theirs)
    for gradient, exact in zip(found, expected, strict=True):
        exact = exact.tril() if exact.dim() == 3 else exact
        gradient = gradient.tril() if gradient.dim() == 3 else gradient
        assert bool(gradient.isfinite().all())
        assert float((gradient - exact).abs().max()) <= 1e-5 * float(exact.abs().max())


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_heads_keep_coordinates_from_being_copies_of_one_another(dim):
    """A coordinate's standard deviation given those before it is at least a hundredth of what they account for."""
    raw = torch.full((3, parameters_per_code("full", dim)), 5.0)
    rows, columns = torch.tril_indices(dim, dim)
    raw[:, dim:][:, rows == columns] = -100.0
    factor = gaussian(raw, "full", dim, 1.0).scale_tril
    below = torch.linalg.vector_norm(factor.tril(-1), dim=-1)
    assert bool((factor.diagonal(dim1=1, dim2=2) >= CONDITIONAL_FLOOR * below).all())
    tame = raw.clone()
    tame[:, dim:][:, rows == columns] = 5.0
    own = torch.nn.functional.softplus(torch.tensor(5.0 + math.log(math.expm1(1.0))))
    torch.testing.assert_close(
        gaussian(tame, "full", dim, 1.0).scale_tril.diagonal(dim1=1, dim2=2), own.expand(3, dim), rtol=4e-4, atol=0
    )
