"""Information of tables: identities, edges with zeros and tiny numbers, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import mutual_info_score

from isthmus.core.errors import ConfigError, DataError
from isthmus.information.tables import (
    conditional_mutual_information,
    distribution,
    entropy,
    mutual_information,
    noisy_labels,
)


def counts(*shape):
    return arrays.arrays(np.int64, shape, elements=st.integers(0, 9)).filter(lambda c: c.sum() > 0)


@given(counts(4, 3))
def test_mutual_information_agrees_with_sklearn(c):
    x, y = (np.repeat(index.ravel(), c.ravel()) for index in np.indices(c.shape))
    assert mutual_information(c / c.sum()) == pytest.approx(mutual_info_score(x, y), abs=1e-12)


@given(counts(3, 4))
def test_mutual_information_from_entropies(c):
    p = c / c.sum()
    expected = entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p.ravel())
    assert mutual_information(p) == pytest.approx(expected, abs=1e-12)
    assert mutual_information(p) == pytest.approx(mutual_information(p.T), abs=1e-12)


@given(counts(3, 2, 4))
def test_chain_rule(c):
    """I(X; Y,Z) = I(X;Y) + I(X;Z|Y)."""
    p = c / c.sum()
    pairs = p.reshape(3, -1)
    assert mutual_information(pairs) == pytest.approx(
        mutual_information(p.sum(2)) + conditional_mutual_information(p), abs=1e-12
    )


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 100))
def test_independent_variables_share_nothing(rows, columns, seed):
    generator = np.random.default_rng(seed)
    p = np.outer(generator.dirichlet(np.ones(rows)), generator.dirichlet(np.ones(columns)))
    assert mutual_information(p) == pytest.approx(0.0, abs=1e-14)
    assert mutual_information(p) >= 0.0


def test_closed_values():
    assert entropy([0.5, 0.5, 0.0]) == pytest.approx(math.log(2))
    assert mutual_information(np.eye(5) / 5) == pytest.approx(math.log(5))
    flipped = math.log(2) + 0.1 * math.log(0.1) + 0.9 * math.log(0.9)
    assert mutual_information(noisy_labels(2, 0.1)) == pytest.approx(flipped)
    assert conditional_mutual_information(np.array([[[0.5, 0.0]], [[0.0, 0.5]]])) == pytest.approx(math.log(2))


@pytest.mark.parametrize("tiny", [1e-150, 1e-300, 5e-324])
def test_tiny_probabilities_neither_overflow_nor_underflow(tiny):
    p = np.array([[tiny, 0.0, 0.0], [0.0, 0.5, 0.25], [0.0, 0.0, 0.25]])
    assert mutual_information(p) == pytest.approx(mutual_information(p[1:, 1:]))
    assert conditional_mutual_information(p[:, None]) == pytest.approx(mutual_information(p[1:, 1:]))


def test_noisy_labels():
    p = noisy_labels(10, 0.2)
    np.testing.assert_allclose(p.sum(1), 0.1)
    np.testing.assert_allclose(np.trace(p), 0.8)
    assert len(np.unique(p)) == 2


def test_a_sum_that_is_off_by_rounding_is_mended():
    assert distribution(np.full((3, 3), 1 / 9, dtype=np.float32)).sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([[0.5, -0.1], [0.3, 0.3]], "not negative"),
        ([[0.5, math.nan], [0.3, 0.2]], "finite"),
        ([[0.5, math.inf], [0.3, 0.2]], "finite"),
        ([[3, 1], [1, 3]], "sum to 1; these sum to 8. Divide"),
        ([0.5, 0.5], "2 dimensions.*got \\(2,\\)"),
        (np.zeros((0, 2)), "at least one entry"),
        ([[0.5], [0.25, 0.25]], "array of numbers"),
        ([["a", "b"]], "numbers"),
        (None, "dimensions"),
    ],
)
def test_what_is_no_distribution(table, says):
    with pytest.raises(DataError, match=says):
        mutual_information(table)


@pytest.mark.parametrize(("classes", "noise"), [(1, 0.1), (2, -0.1), (2, 1.1), (2, math.nan)])
def test_noise_that_cannot_be(classes, noise):
    with pytest.raises(ConfigError, match="classes must be at least 2"):
        noisy_labels(classes, noise)
