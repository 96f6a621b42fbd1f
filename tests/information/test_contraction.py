"""η_KL: closed forms of binary channels, its bounds, a search of its own, and codes that cannot exceed it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr

from isthmus.core.errors import DataError
from isthmus.information.contraction import kl_contraction
from isthmus.information.learnability import learnability
from isthmus.information.tables import mutual_information, noisy_labels

SEEDS = st.integers(0, 10**6)


def table(seed, rows=3, columns=3):
    return np.random.default_rng(seed).dirichlet(np.full(rows * columns, 0.7)).reshape(rows, columns)


def total_variation(joint):
    """Dobrushin's coefficient, an upper bound on η_KL."""
    channel = joint / joint.sum(1, keepdims=True)
    return np.abs(channel[:, None] - channel[None]).sum(-1).max() / 2


def grid(joint, number=5_001):
    """The ratio of divergences at every point of a grid, for two values of X."""
    p, channel = joint.sum(1), joint / joint.sum(1, keepdims=True)
    first = np.linspace(0.0, 1.0, number)
    r = np.stack([first, 1.0 - first], 1)
    below = rel_entr(r, p).sum(1)
    above = rel_entr(r @ channel, p @ channel).sum(1)
    return (above[below > 1e-6] / below[below > 1e-6]).max()


@pytest.mark.parametrize("flip", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_the_binary_symmetric_channel(flip):
    assert kl_contraction(noisy_labels(2, flip)) == pytest.approx((1 - 2 * flip) ** 2, abs=1e-9)


@pytest.mark.parametrize("erased", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("source", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5)])
def test_the_erasure_channel_whatever_the_source(source, erased):
    """D(r_Y‖p_Y) = (1 − ε)·D(r‖p_X) for every r."""
    p = np.array(source)
    joint = np.concatenate([np.diag(p * (1 - erased)), erased * p[:, None]], 1)
    assert kl_contraction(joint) == pytest.approx(1 - erased, abs=1e-9)


def test_labels_that_follow_from_images_and_labels_that_do_not():
    sure = np.array([[0.1, 0.0], [0.3, 0.0], [0.0, 0.6]])
    assert kl_contraction(sure) == pytest.approx(1.0, abs=1e-9)
    unsure = np.array([[0.08, 0.02], [0.3, 0.0], [0.0, 0.6]])
    assert kl_contraction(unsure) < 1.0
    assert kl_contraction(np.outer([0.2, 0.8], [0.1, 0.3, 0.6])) == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 4))
def test_two_values_of_x_are_searched_as_well_as_by_a_grid(seed, columns):
    joint = table(seed, 2, columns)
    assert kl_contraction(joint) >= grid(joint) - 1e-5
    assert kl_contraction(joint) == pytest.approx(grid(joint), abs=2e-4)


@settings(max_examples=25)
@given(SEEDS)
def test_it_lies_between_its_bounds(seed):
    joint = table(seed)
    found = kl_contraction(joint)
    assert learnability(joint).maximal_correlation ** 2 - 1e-12 <= found <= total_variation(joint) + 1e-9


@settings(max_examples=25)
@given(SEEDS)
def test_no_code_says_more_of_y_than_that_share_of_what_it_says_of_x(seed):
    joint = table(seed)
    codes = np.random.default_rng(seed + 1).dirichlet(np.full(2, 0.2), size=3)  # p(z|x)
    of_x = mutual_information(joint.sum(1)[:, None] * codes)
    of_y = mutual_information(joint.T @ codes)
    assert of_y <= kl_contraction(joint) * of_x + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_two_independent_copies_contract_as_one(seed):
    """The coefficient of a source tensorises (Anantharam et al. 2013)."""
    joint = table(seed, 2, 2)
    assert kl_contraction(np.kron(joint, joint)) == pytest.approx(kl_contraction(joint), abs=1e-6)


def test_ten_noisy_classes_contract_less_than_their_correlation_says():
    """A code that determines the class for one x in many keeps more than one with some information about all."""
    joint = noisy_labels(10, 0.2)
    row = np.array([0.8, *[0.2 / 9] * 9])
    sure = (np.log(10) + (row * np.log(row)).sum()) / np.log(10)  # D(p(y|x)‖p(y)) / D(x‖p(x))
    found = kl_contraction(joint)
    assert found >= sure
    assert found > learnability(joint).maximal_correlation ** 2 + 0.04
    assert found == pytest.approx(kl_contraction(joint, starts=400, seed=1), abs=1e-6)


def test_values_that_never_occur_change_nothing():
    joint = np.zeros((3, 3))
    joint[np.ix_([0, 2], [1, 2])] = noisy_labels(2, 0.1)
    assert kl_contraction(joint) == pytest.approx(0.64)


@pytest.mark.parametrize("joint", [[[0.5, 0.5]], [[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.2]]])
def test_what_has_no_coefficient_is_refused(joint):
    with pytest.raises(DataError):
        kl_contraction(joint)
