"""Temperature scaling: planted temperatures come back, likelihood is largest there, predictions stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from isthmus.metrics import fit_temperature, nll, probabilities
from isthmus.metrics.temperature import COLDEST, HOTTEST


def drawn(n, seed, temperature=1.0, scale=2.0):
    """Logits whose softmax at a temperature is what the labels are drawn from."""
    generator = np.random.default_rng(seed)
    logits = scale * generator.normal(size=(n, 5))
    chances = probabilities(logits / temperature)
    return logits, np.array([generator.choice(5, p=row) for row in chances])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_planted_temperature_comes_back(temperature):
    logits, labels = drawn(20_000, 0, temperature, scale=2.0 * temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 20.0), shift=st.floats(-50, 50))
def test_it_is_where_scipy_finds_the_largest_likelihood(seed, scale, shift):
    logits, labels = drawn(60, seed, scale=scale)
    found = fit_temperature(logits + shift, labels)

    def loss(log_temperature):
        return nll(logits / np.exp(log_temperature), labels).mean()

    best = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-9})
    assert loss(np.log(found)) <= best.fun + 1e-9


def test_scaling_logits_scales_it_and_predictions_stay():
    logits, labels = drawn(500, 3)
    found = fit_temperature(logits, labels)
    assert fit_temperature(7.0 * logits, labels) == pytest.approx(7.0 * found, rel=1e-6)
    assert (probabilities(logits / found).argmax(1) == logits.argmax(1)).all()


def test_the_ends():
    logits = np.eye(4) * 5
    assert fit_temperature(logits, np.arange(4)) == COLDEST
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == HOTTEST


@pytest.mark.parametrize(
    ("logits", "labels"), [(np.zeros((0, 3)), []), (np.zeros((2, 3)), [0]), (np.array([[np.nan, 0.0]]), [0])]
)
def test_what_cannot_be_fitted_is_said(logits, labels):
    with pytest.raises(ValueError, match="a temperature is fitted on finite logits"):
        fit_temperature(logits, labels)
