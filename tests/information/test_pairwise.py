"""Bounds from pairwise distances: identity 25, closed forms, quadrature, gradients, and memory linear in n."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.special import logsumexp
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from isthmus.core.errors import DataError
from isthmus.information import pairwise
from isthmus.information.gaussians import DiagonalGaussian
from isthmus.information.pairwise import label_bounds, log_mean_kernels, lower, nearest_squared, upper, whitened
from isthmus.information.rates import rate_sandwich

SEEDS = st.integers(0, 10**6)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def limits(power, dim):
    """Both bounds for Gaussian means of this power and unit noise as n grows: E of a Gaussian kernel twice over."""
    return tuple(0.5 * dim * (math.log1p(power / scale) + power / (scale + power)) for scale in (4.0, 1.0))


def test_the_gaussian_check():
    """§5.6: .993 ≤ I = ln 4 = 1.386 ≤ 2.135 at 1,000 examples of power 3 in two dimensions."""
    found = torch.tensor(
        [[f(math.sqrt(3.0) * draw(1000, 2, seed=seed), 1.0).mean() for f in (lower, upper)] for seed in range(20)]
    ).mean(0)
    assert found.tolist() == pytest.approx([0.993, 2.135], abs=0.02)
    assert found[0] <= math.log(4.0) <= found[1]


@pytest.mark.parametrize(("power", "dim"), [(0.5, 1), (3.0, 2), (1.0, 4)])
def test_gaussian_means_against_the_limit(power, dim):
    """With noise of variance 4, so that it is the ratio that counts."""
    means = 2.0 * math.sqrt(power) * draw(4000, dim)
    found = [f(means, 4.0).mean().item() for f in (lower, upper)]
    assert found == pytest.approx(limits(power, dim), abs=0.05)


def quadrature(means, variance):
    """h(T) − h(noise) of a mixture in one dimension."""
    sigma = math.sqrt(variance)
    t = np.linspace(means.min() - 9 * sigma, means.max() + 9 * sigma, 20001)
    p = np.exp(-((t[:, None] - means) ** 2) / (2 * variance)).mean(1) / math.sqrt(2 * math.pi * variance)
    return -trapezoid(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0), t) - 0.5 * math.log(
        2 * math.pi * math.e * variance
    )


@given(SEEDS, st.integers(1, 12), st.floats(0.05, 20.0), st.floats(0.01, 4.0))
@settings(max_examples=50)
def test_the_information_lies_between_the_bounds(seed, n, spread, variance):
    """Identity 25, for the very mixture, with labels and without."""
    means = spread * draw(n, seed=seed)
    labels = torch.arange(n) % 3
    truth = quadrature(means.numpy(), variance)
    within = sum(
        (labels == k).double().mean().item() * quadrature(means[labels == k].numpy(), variance)
        for k in labels.unique().tolist()
    )
    for named, exact in ((None, truth), (labels, within)):
        assert lower(means, variance, named).mean() <= exact + 1e-6
        assert upper(means, variance, named).mean() >= exact - 1e-6
    least, most = label_bounds(means, variance, labels)
    assert least - 1e-6 <= truth - within <= most + 1e-6


@given(SEEDS, st.integers(1, 30), st.floats(0.01, 10.0))
def test_neither_bound_exceeds_ln_n_or_its_better(seed, n, variance):
    means = draw(n, 3, seed=seed)
    assert (upper(means, variance) <= math.log(n) + 1e-12).all()
    assert (lower(means, variance) >= 0.0).all()
    assert (lower(means, variance) <= upper(means, variance) + 1e-12).all()


@given(SEEDS, st.integers(1, 20), st.floats(1e-3, 1e3))
def test_the_formula(seed, n, variance):
    means = draw(n, 3, seed=seed)
    distance2 = np.square(means.numpy()[:, None] - means.numpy()).sum(-1)
    for f, divisor in ((upper, 2.0), (lower, 8.0)):
        expected = math.log(n) - logsumexp(-distance2 / (divisor * variance), axis=1)
        np.testing.assert_allclose(f(means, variance).numpy(), expected, rtol=0, atol=1e-12 / min(variance, 1.0))


@pytest.mark.parametrize("f", [lower, upper])
def test_equal_means_say_nothing_and_far_ones_all(f):
    """Identity 25."""
    assert f(torch.full((50, 4), 0.1), 1e-6).abs().max() <= 1e-12
    torch.testing.assert_close(f(1e6 * torch.eye(32), 1.0), torch.full((32,), math.log(32.0)).double())


@pytest.mark.parametrize("f", [lower, upper])
def test_clusters_far_apart_are_exact(f):
    """Entropy of the cluster's frequencies; and nothing within a label that names the cluster."""
    sizes = torch.tensor([1, 2, 3, 4])
    cluster = torch.repeat_interleave(torch.arange(4), sizes)
    means = 100.0 * cluster[:, None].double() + torch.zeros(10, 3)
    shares = sizes / 10
    assert f(means, 0.5).mean().item() == pytest.approx(-(shares * shares.log()).sum().item())
    assert f(means, 0.5, cluster).abs().max() < 1e-12
    least, most = label_bounds(means, 0.5, cluster // 2)
    assert least.item() == pytest.approx(-(0.3 * math.log(0.3) + 0.7 * math.log(0.7)))
    assert most.item() == pytest.approx(least.item())


def test_against_samples_of_the_same_mixture():
    """With all n encoders in the sum, the bound of ``rates`` is an unbiased estimate of the mixture's information."""
    means, variance = 1.5 * draw(40, 5), torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0]).double()
    encoder = DiagonalGaussian(means, 0.5 * variance.log().expand(40, 5))
    terms, _ = rate_sandwich(encoder, draw(500, 40, 5, seed=1))
    assert lower(means, variance).mean() < terms.mean() < upper(means, variance).mean()


@given(SEEDS, st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_moves_and_units_change_nothing(seed, scale, shift):
    means = draw(12, 2, 2, seed=seed)
    rotation, _ = torch.linalg.qr(draw(4, 4, seed=seed + 1))
    for f in (lower, upper):
        torch.testing.assert_close(f(scale * means + shift, 0.7 * scale**2), f(means, 0.7))
        torch.testing.assert_close(f(means.flatten(1) @ rotation, 0.7), f(means, 0.7))
        torch.testing.assert_close(f(means.flatten(1), torch.full((4,), 0.7)), f(means, 0.7))


@pytest.mark.parametrize("block", [1, 7, 50, 2**20])
def test_blocks_and_loops(monkeypatch, block):
    """Against a loop over pairs, with and without a point's own kernel; and gradients against those of all at once."""
    points, weights = draw(15, 3).requires_grad_(), draw(15, seed=1)
    monkeypatch.setattr(pairwise, "BLOCK", block)
    pairs = (points[:, None] - points).square().sum(-1) / -8.0
    for left_out in (False, True):
        masked = pairs.masked_fill(torch.eye(15, dtype=torch.bool), -math.inf) if left_out else pairs
        expected = masked.logsumexp(1) - math.log(15 - left_out)
        found = log_mean_kernels(points, 8.0, left_out)
        torch.testing.assert_close(found, expected)
        (slope,) = torch.autograd.grad(found @ weights, points)
        torch.testing.assert_close(slope, torch.autograd.grad(expected @ weights, points, retain_graph=True)[0])
    nearest = -(8.0 * pairs).masked_fill(torch.eye(15, dtype=torch.bool), -math.inf).amax(1)
    torch.testing.assert_close(nearest_squared(points), nearest)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0, 2, 1, 0])])
@pytest.mark.parametrize("block", [12, 2**20])
def test_gradients_against_differences(monkeypatch, labels, block):
    monkeypatch.setattr(pairwise, "BLOCK", block)
    means, one = draw(6, 2).requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    each = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    for f in (lower, upper):
        for variance in (one, each):
            assert torch.autograd.gradcheck(lambda m, v, f=f: f(m, v, labels), (means, variance))


def test_gradients_of_float32_and_of_points_that_coincide():
    means = draw(8, 2, dtype=torch.float32)
    means[3] = means[2]
    means.requires_grad_()
    log_variance = torch.tensor(-10.0, requires_grad=True)
    upper(means, log_variance.exp()).mean().backward()
    assert means.grad.dtype == log_variance.grad.dtype == torch.float32
    assert means.grad.isfinite().all()
    assert log_variance.grad.isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(upper(means, 0.5), upper(means.double(), 0.5))


def test_far_from_the_origin_nothing_is_lost():
    means = draw(30, 4, dtype=torch.float32)
    far = (1e4 + means).double()  # what float32 has left of them there
    torch.testing.assert_close(upper(far.float(), 1e-4), upper(far - 1e4, 1e-4), rtol=0, atol=1e-9)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in numbers."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_flatten(out)[0] if isinstance(each, torch.Tensor)]
        self.largest = max([self.largest, *(each.numel() for each in tensors)])
        return out


def cost(n):
    """Numbers kept for the backward pass, and in the largest tensor on the way there and back."""
    means, variance = draw(n, 4).requires_grad_(), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with Largest() as mode, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        upper(means, variance).mean().backward()
    return sum(kept.values()), mode.largest


def test_memory_grows_with_examples_rather_than_with_pairs(monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK", 2**13)
    (kept, largest), (kept_4, largest_4) = cost(256), cost(1024)
    assert kept_4 < 5 * kept
    assert max(largest, largest_4) <= 2**13
    monkeypatch.setattr(pairwise, "BLOCK", 2**30)
    assert cost(1024)[1] >= 1024**2, "all pairs at once are seen by this test"


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda: upper(draw(0, 3), 1.0), r"at least one of each; got shape \(0, 3\)"),
        (lambda: upper(draw(3, 2), 0.0), "positive; got 0.0"),
        (lambda: upper(draw(3, 2), math.nan), "positive; got nan"),
        (lambda: lower(draw(3, 2), torch.ones(3)), "one for each of 2 units; got 3"),
        (
            lambda: lower(draw(3, 2), 1.0, torch.arange(2)),
            r"each of 3 examples; got shape \(2,\)",
        ),
        (lambda: log_mean_kernels(whitened(draw(1, 2), 1.0), leave_one_out=True), "at least two examples"),
    ],
)
def test_faults_are_one_sentence(look, message):
    with pytest.raises(DataError, match=message):
        look()
