"""Order statistics against sorting: ties, signs, infinities, tiny numbers, and any size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from isthmus.information import order_statistics as module
from isthmus.information.order_statistics import order_statistics

FLOATS = st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45]))


@pytest.fixture(autouse=True)
def _nothing_is_sorted_whole(monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "PART", 37)


@given(arrays.arrays(np.float32, st.integers(1, 300), elements=FLOATS), st.data())
def test_any_ranks_of_any_numbers(values, data):
    ranks = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=20)))
    np.testing.assert_array_equal(order_statistics(values, ranks), np.sort(values)[ranks])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["normal", "relu", "saturated", "integers", "constant"])
def test_layers(kind, dtype):
    x = np.random.default_rng(0).standard_normal((50, 40)).astype(dtype)
    x = {
        "normal": x,
        "relu": np.maximum(x, 0),
        "saturated": np.tanh(30 * x),
        "integers": x.round(),
        "constant": np.full_like(x, -0.1),
    }[kind]
    ranks = np.arange(x.size)
    found = order_statistics(x[:, ::-1], ranks)
    np.testing.assert_array_equal(found, np.sort(x, None))
    assert found.dtype == dtype
