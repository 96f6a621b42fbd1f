"""Tables, samples, bins, pairwise bounds and kernel densities on cases whose information is known to all of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.information import discrete, kde, pairwise, tables
from isthmus.information.binning import Binning, bin_numbers, layer_information
from isthmus.information.gaussians import IdentityGaussian
from isthmus.information.jointly_gaussian import gaussian_information
from isthmus.information.rates import rate_sandwich

JOINTS = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=2, max_size=5).filter(
    lambda rows: sum(map(sum, rows)) > 1
)


@given(JOINTS, st.integers(1, 3))
def test_a_layer_of_clusters(counts, dim):
    """A layer maps each input to one of several distant points; labels have the noise of the table.

    Noise of standard deviation 1 against distances of 100 is none, so that I(X;T) = H(T) and I(T;Y) are the table's
    for every estimator; a kernel adds what its width costs a single point.
    """
    c = np.array(counts)
    cluster, labels = (np.repeat(index.ravel(), c.ravel()) for index in np.indices(c.shape))
    h, i_ty = tables.entropy(c.sum(1) / c.sum()), tables.mutual_information(c / c.sum())
    layer = 100.0 * np.repeat(cluster[:, None], dim, 1).astype(np.float32)

    assert discrete.entropy(cluster) == pytest.approx(h, abs=1e-9)
    assert discrete.information(cluster, labels) == pytest.approx(i_ty, abs=1e-9)

    for binning in (Binning(c.sum()), Binning(16, "equal_width")):
        binned = layer_information(layer, labels, binning)
        assert (binned.i_xt, binned.i_ty) == pytest.approx((h, i_ty), abs=1e-9)

    means, y = torch.from_numpy(layer), torch.from_numpy(labels)
    for bound in (pairwise.lower, pairwise.upper):
        assert bound(means, 1.0).mean().item() == pytest.approx(h, abs=1e-9)
    for bound in pairwise.label_bounds(means, 1.0, y):
        assert bound.item() == pytest.approx(i_ty, abs=1e-9)

    width = 0.5 * dim * math.log(1.0 + 0.25)
    assert kde.kde_information(means, 1.0, 0.25).mean().item() - width == pytest.approx(h, abs=1e-9)


def test_a_gaussian_channel():
    """T = X + noise with X of power P in two dimensions: I = ln(1 + P).

    Bins of X against bins of T lose some of it, by data processing; distances and kernels need X alone.
    """
    power, n = 3.0, 200_000
    truth = gaussian_information([math.sqrt(power / (1.0 + power))] * 2)
    assert truth == pytest.approx(math.log(1.0 + power))
    generator = np.random.default_rng(0)
    x = math.sqrt(power) * generator.standard_normal((n, 2))
    t = x + generator.standard_normal((n, 2))

    # the two units are independent channels: twice the information of one
    one, other = (bin_numbers(each[:, :1], Binning(20)).ravel() for each in (x, t))
    binned = 2.0 * discrete.information(one, other)
    assert 0.95 * truth < binned < truth

    some = torch.from_numpy(x[:1000])
    lower, upper = pairwise.lower(some, 1.0).mean().item(), pairwise.upper(some, 1.0).mean().item()
    assert lower < truth < upper
    assert upper < kde.kde_information(some, 1.0, kde.fit_kernel_variance(some)).mean().item() < upper + 0.2

    sampled = rate_sandwich(IdentityGaussian(some), torch.from_numpy((t - x)[:1000]))
    assert sampled[0].mean().item() == pytest.approx(truth, abs=0.1)
    assert lower < sampled[0].mean().item() < upper


def test_a_wide_layer_reaches_the_same_ceiling_everywhere():
    """n distant, distinct inputs have ln n nats in bins, in distances and in narrow kernels."""
    layer = 10.0 * torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 4
    found = layer_information(layer, labels)
    assert found.i_xt == pytest.approx(math.log(200))
    assert found.i_ty == pytest.approx(math.log(4))
    for bound in (pairwise.lower, pairwise.upper):
        assert bound(layer, 1.0).mean().item() == pytest.approx(math.log(200))
    for bound in pairwise.label_bounds(layer, 1.0, labels):
        assert bound.item() == pytest.approx(math.log(4))
    assert kde.kde_information(layer, 1.0, 0.0).mean().item() == pytest.approx(math.log(200))
