import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp
from scipy.stats import entropy as scipy_entropy

from isthmus.metrics import energy, entropy, least_confidence, probabilities

some_logits = arrays(np.float64, (3, 5), elements=st.floats(-30, 30))


@given(some_logits)
def test_scipy_agrees(logits):
    p = probabilities(logits)
    np.testing.assert_allclose(entropy(logits), scipy_entropy(p, axis=1), atol=1e-12)
    np.testing.assert_allclose(least_confidence(logits), 1 - p.max(1), atol=1e-12)
    np.testing.assert_allclose(energy(logits), -logsumexp(logits, axis=1), atol=1e-12)


@given(some_logits, st.floats(-50, 50))
def test_only_energy_sees_the_level(logits, level):
    np.testing.assert_allclose(entropy(logits + level), entropy(logits), atol=1e-9)
    np.testing.assert_allclose(least_confidence(logits + level), least_confidence(logits), atol=1e-9)
    np.testing.assert_allclose(energy(logits + level), energy(logits) - level, atol=1e-9)


def test_closed_forms():
    level = np.zeros((1, 10))
    assert entropy(level)[0] == pytest.approx(np.log(10))
    assert least_confidence(level)[0] == pytest.approx(0.9)
    assert energy(level)[0] == pytest.approx(-np.log(10))
    assert energy(np.log(probabilities(np.random.default_rng(0).normal(size=(4, 3))))) == pytest.approx(np.zeros(4))


def test_a_very_sure_classifier_s_images_do_not_tie():
    """1 − p rounds to 0 from a margin of 37 on; float32 logits of sure classifiers go far beyond."""
    margins = np.array([40.0, 80.0, 200.0], dtype=np.float32)
    logits = np.stack([margins, np.zeros(3), np.zeros(3)], axis=1)
    assert (np.diff(least_confidence(logits)) < 0).all()
    assert (np.diff(entropy(logits)) < 0).all()
    assert least_confidence(logits)[0] == pytest.approx(2 * np.exp(-40.0))


def test_classes_that_are_never_given():
    logits = np.array([[0.0, 0.0, -np.inf], [0.0, -1e15, -1e15]])
    np.testing.assert_allclose(entropy(logits), [np.log(2), 0.0])
    np.testing.assert_allclose(least_confidence(logits), [0.5, 0.0])
