"""The bottleneck of a table, against brute force and a linear program: identity 14."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.special import entr

from isthmus.core.errors import ConfigError, DataError
from isthmus.information.learnability import learnability, noise_threshold
from isthmus.information.tables import entropy, mutual_information, noisy_labels
from isthmus.information.tabular import (
    Search,
    ceb_curve,
    conditional_entropy_bottleneck,
    ib_curve,
    information_bottleneck,
)

seeds = st.integers(0, 10_000)
weights = st.floats(0.2, 50.0)


def random_table(seed, rows=3, columns=3, zeros=0.3):
    """Some probabilities are 0, but no value of X is."""
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.ones(rows * columns)).reshape(rows, columns)
    holes = generator.random(p.shape) < zeros
    holes[np.arange(rows), generator.integers(columns, size=rows)] = False
    p[holes] = 0.0
    return p / p.sum()


def information(joint, encoder):
    """I(X;Z), I(Y;Z) from logarithms of joint tables: nothing shared with the code under test."""
    plain = lambda p: sum(v * math.log(v / (p.sum(1)[i] * p.sum(0)[j])) for (i, j), v in np.ndenumerate(p) if v > 0)  # noqa: E731
    return plain(np.diag(joint.sum(1)) @ encoder), plain(joint.T @ encoder)


def convex_hull(joint, beta, steps):
    """The optimum over all codes whose p(x|z) lies on a grid: a linear program, so no local optima.

    I(X;Z) − β·I(Y;Z) = const + Σ_z p(z)·[β·H(Y|z) − H(X|z)], and Σ_z p(z)·p(x|z) = p(x).
    """
    p_x = joint.sum(1)
    grid = np.array([c for c in itertools.product(range(steps + 1), repeat=len(p_x)) if sum(c) == steps]) / steps
    cost = beta * entr(grid @ (joint / p_x[:, None])).sum(1) - entr(grid).sum(1)
    solved = linprog(cost, A_eq=grid.T, b_eq=p_x, bounds=(0, None))
    return solved.fun + entropy(p_x) - beta * entropy(joint.sum(0))


@pytest.mark.parametrize(
    ("noise", "factor", "i_xz", "i_yz"),
    [
        (0.1, 0.97, 0.0, 0.0),
        (0.1, 1.03, 0.1086, 0.0685),
        (0.1, 1.5, 0.5855, 0.3302),
        (0.2, 0.97, 0.0, 0.0),
        (0.2, 1.5, 0.5113, 0.1579),
    ],
)
def test_the_flipped_bit_on_both_sides_of_its_threshold(noise, factor, i_xz, i_yz):
    """Identity 14."""
    code = information_bottleneck(noisy_labels(2, noise), factor * noise_threshold(2, noise))
    assert code.converged
    assert (code.i_xz, code.i_yz) == pytest.approx((i_xz, i_yz), abs=6e-5)
    if factor < 1:
        assert code.i_xz == code.i_yz == code.objective == 0.0


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.2, 0.3, 0.45])
def test_the_flipped_bit_learns_only_above_its_threshold(noise):
    p, onset = noisy_labels(2, noise), noise_threshold(2, noise)
    assert information_bottleneck(p, 0.97 * onset).i_yz == 0.0
    assert information_bottleneck(p, 1.03 * onset).objective < -1e-4


def test_ten_classes_learn_below_the_local_threshold_already():
    """Fact sheet §2.4: a first-order transition, so only one side is sure."""
    p, onset = noisy_labels(10, 0.2), noise_threshold(10, 0.2)
    below = information_bottleneck(p, 0.97 * onset)
    assert (below.i_xz, below.objective) == pytest.approx((1.13, -0.036), abs=5e-3)
    assert information_bottleneck(p, 1.03 * onset).objective < below.objective
    assert information_bottleneck(p, 0.8 * onset).i_xz == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=15)
@given(seeds)
def test_above_the_threshold_something_is_learned(seed):
    p = random_table(seed)
    onset = learnability(p).relevance_weight
    if onset < 1e3:
        assert information_bottleneck(p, 1.1 * onset).objective < 0.0


@settings(max_examples=15)
@given(seeds, st.floats(-3, 4))
def test_ceb_is_ib_at_one_more(seed, rho):
    """Identity 14."""
    p, gamma = random_table(seed), math.exp(rho)
    ceb, ib = conditional_entropy_bottleneck(p, rho), information_bottleneck(p, gamma + 1)
    np.testing.assert_allclose(ceb.encoder, ib.encoder, atol=1e-5)
    assert ceb.relevance_weight == pytest.approx(gamma + 1)
    assert ceb.objective == pytest.approx(ceb.i_xz_given_y - gamma * ceb.i_yz, abs=1e-10)


@settings(max_examples=20)
@given(seeds, st.floats(-2, 4))
def test_ceb_is_stationary_in_its_own_form(seed, rho):
    """Fischer 2020, eq. 15 with b(z|y) and c(y|z) exact: p(z|x) ∝ exp E[ln b(z|y) + γ·ln c(y|z) | x]."""
    p = random_table(seed, zeros=0.0)
    code = conditional_entropy_bottleneck(p, rho)
    p_xyz = p[:, :, None] * code.encoder[:, None, :]
    sent = code.encoder.max(0) > 1e-9
    p_yz = p_xyz.sum(0)[:, sent]
    b, c = p_yz / p_yz.sum(1, keepdims=True), p_yz / p_yz.sum(0)
    logits = p / p.sum(1, keepdims=True) @ (np.log(b) + math.exp(rho) * np.log(c))
    unnormalised = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(unnormalised / unnormalised.sum(1, keepdims=True), code.encoder[:, sent], atol=1e-4)


@settings(max_examples=50)
@given(seeds, st.integers(1, 5), st.integers(1, 4), weights)
def test_what_every_solution_keeps(seed, rows, columns, beta):
    """Distributions; exact information; DPI; the chain rule; never worse than nothing or everything; stationary."""
    p = random_table(seed, rows, columns)
    code = information_bottleneck(p, beta, Search(restarts=3))
    i_xy = mutual_information(p)
    assert (code.encoder >= 0).all()
    np.testing.assert_allclose(code.encoder.sum(1), 1.0)
    assert (code.i_xz, code.i_yz) == pytest.approx(information(p, code.encoder), abs=1e-10)
    assert 0.0 <= code.i_yz <= min(code.i_xz, i_xy) + 1e-10
    assert code.i_xz_given_y == pytest.approx(code.i_xz - code.i_yz, abs=1e-10)
    assert code.objective == pytest.approx(code.i_xz - beta * code.i_yz, abs=1e-10)
    assert code.objective <= min(0.0, entropy(p.sum(1)) - beta * i_xy) + 1e-9
    if beta <= 1:
        assert code.i_yz <= code.i_xz / max(beta, 0.2) + 1e-9
        assert code.objective == pytest.approx(0.0, abs=1e-9)
    assert code.converged
    assert_stationary(p, code)


def assert_stationary(p, code):
    """p(z|x) = p(z)·exp(−β·KL(p(y|x) ‖ p(y|z))) / norm, worked out one number at a time."""
    p_x = p.sum(1)
    p_z = p_x @ code.encoder
    p_y_z = (p.T @ code.encoder).T / np.maximum(p_z, 1e-300)[:, None]
    for x, row in enumerate(p / p_x[:, None]):
        divergence = [
            sum(a * math.log(a / b) if b > 0 else math.inf for a, b in zip(row, column, strict=True) if a > 0)
            for column in p_y_z
        ]
        unnormalised = np.array(
            [w * math.exp(-code.relevance_weight * d) if w > 0 else 0.0 for w, d in zip(p_z, divergence, strict=True)]
        )
        np.testing.assert_allclose(unnormalised / unnormalised.sum(), code.encoder[x], atol=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_two_by_two_against_brute_force(seed):
    p = random_table(seed, 2, 2, zeros=0.1)
    beta = min(learnability(p).relevance_weight, 1e3) * (0.9, 1.1, 1.5, 3.0)[seed % 4]

    def objective(both):
        i_xz, i_yz = information(p, np.array([[both[0], 1 - both[0]], [both[1], 1 - both[1]]]))
        return i_xz - beta * i_yz

    starts = itertools.product([0.0, 0.3, 0.7, 1.0], repeat=2)
    best = min(minimize(objective, start, bounds=[(0, 1)] * 2, tol=1e-12).fun for start in starts)
    assert information_bottleneck(p, beta).objective == pytest.approx(best, abs=1e-6)
    assert information_bottleneck(p, beta).objective <= best + 1e-10


@pytest.mark.parametrize(("rows", "steps", "slack"), [(2, 1000, 1e-3), (3, 40, 2e-2)])
@pytest.mark.parametrize("seed", range(8))
def test_the_optimum_is_global(rows, steps, slack, seed):
    """Never above the linear program, and below it only by what its grid costs."""
    p = random_table(seed, rows, 3)
    beta = min(learnability(p).relevance_weight, 20.0) * (0.9, 0.97, 1.2, 3.0)[seed % 4]
    bound = convex_hull(p, beta, steps)
    assert bound - slack <= information_bottleneck(p, beta).objective <= bound + 1e-9


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 0, 1, 2, 2]])
def test_labels_that_follow_from_x(rows):
    """The curve is I(Y;Z) = min(I(X;Z), H(Y)), two straight pieces: every β > 1 finds their corner, the MNI point."""
    generator = np.random.default_rng(0)
    p = np.eye(max(rows) + 1)[rows] * generator.dirichlet(np.ones(len(rows)))[:, None]
    entropy_y = entropy(p.sum(0))
    for code in ceb_curve(p, [-3.0, -1.0, 0.0, 1.0, 5.0]):
        assert (code.i_xz, code.i_yz) == pytest.approx((entropy_y, entropy_y), abs=1e-6)
        assert code.i_xz_given_y == pytest.approx(0.0, abs=1e-6)
    assert information_bottleneck(p, 0.9).i_yz == 0.0
    for beta in (0.5, 2.0):  # on the first piece, where the class is erased now and then, no code does better
        for kept in (0.2, 0.7):
            erased = np.column_stack([kept * (p > 0), np.full(len(rows), 1 - kept)])
            i_xz, i_yz = information(p, erased)
            assert i_xz == pytest.approx(i_yz)
            assert i_yz == pytest.approx(kept * entropy_y)
            assert information_bottleneck(p, beta).objective <= i_xz - beta * i_yz


def test_independent_labels_are_not_learned():
    p = np.outer([0.2, 0.3, 0.5], [0.7, 0.3])
    for beta in (1.0, 10.0, 1e4):
        assert information_bottleneck(p, beta).i_xz == pytest.approx(0.0, abs=1e-9)


def test_equal_rows_share_a_code():
    """A wide bottleneck keeps the minimal sufficient statistic, not X."""
    p = np.array([[0.18, 0.02], [0.36, 0.04], [0.1, 0.3]])
    code = information_bottleneck(p, 1e4)
    np.testing.assert_allclose(code.encoder[0], code.encoder[1], atol=1e-6)
    assert code.i_yz == pytest.approx(mutual_information(p), abs=1e-6)
    assert code.i_xz == pytest.approx(entropy([0.6, 0.4]), abs=1e-6)


@settings(max_examples=10)
@given(seeds)
def test_curves_rise(seed):
    """I(X;Z) and I(Y;Z) grow with β, each code is the best at its own β, and results keep the given order."""
    p = random_table(seed)
    betas = [3.0, 1.2, 40.0, 8.0, 1.2, 2.0]
    codes = ib_curve(p, betas)
    assert [code.relevance_weight for code in codes] == betas
    ordered = sorted(codes, key=lambda code: code.relevance_weight)
    for low, high in itertools.pairwise(ordered):
        assert high.i_yz >= low.i_yz - 1e-6
        assert high.i_xz >= low.i_xz - 1e-6
        for code, other in ((low, high), (high, low)):
            assert code.objective <= other.i_xz - code.relevance_weight * other.i_yz + 1e-8


def test_zeros_everywhere():
    """Values of X and Y that never occur, and certain labels beside uncertain ones."""
    p = np.array([[0.25, 0.0, 0.0], [0.0, 0.0, 0.0], [0.125, 0.125, 0.0], [0.0, 0.5, 0.0]])
    for beta in (0.5, 1.5, 3.0, 100.0, 1e8, 1e300):
        code = information_bottleneck(p, beta)
        assert np.isfinite(code.encoder).all()
        np.testing.assert_allclose(code.encoder.sum(1), 1.0)
        np.testing.assert_allclose(code.encoder[1], p.sum(1) @ code.encoder, atol=1e-12)
        smaller = information_bottleneck(p[[0, 2, 3], :2], beta, Search(codes=4))
        assert code.objective == pytest.approx(smaller.objective, rel=1e-9, abs=1e-9)


def test_tiny_probabilities():
    p = np.array([[0.5, 1e-300], [5e-324, 0.25], [0.0, 0.25]])
    for beta in (0.5, 2.0, 1e6):
        code = information_bottleneck(p, beta)
        assert np.isfinite([code.i_xz, code.i_yz, code.i_xz_given_y, code.objective, *code.encoder.ravel()]).all()


def test_the_seed_decides():
    p = random_table(3, 4, 4)
    first, again = (information_bottleneck(p, 4.0, Search(seed=5)) for _ in range(2))
    np.testing.assert_array_equal(first.encoder, again.encoder)


def test_fewer_codes():
    p = np.eye(4) / 4
    assert information_bottleneck(p, 2.0, Search(codes=2)).i_yz == pytest.approx(math.log(2))
    assert information_bottleneck(p, 2.0, Search(codes=1)).i_yz == 0.0
    assert information_bottleneck(p, 2.0, Search(codes=6)).encoder.shape == (4, 6)


def test_a_search_that_ends_early_says_so():
    p = noisy_labels(2, 0.1)
    code = information_bottleneck(p, 1.7, Search(max_iterations=3))
    assert not code.converged
    assert code.iterations == 3


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_weights_that_cannot_be(beta):
    with pytest.raises(ConfigError, match="positive and finite"):
        information_bottleneck(noisy_labels(2, 0.1), beta)
    with pytest.raises(ConfigError, match="positive and finite"):
        ib_curve(noisy_labels(2, 0.1), [2.0, beta])


@pytest.mark.parametrize("rho", [math.nan, math.inf, -math.inf])
def test_trade_offs_that_cannot_be(rho):
    with pytest.raises(ConfigError, match="rho must be finite"):
        conditional_entropy_bottleneck(noisy_labels(2, 0.1), rho)
    with pytest.raises(ConfigError, match="rho must be finite"):
        ceb_curve(noisy_labels(2, 0.1), [rho])


def test_a_curve_needs_a_point():
    with pytest.raises(ConfigError, match="at least one"):
        ceb_curve(noisy_labels(2, 0.1), [])


@pytest.mark.parametrize(
    "given", [{"codes": 0}, {"restarts": 0}, {"max_iterations": 0}, {"tolerance": -1.0}, {"tolerance": math.nan}]
)
def test_searches_that_cannot_be(given):
    with pytest.raises(ConfigError, match="got"):
        Search(**given)


def test_tables_are_checked():
    with pytest.raises(DataError, match="sum to 1"):
        information_bottleneck([[1, 2], [3, 4]], 2.0)
