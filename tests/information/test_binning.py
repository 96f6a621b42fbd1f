"""The information plane: identity 23, edges against numpy, closed forms, and the cost of measuring six layers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import mutual_info_score

from isthmus.core.errors import ConfigError, DataError
from isthmus.information import binning, discrete
from isthmus.information.binning import Binning, bin_numbers, information_plane, layer_information, words

SCHEMES = ["equal_mass", "equal_width"]
SEEDS = st.integers(0, 10**6)


def layer(seed=0, n=60, dim=3, classes=3):
    """A ReLU layer with ties, and labels about which it has information."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    means = generator.standard_normal((classes, dim))
    return np.maximum(means[labels] + 0.5 * generator.standard_normal((n, dim)), 0.0).astype(np.float32), labels


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0.0, 0.1, -3e38])
def test_a_constant_layer_says_nothing(scheme, value):
    found = layer_information(np.full((50, 7), value, np.float32), np.arange(50) % 4, Binning(30, scheme))
    assert (found.i_xt, found.i_ty, found.words) == (0.0, 0.0, 1)
    assert found.label_entropy == pytest.approx(1.386, abs=1e-3)


@given(SEEDS, st.integers(2, 200))
def test_an_injective_layer_with_enough_bins_says_all(seed, n):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    found = layer_information(generator.permutation(n)[:, None].astype(np.float32), labels, Binning(n))
    assert found.i_xt == pytest.approx(math.log(n), abs=1e-12)
    assert found.i_ty == pytest.approx(found.label_entropy, abs=1e-12)
    assert found.words == n


@given(SEEDS, st.integers(1, 40))
def test_a_strictly_increasing_map_changes_no_bin(seed, bins):
    """Maps that are exact in floating point: no two numbers become one."""
    x, labels = layer(seed)
    once = bin_numbers(x, Binning(bins))
    for other in (4.0 * x, x.astype(np.float64) ** 3 - 7.0, np.searchsorted(np.unique(x), x)):
        np.testing.assert_array_equal(bin_numbers(other, Binning(bins)), once)
        assert layer_information(other, labels, Binning(bins)) == layer_information(x, labels, Binning(bins))


@given(SEEDS, st.sampled_from(SCHEMES), st.integers(1, 40))
def test_bounds_and_symmetries(seed, scheme, bins):
    x, labels = layer(seed)
    found = layer_information(x, labels, Binning(bins, scheme))
    assert 0.0 <= found.i_ty <= min(found.i_xt, found.label_entropy) + 1e-12
    assert found.i_xt <= math.log(found.words) + 1e-12 <= math.log(len(x)) + 2e-12
    assert found.i_ty == pytest.approx(
        mutual_info_score(words(bin_numbers(x, Binning(bins, scheme))), labels), abs=1e-12
    )
    order = np.random.default_rng(seed).permutation(len(x))
    for other, names in ((x[order], labels[order]), (x[:, ::-1], 5 - labels), (np.hstack([x, x]), labels)):
        again = layer_information(other, names, Binning(bins, scheme))
        assert again.i_xt == pytest.approx(found.i_xt, abs=1e-12)
        assert again.i_ty == pytest.approx(found.i_ty, abs=1e-12)


@given(SEEDS, st.sampled_from(SCHEMES), st.integers(1, 20))
def test_bins_that_are_halved_tell_more(seed, scheme, bins):
    """Data processing: the coarse bins are a function of the fine ones."""
    x, labels = layer(seed)
    coarse, fine = (layer_information(x, labels, Binning(b, scheme)) for b in (bins, 2 * bins))
    assert fine.i_xt >= coarse.i_xt - 1e-12
    assert fine.i_ty >= coarse.i_ty - 1e-12


@given(SEEDS, st.integers(2, 40))
def test_masses_are_equal(seed, bins):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((50, 4))
    counts = np.bincount(bin_numbers(x, Binning(bins)).ravel(), minlength=bins)
    assert set(counts) <= {200 // bins, -(-200 // bins)}


@given(SEEDS, st.integers(2, 40))
def test_edges_are_quantiles(seed, bins):
    """Of the whole layer, those that are activations themselves; equal ones are one."""
    x, _ = layer(seed)
    # shares as float64 miss some multiples of 1/bins by a rounding, where the rank is a whole number
    ranks = np.array([math.ceil(k * x.size / bins) for k in range(1, bins)])
    expected = np.quantile(x, (ranks - 0.5) / x.size, method="inverted_cdf")
    np.testing.assert_array_equal(Binning(bins).edges(x), np.unique(expected))


def test_zeros_of_a_relu_have_their_own_bin():
    x = np.maximum(np.random.default_rng(0).standard_normal((2000, 5)), 0.0)
    numbers = bin_numbers(x)
    np.testing.assert_array_equal(numbers == 0, x == 0.0)
    counts = np.bincount(numbers[x > 0])[1:]
    assert abs(counts / x.size - 1 / 30).max() < 1 / 30
    assert abs(counts[1:] / x.size - 1 / 30).max() < 1e-3


@given(SEEDS, st.integers(1, 40), st.sampled_from([None, (-1.0, 1.0), (0.1, 0.2)]))
def test_equal_width_against_histogram_edges(seed, bins, limits):
    x = layer(seed)[0].astype(np.float64)
    edges = np.histogram_bin_edges(x, bins, limits)[1:-1]
    np.testing.assert_allclose(Binning(bins, "equal_width", limits).edges(x), edges, atol=1e-12)
    np.testing.assert_array_equal(
        bin_numbers(x, Binning(bins, "equal_width", limits)),
        np.digitize(x, Binning(bins, "equal_width", limits).edges(x), right=True),
    )


def test_looking_up_and_comparing_agree(monkeypatch):
    x, _ = layer(n=1000)
    compared = bin_numbers(x)
    monkeypatch.setattr(binning, "PASSES", 0)
    monkeypatch.setattr(binning, "PART", 100)
    np.testing.assert_array_equal(bin_numbers(x), compared)
    assert bin_numbers(x, Binning(2000)).dtype == np.uint16
    assert bin_numbers(x).dtype == np.uint8


@given(SEEDS, st.integers(1, 30), st.integers(1, 4))
def test_words_against_rows_as_tuples(seed, n, width):
    rows = np.random.default_rng(seed).integers(0, 2, (n, width)).astype(np.uint8)
    found = words(rows)
    names = [tuple(row) for row in rows.tolist()]
    assert [[a == b for a in found] for b in found] == [[a == b for a in names] for b in names]
    assert set(found) == set(range(len(set(names))))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_clusters_of_known_sizes(scheme):
    """Four well-separated values seen 1, 2, 3 and 4 times; the label is which half they are in."""
    values = np.repeat([0.0, 1.0, 2.0, 3.0], [1, 2, 3, 4])
    labels = (values > 1.5).astype(int)
    found = layer_information(np.stack([values, -values], 1), labels, Binning(16, scheme))
    shares = np.array([1, 2, 3, 4]) / 10
    assert found.i_xt == pytest.approx(-(shares * np.log(shares)).sum())
    assert found.i_ty == pytest.approx(-(0.3 * math.log(0.3) + 0.7 * math.log(0.7)))
    assert found.i_xt_bits == pytest.approx(found.i_xt / math.log(2))
    assert found.i_ty_bits == pytest.approx(found.i_ty / math.log(2))


def test_random_labels_of_a_wide_layer_are_told_in_full():
    """All words differ, so they determine every label: memorisation without generalisation."""
    generator = np.random.default_rng(0)
    found = layer_information(generator.standard_normal((2000, 64)), generator.integers(0, 2, 2000))
    assert found.i_xt_bits == pytest.approx(math.log2(2000))
    assert found.i_ty == pytest.approx(found.label_entropy)


def test_a_plane_of_tensors_and_maps():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(30, 2, 3, 3, generator=generator).relu().requires_grad_()
    layers = {"conv": maps, "flat": maps.flatten(1).detach().numpy(), "half": torch.randn(30, 2).bfloat16()}
    plane = information_plane(layers, torch.arange(30) % 2, Binning(4))
    assert list(plane) == ["conv", "flat", "half"]
    assert plane["conv"] == plane["flat"] == layer_information(maps, np.arange(30) % 2, Binning(4))


@pytest.mark.parametrize(
    ("look", "error", "message"),
    [
        (lambda: Binning(0), ConfigError, "1 to 65536; got 0"),
        (lambda: Binning(30, "equal_mas"), ConfigError, "Did you mean 'equal_mass'"),
        (lambda: Binning(30, "equal_mass", (0.0, 1.0)), ConfigError, "equal width have limits"),
        (lambda: Binning(30, "equal_width", (1.0, 1.0)), ConfigError, "increasing order"),
        (lambda: layer_information([[math.inf]], [0]), DataError, "finite"),
        (lambda: layer_information([[1.0], [2.0]], [0]), DataError, "one for each of 2 examples"),
        (lambda: bin_numbers(np.zeros((3, 0))), DataError, r"got shape \(3, 0\)"),
    ],
)
def test_faults_are_one_sentence(look, error, message):
    with pytest.raises(error, match=message):
        look()


@given(SEEDS)
def test_memorisation_is_what_the_layer_says_beyond_the_label(seed):
    """Î(X;T) − Î(T;Y) = Σ p(y)·Ĥ(T|Y=y): 0 for a code of the label alone, ln n − H(Y) for the image itself."""
    rows, labels = layer(seed)
    found = layer_information(rows, labels, Binning(5))
    word = words(bin_numbers(rows, Binning(5)))
    inside = sum((labels == y).mean() * discrete.entropy(word[labels == y]) for y in set(labels.tolist()))
    assert found.memorisation == pytest.approx(inside, abs=1e-9)
    alone = layer_information(labels[:, None].astype(np.float32), labels, Binning(30))
    assert alone.memorisation == pytest.approx(0.0, abs=1e-9)
    image = layer_information(np.arange(60, dtype=np.float32)[:, None], labels, Binning(60))
    assert image.memorisation == pytest.approx(math.log(60) - image.label_entropy)


FLOATS = st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45]))


@pytest.fixture
def _small_blocks(monkeypatch):
    monkeypatch.setattr(binning, "SORTED", 0)
    monkeypatch.setattr(binning, "PART", 37)


@pytest.mark.usefixtures("_small_blocks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays.arrays(np.float32, st.integers(1, 300), elements=FLOATS), st.data())
def test_order_statistics_are_those_of_sorted_numbers(values, data):
    ranks = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=20)))
    np.testing.assert_array_equal(binning.order_statistics(values, ranks), np.sort(values)[ranks])


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["normal", "relu", "saturated", "integers", "constant"])
def test_order_statistics_of_layers(kind, dtype):
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(dtype)
    x = {
        "normal": x,
        "relu": np.maximum(x, 0),
        "saturated": np.tanh(30 * x),
        "integers": x.round(),
        "constant": np.full_like(x, -0.1),
    }[kind]
    ranks = np.arange(x.size)
    found = binning.order_statistics(x[:, ::-1], ranks)
    np.testing.assert_array_equal(found, np.sort(x, None))
    assert found.dtype == dtype
