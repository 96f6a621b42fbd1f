"""Recalibration: planted temperatures come back, likelihood is largest there; other libraries agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from isthmus.metrics import fit_isotonic, fit_temperature, fit_vector, nll, probabilities
from isthmus.metrics.scaling import COLDEST, HOTTEST


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


def test_planted_weights_and_biases_come_back():
    """Both are known up to a common shift of the biases; weights shrink no class's logits alone."""
    generator = np.random.default_rng(4)
    logits, weights, biases = generator.normal(size=(20_000, 3)), np.array([2.0, 0.5, 1.0]), np.array([0.5, 0.0, -0.5])
    labels = np.array([generator.choice(3, p=row) for row in probabilities(weights * logits + biases)])
    found, offsets = fit_vector(logits, labels)
    np.testing.assert_allclose(found, weights, atol=0.07)
    np.testing.assert_allclose(offsets - offsets.mean(), biases, atol=0.07)


def test_a_vector_fits_at_least_as_well_as_a_temperature():
    logits, labels = drawn(300, 5, temperature=2.0)
    weights, biases = fit_vector(logits, labels)
    temperature = fit_temperature(logits, labels)
    assert nll(logits * weights + biases, labels).mean() < nll(logits / temperature, labels).mean()


def test_separable_examples_and_masked_classes_have_a_finite_fit():
    masked = np.where(np.eye(4)[[0, 1, 2, 3]] > 0, 5.0, -1e15)
    for logits in (np.eye(4) * 5, masked):
        weights, biases = fit_vector(logits, np.arange(4))
        assert np.isfinite([*weights, *biases]).all()
        assert np.isfinite(fit_isotonic(logits, np.arange(4))(logits)).all()


class Given(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn that reads probabilities off its input."""

    def fit(self, features, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, features):
        return features

    def predict(self, features):
        return features.argmax(1)


def test_isotonic_regression_is_scikit_learns():
    logits, labels = drawn(500, 6, temperature=3.0)
    own, new = probabilities(logits), probabilities(drawn(200, 7)[0])
    frozen = FrozenEstimator(Given().fit(own, labels))
    theirs = CalibratedClassifierCV(frozen, method="isotonic").fit(own, labels).predict_proba(new)
    ours = np.exp(fit_isotonic(logits, labels)(np.log(new)))
    np.testing.assert_allclose(ours, theirs, atol=3 / 500)
    assert ours.min() > 0
    np.testing.assert_allclose(ours.sum(1), 1)
