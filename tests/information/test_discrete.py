"""Samples of discrete variables: identity 22, agreement with tables and scikit-learn, and their bias."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import confusion_matrix, mutual_info_score

from isthmus.core.errors import DataError
from isthmus.information import tables
from isthmus.information.discrete import confusion, confusion_information, entropy, independent_entropy, information

PAIRS = st.integers(1, 200).flatmap(
    lambda n: st.tuples(*(arrays.arrays(np.int64, n, elements=st.integers(0, 5)) for _ in range(2)))
)
MATRICES = arrays.arrays(np.int64, (4, 4), elements=st.integers(0, 30)).filter(lambda c: c.sum() > 0)


@given(PAIRS)
def test_information_of_pairs(pairs):
    a, b = pairs
    assert information(a, b) == pytest.approx(mutual_info_score(a, b), abs=1e-12)
    assert information(a, b) == pytest.approx(information(b, a), abs=1e-12)
    assert information(a, a) == pytest.approx(entropy(a), abs=1e-12)
    assert 0.0 <= information(a, b) <= min(entropy(a), entropy(b)) + 1e-12
    assert entropy(a) == pytest.approx(tables.entropy(np.bincount(a) / len(a)), abs=1e-12)
    assert confusion_information(confusion(a, b, 6)) == pytest.approx(information(a, b), abs=1e-12)


@given(PAIRS, st.permutations(range(6)), st.integers(-(2**40), 2**40))
def test_values_are_names(pairs, names, shift):
    a, b = pairs
    assert information(np.array(names)[a] + shift, b) == pytest.approx(information(a, b), abs=1e-12)


@given(MATRICES)
def test_confusion_agrees_with_tables(c):
    assert confusion_information(c) == pytest.approx(tables.mutual_information(c / c.sum()), abs=1e-12)
    assert confusion_information(c) == pytest.approx(confusion_information(c.T), abs=1e-12)
    assert confusion_information(c) == pytest.approx(confusion_information(c / c.sum()), abs=1e-12)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_a_permuted_diagonal_transmits_all(sizes, random):
    """Identity 22: whatever the classes are called, H(Y)."""
    rows = list(range(len(sizes)))
    random.shuffle(rows)
    c = np.diag(sizes)[rows]
    assert confusion_information(c) == pytest.approx(tables.entropy(np.array(sizes) / sum(sizes)), abs=1e-12)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(sum))
def test_a_constant_prediction_transmits_nothing(sizes):
    """Identity 22, at any frequencies of labels: nothing is added inside logarithms."""
    c = np.zeros((len(sizes), len(sizes)), int)
    c[0] = sizes
    assert confusion_information(c) == pytest.approx(0.0, abs=1e-13)
    assert confusion_information(c, corrected=True) == pytest.approx(0.0, abs=1e-13)


def test_stacks_of_matrices():
    generator = np.random.default_rng(0)
    stack = generator.integers(0, 9, (3, 2, 4, 4))
    found = confusion_information(stack)
    assert found.shape == (3, 2)
    assert found[2, 1] == confusion_information(stack[2, 1])


def test_rows_are_predictions():
    """As scikit-learn's, transposed: its rows are true labels."""
    generator = np.random.default_rng(0)
    predicted, true = generator.integers(0, 4, (2, 100))
    np.testing.assert_array_equal(confusion(predicted, true, 5), confusion_matrix(true, predicted, labels=range(5)).T)


def test_the_entropy_of_two_digits():
    """3 against 7 of MNIST's training images (6131 and 6265): 0.9999 bits."""
    assert entropy(np.repeat([3, 7], [6131, 6265])) / math.log(2) == pytest.approx(0.99992, abs=5e-6)
    assert entropy(np.arange(2000)) / math.log(2) == pytest.approx(10.966, abs=5e-4)
    assert entropy([3]) == 0.0


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_the_correction_takes_the_bias_away(share):
    """Over 2,000 samples of 300 from a noisy channel with 4 classes, for which the bias is 9/600 nats."""
    joint = (1 - share) * np.full((4, 4), 1 / 16) + share * np.eye(4) / 4
    samples = np.random.default_rng(0).multinomial(300, joint.ravel(), 2000).reshape(-1, 4, 4)
    truth = tables.mutual_information(joint)
    plain, corrected = (confusion_information(samples, corrected=c).mean() - truth for c in (False, True))
    assert plain == pytest.approx(9 / 600, rel=0.25)
    assert abs(corrected) < 0.2 * plain


@pytest.mark.parametrize(
    ("look", "message"),
    [
        (lambda: entropy([]), "row of integers, at least one"),
        (lambda: entropy([0.5]), "got float64"),
        (lambda: information([1, 2], [1]), "got 2 and 1 values"),
        (lambda: confusion([0, 3], [0, 1], 3), "classes 0 to 2"),
        (lambda: confusion([0], [0, 1], 3), "got 1 predictions and 2 labels"),
        (lambda: confusion_information([[0, 0], [0, 0]]), "nor all 0"),
        (lambda: confusion_information([[1, -1], [0, 0]]), "not negative"),
        (lambda: confusion_information([1, 2]), r"predictions × labels, .* got \(2,\)"),
    ],
)
def test_faults_are_one_sentence(look, message):
    with pytest.raises(DataError, match=message):
        look()


def test_pixels_taken_as_independent_bound_the_entropy_of_images():
    """8 bits a uniform pixel, 0 a constant one; copies of a pixel are counted as if they were others."""
    grey = np.arange(256, dtype=np.uint8)
    images = np.stack([grey, np.roll(grey, 7), np.full(256, 9, np.uint8)], 1)
    assert independent_entropy(images) == pytest.approx(16 * math.log(2))
    assert independent_entropy(images) >= entropy(grey)  # of the images themselves, which are all different
    with pytest.raises(DataError, match="examples × columns"):
        independent_entropy(np.zeros((3, 2)))
