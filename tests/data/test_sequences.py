"""Autoregressions: predictive information in closed form, and samples that have the stated covariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.sequences import Autoregression

VECTOR = Autoregression(((0.7, 0.3), (-0.2, 0.5)))


@given(st.floats(-0.95, 0.95), st.integers(1, 4), st.integers(1, 4))
def test_a_markov_process_tells_its_future_by_its_last_step(phi, past, future):
    expected = -0.5 * math.log1p(-phi * phi)
    assert Autoregression.scalar(phi).predictive_information(past, future) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("windows", [(1, 1), (3, 2)])
def test_many_channels_lose_what_the_noise_adds(windows):
    """h(x_t) − h(x_t | x_{t−1}) = ½ ln det Σ for unit noise."""
    expected = 0.5 * np.linalg.slogdet(VECTOR.covariance)[1]
    assert VECTOR.predictive_information(*windows) == pytest.approx(expected)


@pytest.mark.parametrize(("past", "future", "chains"), [(3, 1, 0), (4, 1, 1), (4, 3, 3), (3, 2, 1), (9, 7, 4)])
def test_a_lagged_process_is_as_many_processes_that_take_turns(past, future, chains):
    found = Autoregression.scalar(0.9, lag=4).predictive_information(past, future)
    assert found == pytest.approx(-0.5 * chains * math.log1p(-0.81), abs=1e-9)


@pytest.mark.parametrize("process", [Autoregression.scalar(0.8, lag=2), VECTOR], ids=["lagged", "vector"])
def test_samples_have_the_stated_covariance(process):
    windows = process.sample(60_000, 3, 2, torch.Generator().manual_seed(0))
    assert windows.past.shape == (60_000, 3, process.channels)
    rows = torch.cat([windows.past, windows.future], 1).flatten(1).numpy()
    np.testing.assert_allclose(np.cov(rows.T), process.window_covariance(5), atol=0.05)
    np.testing.assert_allclose(rows.mean(0), 0.0, atol=0.05)


def test_the_generator_alone_decides():
    first, second = (VECTOR.sample(5, 2, 1, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.past, second.past)
    assert torch.equal(first.future, second.future)


@pytest.mark.parametrize(
    ("matrix", "lag", "message"),
    [(((1.0,),), 1, "unit circle"), (((0.5, 0.1),), 1, "square matrix"), (((0.5,),), 0, "lag of 1 or more")],
)
def test_what_is_no_stationary_process_is_refused(matrix, lag, message):
    with pytest.raises(ValueError, match=message):
        Autoregression(matrix, lag)
    with pytest.raises(ValueError, match="at least one step"):
        VECTOR.sample(1, 0, 1, torch.Generator())
