"""Projections onto a hyperplane within the box, against linear programs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from isthmus.attacks.hyperplane import PROJECTIONS, onto_l1, onto_l2, onto_linf

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
seeds = st.integers(0, 2**32 - 1)
every = pytest.mark.parametrize("name", PROJECTIONS)


def instance(seed: int, reach: float | None = None):
    """A point with pixels at the walls, a normal with zeros and ties, and a residual, ``reach`` of the largest one."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 25)
    x = (rng.random(pixels) * 2 - 0.5).clip(0, 1)
    w = rng.normal(size=pixels).round(rng.integers(0, 4)) * (rng.random(pixels) < 0.8)
    w[rng.integers(pixels)] = 1.5
    sign = rng.choice([-1.0, 1.0])
    most = sign * np.where(w * sign > 0, w * (1 - x), -w * x) @ np.ones(pixels)
    return x, w, sign * most * (rng.random() if reach is None else reach)


def projected(name, x, w, residual):
    x, w, residual = (torch.as_tensor(each, dtype=torch.float64) for each in (x, w, residual))
    return PROJECTIONS[name](x.view(1, 1, -1), w.view(1, -1), residual.view(1, 1)).flatten().numpy()


def check_feasible(x, w, residual, delta):
    np.testing.assert_allclose(w @ delta, residual, atol=1e-9)
    assert (x + delta).min() >= -1e-12
    assert (x + delta).max() <= 1 + 1e-12


@given(seeds)
def test_linf_is_the_least_in_a_linear_program(seed):
    x, w, residual = instance(seed)
    delta = projected("linf", x, w, residual)
    check_feasible(x, w, residual, delta)
    d, one = len(x), np.ones((len(x), 1))
    within = np.block([[np.eye(d), -one], [-np.eye(d), -one]])
    bounds = [*zip(-x, 1 - x, strict=True), (0, None)]
    best = linprog(np.append(np.zeros(d), 1), within, np.zeros(2 * d), np.append(w, 0)[None], [residual], bounds)
    np.testing.assert_allclose(abs(delta).max(), best.fun, atol=1e-7)


@given(seeds)
def test_l1_is_the_least_in_a_linear_program(seed):
    x, w, residual = instance(seed)
    delta = projected("l1", x, w, residual)
    check_feasible(x, w, residual, delta)
    bounds = [(0, room) for room in np.append(1 - x, x)]
    best = linprog(np.ones(2 * len(x)), A_eq=np.append(w, -w)[None], b_eq=[residual], bounds=bounds)
    np.testing.assert_allclose(abs(delta).sum(), best.fun, atol=1e-7)


@given(seeds)
def test_l2_has_no_feasible_perturbation_on_its_near_side(seed):
    """δ is the least if and only if δ·z ≥ ‖δ‖² for all feasible z; a linear program finds the z of least δ·z."""
    x, w, residual = instance(seed)
    delta = projected("l2", x, w, residual)
    check_feasible(x, w, residual, delta)
    nearest = linprog(delta, A_eq=w[None], b_eq=[residual], bounds=[*zip(-x, 1 - x, strict=True)])
    assert nearest.fun >= delta @ delta - 1e-7


@every
@given(seed=seeds)
def test_a_hyperplane_out_of_reach_is_approached_as_far_as_the_box_goes(name, seed):
    x, w, residual = instance(seed, reach=1.5)
    corner = np.where(w * np.sign(residual) > 0, 1.0, 0.0)
    expected = np.where(w * np.sign(residual) == 0, 0, corner - x)
    np.testing.assert_allclose(projected(name, x, w, residual), expected, atol=1e-12)


@every
def test_away_from_the_box_the_size_is_gap_over_the_dual_norm(name):
    w = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    residuals = torch.linspace(-0.2, 0.2, 7)[None]
    delta = PROJECTIONS[name](torch.full((1, 7, 50), 0.5), w, residuals)[0]
    dual = np.linalg.norm(w.numpy(), {"linf": 1, "l2": 2, "l1": np.inf}[name], axis=1)
    sizes = np.linalg.norm(delta.numpy(), ORDER[name], axis=1)
    np.testing.assert_allclose(sizes, abs(residuals[0].numpy()) / dual, rtol=1e-5)
    np.testing.assert_allclose((w * delta).sum(1), residuals[0], atol=1e-6)


@pytest.fixture
def stack():
    g = torch.Generator().manual_seed(1)
    points = (torch.rand(2, 20, 40, generator=g) * 2 - 0.5).clamp(0, 1)
    return points, torch.randn(20, 40, generator=g), torch.randn(2, 20, generator=g) * 4


@every
def test_every_row_is_on_its_own(name, stack):
    points, normals, residuals = stack
    whole = PROJECTIONS[name](points, normals, residuals)
    for m, n in ((0, 0), (1, 7), (0, 19)):
        alone = PROJECTIONS[name](points[m : m + 1, n : n + 1], normals[n : n + 1], residuals[m : m + 1, n : n + 1])
        torch.testing.assert_close(alone[0, 0], whole[m, n], rtol=0, atol=1e-6)


@every
def test_the_scale_of_the_normal_does_not_matter_however_small(name, stack):
    points, normals, residuals = stack
    tiny = PROJECTIONS[name](points, normals * 1e-30, residuals * 1e-30)
    torch.testing.assert_close(tiny, PROJECTIONS[name](points, normals, residuals), rtol=0, atol=1e-5)


@every
def test_without_a_normal_nothing_moves(name, stack):
    points, normals, residuals = stack
    assert (PROJECTIONS[name](points, torch.zeros_like(normals), residuals) == 0).all()
    assert (PROJECTIONS[name](points, normals, torch.zeros_like(residuals)) == 0).all()


@every
def test_nan_comes_out_as_nan_in_its_row_alone(name, stack):
    points, normals, residuals = stack
    spoilt = normals.clone()
    spoilt[3, 5] = torch.nan
    wrong = residuals.clone()
    wrong[1, 8] = torch.nan
    found = PROJECTIONS[name](points, spoilt, wrong).isnan()
    assert found[:, 3].all()
    assert found[1, 8].all()
    assert not found[0, 8].any()
    assert not found[:, 9:].any()


def test_norms_differ_in_who_moves():
    """Two pixels, w = (2, 1) and a residual of 1: alike in ℓ∞, as 2 to 1 in ℓ2, the first alone in ℓ1."""
    point, normal, residual = torch.full((1, 1, 2), 0.25), torch.tensor([[2.0, 1.0]]), torch.ones(1, 1)
    torch.testing.assert_close(onto_linf(point, normal, residual)[0, 0], torch.tensor([1 / 3, 1 / 3]))
    torch.testing.assert_close(onto_l2(point, normal, residual)[0, 0], torch.tensor([0.4, 0.2]))
    torch.testing.assert_close(onto_l1(point, normal, residual)[0, 0], torch.tensor([0.5, 0.0]))
